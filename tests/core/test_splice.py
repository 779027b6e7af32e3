"""Two legs joined by a splice: data that was read before an end is delivered before it.

The legs are real TCP transports with plain sockets as peers, so a test decides when a peer reads; or one leg
is a stream of a yamux session with a ``Clock``, so a test sees which frames were sent, and their order.
"""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock, deferLater

from seance.core.flow_gate import RateLimit
from seance.core.splice import Splice
from seance.net import lingering_reset, unsent_bytes
from seance.net.sockets import tune
from tests.ears import Ear, pattern
from tests.mux.peer import AgentLink
from tests.wire import Wire, run
from tests.yamux.frame_bytes import FIN, RST, data, window

reactor: Any = _reactor
LAST = b"the last message"
MUCH = 600_000


async def until(condition: Any) -> None:
    give_up_at = reactor.seconds() + 5
    while not condition():
        assert reactor.seconds() < give_up_at, "timed out"
        await deferLater(reactor, 0.002)


class Owner:
    """Owns one splice and keeps the reason of its end."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def near_lost(self) -> None:
        pass

    def far_cut(self) -> bool:
        return False

    def closes_far_in_order(self) -> bool:
        return False

    def splice_ended(self, reason: str) -> None:
        assert self.reason is None
        self.reason = reason


class TcpSplice:
    """A splice of two TCP connections, and the plain sockets at their other ends."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.splice = Splice(reactor, self.owner, half_close_seconds=5.0)
        self.peers: dict[str, socket.socket] = {}

    async def start(self) -> None:
        for name in ("near", "far"):
            listening = socket.create_server(("127.0.0.1", 0))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1])
            ear: Any = await endpoint.connect(Factory.forProtocol(Ear))
            transport = ear.transport
            transport.protocol = getattr(self.splice, name)
            tune(transport)
            transport.protocol.makeConnection(transport)
            self.peers[name], _ = listening.accept()
            self.peers[name].setblocking(False)
            listening.close()
        self.splice.start()

    async def read(self, name: str) -> tuple[bytes, str]:
        """Return all data that a peer receives, and how the connection ends: "end" or "reset"."""
        got = bytearray()
        give_up_at = reactor.seconds() + 5
        while reactor.seconds() < give_up_at:
            try:
                more = self.peers[name].recv(65_536)
            except BlockingIOError:
                await deferLater(reactor, 0.002)
                continue
            except ConnectionResetError:
                return bytes(got), "reset"
            if not more:
                return bytes(got), "end"
            got += more
        return bytes(got), "nothing"

    def reset(self, name: str) -> None:
        self.peers[name].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peers[name].close()


@pytest_twisted.async_yield_fixture
async def joined() -> AsyncIterator[TcpSplice]:
    joined = TcpSplice()
    await joined.start()
    yield joined
    joined.splice.abort("test")
    for peer in joined.peers.values():
        peer.close()
    await until(lambda: joined.owner.reason)


SIDES = pytest.mark.parametrize(("here", "there"), [("near", "far"), ("far", "near")])


@SIDES
@ensureDeferred
async def test_the_last_message_arrives_although_the_other_direction_is_full(
    joined: TcpSplice, here: str, there: str
) -> None:
    """Readable, writable and in error in one turn, as when a client resets while it loads a document."""
    is_full = False
    while not is_full:
        try:
            joined.peers[there].send(bytes(65_536))
        except BlockingIOError:
            is_full = True
        await deferLater(reactor, 0.001)
    joined.peers[here].send(LAST)
    joined.peers[here].close()  # with bytes unread: a reset
    assert await joined.read(there) == (LAST, "reset")
    await until(lambda: joined.owner.reason)
    assert joined.owner.reason == f"{here}_gone"


@SIDES
@ensureDeferred
async def test_queued_data_is_sent_before_a_reset(joined: TcpSplice, here: str, there: str) -> None:
    sent = joined.peers[here].send(pattern(MUCH))
    while True:
        await deferLater(reactor, 0.005)
        try:
            sent += joined.peers[here].send(pattern(MUCH))
        except BlockingIOError:
            break
    leg = getattr(joined.splice, there).leg
    assert leg.dataBuffer or leg._tempDataLen, "nothing waits in user space"
    joined.peers[there].setblocking(False)
    received_before = getattr(joined.splice, here).received_bytes
    joined.reset(here)
    await deferLater(reactor, 0.01)
    got, how = await joined.read(there)
    assert how == "reset"
    assert received_before <= len(got) <= sent
    assert got[:MUCH] == pattern(MUCH)[: len(got)]


