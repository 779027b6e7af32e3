"""The first half of the transport contract: data, producers and consumers.

The second half is in ``tests/contract.py``. The fixtures of both are here: a rig for each test, and two
connected protocols.
"""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ITransport,
)
from zope.interface.verify import verifyObject

from tests.ears import Ear, PullSource, PushSource, pattern
from tests.rigs import Rig

__all__ = ["KIB", "MUCH", "FlowContract"]

KIB = 1024
MUCH = pattern(2 * KIB * KIB)
"""More bytes than any transport here, its peer and the path between them hold for a protocol that does not
read.
"""


class FlowContract:
    """See ``tests/contract.py``."""

    def make_rig(self) -> Rig:
        raise NotImplementedError

    @pytest_twisted.async_yield_fixture
    async def rig(self) -> Any:
        rig = self.make_rig()
        yield rig
        await rig.stop()

    @pytest_twisted.async_yield_fixture
    async def ends(self, rig: Rig) -> Any:
        """Two connected protocols without half-close; no callback may be re-entrant."""
        near, far = Ear(), Ear()
        await rig.connect(near, far)
        yield near, far
        assert near.reentered == far.reentered == []

    # -- data ------------------------------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_written_bytes_arrive_completely_and_in_order(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        with near.calling() as transport:
            for piece in (b"one ", b"", b"two ", pattern(200 * KIB)):
                transport.write(piece)
            transport.writeSequence([b" three", b"", b" four"])
            transport.writeSequence([])
        far.transport.write(b"the other way")
        expected = b"one two " + pattern(200 * KIB) + b" three four"
        await rig.until(lambda: far.data == expected)
        await rig.until(lambda: near.data == b"the other way")
        assert near.told == far.told == ["made", "data"]

    @pytest_twisted.ensureDeferred
    async def test_only_bytes_can_be_written(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        with pytest.raises(TypeError):
            near.transport.write("text")
        with pytest.raises(TypeError):
            near.transport.writeSequence(["text"])
        near.transport.write(b"bytes")
        await rig.until(lambda: far.data == b"bytes")

    @pytest_twisted.ensureDeferred
    async def test_it_provides_its_interfaces(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        for ear in ends:
            for interface in (ITransport, IConsumer, IPushProducer):
                assert verifyObject(interface, ear.transport)
            assert IHalfCloseableDescriptor.providedBy(ear.transport) is rig.can_half_close

    @pytest_twisted.ensureDeferred
    async def test_it_has_host_and_peer_addresses(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        for ear in ends:
            assert IAddress.providedBy(ear.transport.getHost())
            assert IAddress.providedBy(ear.transport.getPeer())

    @pytest_twisted.ensureDeferred
    async def test_a_protocol_may_write_in_data_received(self, rig: Rig) -> None:
        near, far = Ear(), Ear()
        far.on_data = lambda data: far.transport.write(data)
        await rig.connect(near, far)
        near.transport.write(pattern(300 * KIB))
        await rig.until(lambda: near.data == pattern(300 * KIB))
        assert near.reentered == far.reentered == []

    # -- a producer on this side -----------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_a_push_producer_waits_for_a_peer_that_does_not_read(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        far.transport.pauseProducing()
        source = PushSource(near.transport, MUCH)
        source.start()
        await rig.settle()
        assert source.is_paused
        assert source.written_bytes < len(MUCH)
        assert far.data == b""
        far.transport.resumeProducing()
        await rig.until(lambda: len(far.data) == len(MUCH))
        assert far.data == MUCH
        assert source.is_over
        assert source.stops == 0

    @pytest_twisted.ensureDeferred
    async def test_a_push_producer_is_paused_repeatedly(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        source = PushSource(near.transport, MUCH)
        source.start()
        await rig.until(lambda: len(far.data) == len(MUCH))
        assert far.data == MUCH
        assert source.pauses > 3

    @pytest_twisted.ensureDeferred
    async def test_a_pull_producer_is_resumed_until_it_is_empty(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        pieces = [pattern(30 * KIB, seed) for seed in range(40)]
        expected = b"".join(pieces)
        PullSource(near.transport, pieces).start()
        await rig.until(lambda: far.data == expected)
        assert pieces == []

    @pytest_twisted.ensureDeferred
    async def test_a_second_producer_is_an_error_until_the_first_is_unregistered(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        transport = near.transport
        first, second = PushSource(transport, b""), PushSource(transport, b"second")
        transport.registerProducer(first, True)
        with pytest.raises(RuntimeError):
            transport.registerProducer(second, True)
        transport.unregisterProducer()
        transport.unregisterProducer()
        second.start()
        await rig.until(lambda: far.data == b"second")
        assert first.stops == second.stops == 0

    @pytest_twisted.ensureDeferred
    async def test_a_producer_of_a_full_transport_is_paused_by_its_first_write(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        far.transport.pauseProducing()
        near.transport.write(MUCH)
        await rig.settle()
        source = PushSource(near.transport, b"and one more", piece_bytes=1)
        source.start()
        assert source.is_paused
        assert source.written_bytes <= 1
        far.transport.resumeProducing()
        await rig.until(lambda: far.data == MUCH + b"and one more")

    @pytest_twisted.ensureDeferred
    async def test_a_producer_is_stopped_once_when_the_connection_is_lost(self, rig: Rig) -> None:
        for end in ("abortConnection", "loseConnection"):
            near, far = Ear(), Ear()
            await rig.connect(near, far)
            source = PushSource(near.transport, b"")
            near.transport.registerProducer(source, True)
            getattr(far.transport, end)()
            await rig.until(lambda near=near: near.is_lost)
            assert source.stops == 1
            assert near.told == ["made", "lost"]

    @pytest_twisted.ensureDeferred
    async def test_a_producer_of_a_closed_transport_is_stopped_immediately(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        transport = near.transport
        far.transport.loseConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        source = PushSource(transport, b"")
        transport.registerProducer(source, True)
        assert source.stops == 1

    # -- a consumer on this side -----------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_a_paused_transport_delivers_everything_after_the_pause(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        far.transport.pauseProducing()
        far.transport.pauseProducing()
        for number in range(100):
            near.transport.write(b"%05d" % number)
            await rig.settle() if number % 30 == 0 else None
        await rig.settle()
        assert far.told == ["made"]
        with far.calling() as transport:
            transport.resumeProducing()
            transport.resumeProducing()
        near.transport.write(b"last")
        expected = b"".join(b"%05d" % number for number in range(100)) + b"last"
        await rig.until(lambda: far.data == expected)

    @pytest_twisted.ensureDeferred
    async def test_a_pause_in_data_received_takes_effect_immediately(self, rig: Rig) -> None:
        near, far = Ear(), Ear()
        far.on_data = lambda _: far.transport.pauseProducing()
        await rig.connect(near, far)
        chunks = 0
        for number in range(60):
            near.transport.write(pattern(4 * KIB, number))
        expected = b"".join(pattern(4 * KIB, number) for number in range(60))
        while far.data != expected:
            before = len(far.data)
            await rig.until(lambda before=before: len(far.data) > before)
            taken = len(far.data)
            await rig.settle()
            assert len(far.data) == taken
            far.transport.resumeProducing()
            chunks += 1
        assert chunks > 1
        assert far.reentered == []

    @pytest_twisted.ensureDeferred
    async def test_a_pause_and_a_resume_in_data_received_have_no_effect(self, rig: Rig) -> None:
        near, far = Ear(), Ear()

        def hesitate(_: bytes) -> None:
            far.transport.pauseProducing()
            far.transport.resumeProducing()

        far.on_data = hesitate
        await rig.connect(near, far)
        for number in range(300):
            near.transport.write(pattern(1 * KIB, number))
        expected = b"".join(pattern(1 * KIB, number) for number in range(300))
        await rig.until(lambda: far.data == expected)
        assert far.reentered == []

    @pytest_twisted.ensureDeferred
    async def test_an_end_of_data_waits_behind_paused_data(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        far.on_data = lambda _: far.transport.pauseProducing()
        for number in range(20):
            near.transport.write(pattern(1 * KIB, number))
        near.transport.loseConnection()
        expected = b"".join(pattern(1 * KIB, number) for number in range(20))
        await rig.settle()
        while far.data != expected:
            before = len(far.data)
            far.transport.resumeProducing()
            await rig.until(lambda before=before: len(far.data) > before)
            await rig.settle()
            assert not far.is_lost
        far.transport.resumeProducing()
        await rig.until(lambda: far.is_lost)
        assert far.was_lost_with(ConnectionDone)
