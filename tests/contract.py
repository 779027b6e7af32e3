"""How a transport behaves towards protocol, producer and consumer, independent of its kind.

Each claim holds for Twisted's TCP transport, and applications rely on it. ``tests/test_contract.py`` runs the
same assertions for every kind of transport. Where TCP is lax, the claim is lax too: a producer that is
registered with a full transport need not be paused before its next write, and a push producer that is not
paused does not delay ``loseConnection``.

This file is about the ends of connections; ``tests/contract_flow.py`` is about data.
"""

from __future__ import annotations

import pytest_twisted
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tests.conftest import Watch
from tests.contract_flow import KIB, MUCH, FlowContract
from tests.ears import Ear, HalfEar, PullSource, PushSource, pattern
from tests.rigs import Rig

__all__ = ["TransportContract"]


class TransportContract(FlowContract):
    """Make one subclass for each kind of transport; ``make_rig`` returns a rig that connects two of them."""

    # -- closing ---------------------------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_a_close_comes_after_all_written_bytes(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        with near.calling() as transport:
            transport.write(pattern(500 * KIB))
            assert not transport.disconnecting
            transport.loseConnection()
            assert transport.disconnecting
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert far.data == pattern(500 * KIB)
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)
        assert far.told == ["made", "data", "lost"]

    @pytest_twisted.ensureDeferred
    async def test_a_second_close_has_no_effect(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        transport = near.transport
        transport.loseConnection()
        transport.loseConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        transport.loseConnection()
        transport.stopProducing()
        await rig.settle()
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_both_ends_may_close_at_the_same_time(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        near.transport.loseConnection()
        far.transport.loseConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        await rig.settle()
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_stop_producing_closes(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        near.transport.stopProducing()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_a_paused_transport_can_close(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        near.transport.pauseProducing()
        near.transport.write(b"the last word")
        near.transport.loseConnection()
        near.transport.pauseProducing()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert far.data == b"the last word"
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_nothing_is_delivered_after_a_close(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        far.transport.write(b"too late")
        near.transport.loseConnection()
        near.transport.resumeProducing()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert near.told == ["made", "lost"]

    @pytest_twisted.ensureDeferred
    async def test_a_write_after_the_end_is_dropped(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        transports = near.transport, far.transport
        near.transport.loseConnection()
        near.transport.write(b"")
        await rig.until(lambda: near.is_lost and far.is_lost)
        for transport in transports:
            transport.write(b"nobody")
            transport.writeSequence([b"no", b"body"])
            transport.pauseProducing()
            transport.resumeProducing()
            transport.unregisterProducer()
            transport.abortConnection()
        await rig.settle()
        assert near.told == far.told == ["made", "lost"]

    @pytest_twisted.ensureDeferred
    async def test_a_write_to_a_closing_peer_is_dropped(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        near.transport.loseConnection()
        far_transport = far.transport

        def write_on() -> bool:
            far_transport.write(b"nobody reads this")
            return near.is_lost and far.is_lost

        await rig.until(write_on)
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(far.reasons[0].type)
        assert near.data == b""

    @pytest_twisted.ensureDeferred
    async def test_a_close_waits_for_a_pull_producer(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        pieces = [pattern(30 * KIB, seed) for seed in range(10)]
        expected = b"".join(pieces)
        PullSource(near.transport, pieces).start()
        near.transport.loseConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert far.data == expected
        assert far.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_a_close_waits_for_a_paused_push_producer(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        far.transport.pauseProducing()
        source = PushSource(near.transport, MUCH, piece_bytes=len(MUCH) // 2)
        source.start()
        assert source.is_paused
        near.transport.loseConnection()
        await rig.settle()
        assert not near.is_lost
        far.transport.resumeProducing()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert far.data == MUCH
        assert far.was_lost_with(ConnectionDone)

    # -- cutting ---------------------------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_an_abort_is_reported_to_both_ends(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        with near.calling() as transport:
            transport.abortConnection()
            transport.abortConnection()
            transport.loseConnection()
            transport.write(b"nobody")
        await rig.until(lambda: near.is_lost and far.is_lost)
        await rig.settle()
        assert near.was_lost_with(ConnectionAborted)
        assert far.was_lost_with(ConnectionLost)
        assert far.data == b""

    @pytest_twisted.ensureDeferred
    async def test_a_closing_transport_can_be_aborted(self, rig: Rig, ends: tuple[Ear, Ear]) -> None:
        near, far = ends
        far.transport.pauseProducing()
        near.transport.write(MUCH)
        near.transport.loseConnection()
        await rig.settle()
        assert not near.is_lost
        near.transport.abortConnection()
        await rig.until(lambda: near.is_lost)
        assert near.was_lost_with(ConnectionAborted)
        far.transport.resumeProducing()
        await rig.until(lambda: far.is_lost)
        assert far.was_lost_with(ConnectionLost)
        assert MUCH.startswith(far.data)
        assert len(far.data) < len(MUCH)

    @pytest_twisted.ensureDeferred
    async def test_bytes_before_an_abort_reach_a_paused_protocol(
        self, rig: Rig, ends: tuple[Ear, Ear]
    ) -> None:
        near, far = ends
        far.transport.pauseProducing()
        near.transport.write(b"the last word")
        await rig.settle()
        near.transport.abortConnection()
        await rig.until(lambda: near.is_lost)
        await rig.settle()
        assert far.told == ["made"]
        far.transport.resumeProducing()
        await rig.until(lambda: far.is_lost)
        assert far.data == b"the last word"
        assert far.was_lost_with(ConnectionLost)

    @pytest_twisted.ensureDeferred
    async def test_nothing_is_delivered_after_an_abort(self, rig: Rig) -> None:
        near, far = Ear(), Ear()
        far.on_data = lambda _: far.transport.abortConnection()
        await rig.connect(near, far)
        for number in range(60):
            near.transport.write(pattern(4 * KIB, number))
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert len(far.data) <= 64 * KIB
        assert far.told == ["made", "data", "lost"]
        assert far.was_lost_with(ConnectionAborted)
        assert far.reentered == []

    @pytest_twisted.ensureDeferred
    async def test_a_protocol_may_close_or_abort_in_connection_made(self, rig: Rig) -> None:
        for end, reason in (("loseConnection", ConnectionDone), ("abortConnection", ConnectionAborted)):
            near, far = Ear(on_made=lambda ear, end=end: getattr(ear.transport, end)()), Ear()
            await rig.connect(near, far)
            await rig.until(lambda near=near: near.is_lost)
            assert near.was_lost_with(reason)
            assert near.reentered == []

    @pytest_twisted.ensureDeferred
    async def test_a_protocol_may_close_in_data_received(self, rig: Rig) -> None:
        near, far = Ear(), Ear()

        def answer(_: bytes) -> None:
            far.transport.write(b"answer")
            far.transport.loseConnection()

        far.on_data = answer
        await rig.connect(near, far)
        near.transport.write(b"?")
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert near.data == b"answer"
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)
        assert far.reentered == []

    # -- faults ----------------------------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_a_failing_protocol_loses_only_its_own_connection(self, rig: Rig, watch: Watch) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        near, far = Ear(), Ear(on_data=fail)
        other_near, other_far = Ear(), Ear()
        await rig.connect(near, far)
        await rig.connect(other_near, other_far)
        near.transport.write(b"?")
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert not far.was_lost_with(ConnectionDone)
        other_near.transport.write(b"still here")
        await rig.until(lambda: other_far.data == b"still here")
        assert len(watch.take()) == 1

    @pytest_twisted.ensureDeferred
    async def test_a_protocol_that_fails_in_connection_lost_affects_no_other(
        self, rig: Rig, watch: Watch
    ) -> None:
        class Careless(Ear):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                super().connectionLost(reason)
                raise ZeroDivisionError

        near, far = Ear(), Careless()
        other_near, other_far = Ear(), Ear()
        await rig.connect(near, far)
        await rig.connect(other_near, other_far)
        near.transport.loseConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        other_far.transport.write(b"still here")
        await rig.until(lambda: other_near.data == b"still here")
        assert len(watch.take()) == 1

    # -- halves ----------------------------------------------------------------------------

    @pytest_twisted.ensureDeferred
    async def test_each_direction_ends_separately(self, rig: Rig) -> None:
        if not rig.can_half_close:
            return
        near, far = HalfEar(), HalfEar()
        await rig.connect(near, far)
        with near.calling() as transport:
            transport.write(pattern(300 * KIB))
            transport.loseWriteConnection()
        await rig.until(lambda: "read ended" in far.told and "write ended" in near.told)
        assert far.data == pattern(300 * KIB)
        assert near.told == ["made", "write ended"]
        near.transport.write(b"dropped")
        await rig.settle()
        far.transport.write(pattern(300 * KIB, 1))
        far.transport.loseWriteConnection()
        await rig.until(lambda: "read ended" in near.told and "write ended" in far.told)
        assert near.data == pattern(300 * KIB, 1)
        assert far.data == pattern(300 * KIB)
        for ear in (near, far):
            ear.transport.loseConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert near.told == ["made", "write ended", "data", "read ended", "lost"]
        assert far.told == ["made", "data", "read ended", "write ended", "lost"]
        assert near.was_lost_with(ConnectionDone)
        assert far.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_a_protocol_without_half_close_is_closed_at_the_end_of_data(self, rig: Rig) -> None:
        near, far = HalfEar(), Ear()
        await rig.connect(near, far)
        source = PushSource(far.transport, b"")
        far.transport.registerProducer(source, True)
        near.transport.write(b"all of it")
        getattr(near.transport, "loseWriteConnection", near.transport.loseConnection)()
        await rig.until(lambda: far.is_lost)
        assert far.told == ["made", "data", "lost"]
        assert far.data == b"all of it"
        assert far.was_lost_with(ConnectionDone)
        assert source.stops == 1
        near.transport.loseConnection()
        await rig.until(lambda: near.is_lost)
        assert near.was_lost_with(ConnectionDone)

    @pytest_twisted.ensureDeferred
    async def test_a_half_closed_transport_can_be_paused_and_aborted(self, rig: Rig) -> None:
        if not rig.can_half_close:
            return
        near, far = HalfEar(), HalfEar()
        await rig.connect(near, far)
        far.transport.pauseProducing()
        near.transport.write(b"all of it")
        near.transport.loseWriteConnection()
        await rig.settle()
        assert far.told == ["made"]
        far.transport.resumeProducing()
        await rig.until(lambda: "read ended" in far.told)
        assert far.data == b"all of it"
        far.transport.abortConnection()
        await rig.until(lambda: near.is_lost and far.is_lost)
        assert far.was_lost_with(ConnectionAborted)
        assert near.was_lost_with(ConnectionLost)