@SIDES
@ensureDeferred
async def test_a_peer_that_does_not_read_delays_its_reset_for_a_bounded_time(
    joined: TcpSplice, here: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering_reset, "LINGER_SECONDS", 0.1)
    leg = getattr(joined.splice, there).leg
    while not unsent_bytes(leg):
        joined.peers[here].send(bytes(16_384))
        await deferLater(reactor, 0.002)
    joined.reset(here)
    await until(lambda: joined.owner.reason)


@SIDES
@ensureDeferred
async def test_a_reset_after_an_end_of_data_closes_gracefully(
    joined: TcpSplice, here: str, there: str
) -> None:
    joined.peers[here].send(LAST)
    joined.peers[here].shutdown(socket.SHUT_WR)
    assert await joined.read(there) == (LAST, "end")
    joined.reset(here)
    joined.peers[there].send(b"x")
    await until(lambda: getattr(joined.splice, here).is_lost)
    await until(lambda: joined.owner.reason)
    # The kernel answers further data with a reset, as for any peer that has closed in full.
    joined.peers[there].send(b"more")
    await until(lambda: joined.peers[there].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (104, 32))


@SIDES
@ensureDeferred
async def test_abort_resets_both_sides_immediately(joined: TcpSplice, here: str, there: str) -> None:
    joined.peers[here].send(bytes(MUCH))
    await deferLater(reactor, 0.01)
    joined.splice.abort("stalled")
    await deferLater(reactor, 0.01)
    assert joined.owner.reason == "stalled"
    assert (await joined.read(there))[1] == "reset"


class StreamSplice:
    """A splice of a wire, with an ``Ear`` at its other end, and a stream. The test is the stream's peer."""

    def __init__(self, **shape: int) -> None:
        self.link = AgentLink()
        self.owner = Owner()
        self.splice = Splice(cast(Any, self.link.clock), self.owner, half_close_seconds=300.0)
        self.client = Ear()
        self.wire = Wire(self.link.clock, **shape)
        self.wire.join(self.client, cast(Any, self.splice.near))
        self.stream = self.link.accept(cast(Any, self.splice.far))
        self.splice.start()

    def hear(self, *frames: bytes) -> list[Any]:
        return list(self.link.hear(*frames))

    def end(self) -> None:
        self.wire.near.abortConnection()
        self.link.end()


@pytest.fixture
def spliced() -> Any:
    spliced = StreamSplice()
    yield spliced
    spliced.end()


class Watcher:
    """Joins what a splice shows it."""

    def __init__(self) -> None:
        self.data = b""

    def receive(self, data: bytes | memoryview) -> None:
        self.data += data


@pytest.mark.parametrize("takes_buffers", [True, False])
def test_pieces_of_a_stream_reach_client_and_watcher_in_order(
    spliced: StreamSplice, takes_buffers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(spliced.wire.near), "takes_buffers", takes_buffers, raising=False)
    watcher = spliced.splice.far.watch = Watcher()
    sent = pattern(80_000)
    spliced.hear(data(1, sent[:30_000]), data(1, sent[30_000:]))
    assert bytes(spliced.client.data) == watcher.data == sent
    assert spliced.splice.far.received_bytes == len(sent)


def test_pieces_are_charged_to_the_rate_limit() -> None:
    clock = Clock()
    splice = Splice(cast(Any, clock), Owner(), half_close_seconds=5.0, rate_limit=RateLimit(clock, 50_000))
    near_wire, far_wire = Wire(clock), Wire(clock)
    client, server = Ear(), Ear()
    near_wire.join(client, cast(Any, splice.near))
    far_wire.join(server, cast(Any, splice.far))
    splice.start()
    splice.far.pieces_received([memoryview(pattern(40_000)), memoryview(pattern(40_000))], 80_000)
    server.transport.write(LAST)
    run(clock)
    assert bytes(client.data) == 2 * pattern(40_000), "the far side is paused"
    clock.advance(1)
    run(clock)
    assert bytes(client.data) == 2 * pattern(40_000) + LAST


def test_a_stream_gets_the_last_data_of_its_client_before_the_reset(spliced: StreamSplice) -> None:
    spliced.client.transport.write(LAST)
    spliced.link.run()
    spliced.client.transport.abortConnection()
    spliced.link.run()
    assert spliced.link.peer.body(1) == LAST
    flags = [frame.flags for frame in spliced.link.peer.take()]
    assert flags[-1] == RST
    assert FIN not in flags
    assert spliced.owner.reason == "near_gone"


def test_data_that_waits_for_a_window_is_sent_before_the_reset(spliced: StreamSplice) -> None:
    much = pattern(300 * 1024)
    spliced.client.transport.write(much)
    spliced.link.run()
    assert len(spliced.link.peer.body(1)) < len(much)
    spliced.client.transport.abortConnection()
    spliced.link.run()
    assert spliced.owner.reason is None
    heard = spliced.hear(window(1, 0, 1 << 20))
    assert heard[-1].flags == RST
    assert spliced.link.peer.body(1) == much
    assert spliced.owner.reason is not None


def test_a_closed_window_delays_a_reset_for_a_bounded_time(spliced: StreamSplice) -> None:
    spliced.client.transport.write(pattern(300 * 1024))
    spliced.link.run()
    spliced.client.transport.abortConnection()
    spliced.link.run()
    spliced.link.clock.advance(spliced.link.mux.linger_seconds)
    spliced.link.run()
    assert spliced.link.peer.take()[-1].flags == RST
    assert spliced.owner.reason is not None


def test_a_client_gets_the_data_before_the_reset_of_its_stream(spliced: StreamSplice) -> None:
    spliced.hear(data(1, LAST), window(1, RST))
    spliced.link.run()
    spliced.link.clock.advance(0.1)
    spliced.link.run()
    assert spliced.client.data == LAST
    assert spliced.client.was_lost_with(ConnectionLost)


def test_a_slow_client_gets_the_data_before_the_reset_of_its_stream(spliced: StreamSplice) -> None:
    spliced.client.transport.pauseProducing()
    much = pattern(250 * 1024)
    for at in range(0, len(much), 25 * 1024):
        spliced.hear(data(1, much[at : at + 25 * 1024]))
        spliced.link.run()
    spliced.hear(window(1, RST))
    spliced.link.run()
    assert not spliced.client.is_lost
    spliced.client.transport.resumeProducing()
    for _ in range(20):
        spliced.link.run()
    spliced.link.clock.advance(1.0)
    spliced.link.run()
    assert spliced.client.data == much
    assert spliced.client.was_lost_with(ConnectionLost)


def test_undelivered_data_of_a_lost_session_is_delivered(spliced: StreamSplice) -> None:
    spliced.client.transport.pauseProducing()
    much = pattern(250 * 1024)
    for at in range(0, len(much), 25 * 1024):
        spliced.hear(data(1, much[at : at + 25 * 1024]))
        spliced.link.run()
    spliced.link.mux.end("over")
    spliced.client.transport.resumeProducing()
    for _ in range(20):
        spliced.link.run()
    spliced.link.clock.advance(1.0)
    for _ in range(20):
        spliced.link.run()
    assert spliced.client.data == much
    assert spliced.client.was_lost_with(ConnectionLost)


def test_an_end_and_a_reset_of_a_stream_close_the_client_gracefully(spliced: StreamSplice) -> None:
    spliced.hear(data(1, LAST, FIN))
    spliced.hear(window(1, RST))
    spliced.link.run()
    assert spliced.client.data == LAST
    assert not spliced.client.was_lost_with(ConnectionLost)
    assert not spliced.client.was_lost_with(ConnectionAborted)


@ensureDeferred
async def test_an_ended_splice_is_freed_without_the_garbage_collector() -> None:
    class Watcher:
        def receive(self, data: bytes) -> None:
            pass

    joined = TcpSplice()
    await joined.start()
    joined.splice.far.watch = Watcher()
    watcher = weakref.ref(joined.splice.far.watch)
    gc.disable()
    try:
        for name in joined.peers:
            joined.reset(name)
        await until(lambda: joined.owner.reason)
        del joined.splice
        await deferLater(reactor, 0)
        assert watcher() is None
    finally:
        gc.enable()
