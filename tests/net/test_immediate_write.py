"""Transports that write to the socket immediately.

``tests/test_contract.py`` tests them with the contract of all transports.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from twisted.internet import main, tcp
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from seance.net.immediate_write import (
    IMMEDIATE,
    MAX_READ_BYTES,
    MIN_GATHER_BYTES,
    MIN_READ_BYTES,
    MIN_VIEW_BYTES,
    accept_immediately,
    write_immediately,
)
from seance.net.send_queue import SendQueueMonitor
from tests.ears import Ear

reactor: Any = _reactor


class Pair:
    """An immediate transport, and a plain socket at the other end."""

    def __init__(self, transport: Any, peer: socket.socket) -> None:
        self.transport = transport
        self.peer = peer

    def read(self) -> bytes:
        """Return the data that has arrived, without a turn of the reactor."""
        return self.peer.recv(1 << 20)


@pytest_twisted.async_yield_fixture
async def pair() -> AsyncIterator[Pair]:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1])
    ear = await endpoint.connect(Factory.forProtocol(Ear))
    peer, _ = listening.accept()
    listening.close()
    write_immediately(ear.transport)
    yield Pair(ear.transport, peer)
    peer.close()
    ear.transport.abortConnection()


def test_both_sides_of_a_tcp_connection_write_immediately(pair: Pair) -> None:
    assert set(IMMEDIATE) == {tcp.Server, tcp.Client}
    assert isinstance(pair.transport, tcp.Client)
    assert type(pair.transport) is IMMEDIATE[tcp.Client]


def test_written_data_is_sent_before_the_next_turn(pair: Pair) -> None:
    pair.transport.write(b"now")
    assert pair.read() == b"now"
    assert pair.transport not in reactor.getWriters()


def test_pieces_are_sent_together(pair: Pair) -> None:
    for size in (1, MIN_GATHER_BYTES):
        pair.transport.writeSequence([b"a" * size, b"", b"b" * size])
        assert pair.read() == b"a" * size + b"b" * size


def test_buffers_are_sent_and_not_kept(pair: Pair) -> None:
    assert pair.transport.takes_buffers
    head, body = b"h" * MIN_GATHER_BYTES, bytearray(b"b" * 8_000_000)
    pair.transport.writeSequence([head, memoryview(body), b"t"])
    body[:] = b"x" * len(body)
    assert pair.transport in reactor.getWriters(), "the socket has not accepted everything"
    received = bytearray()
    while not received.endswith(b"t"):
        received += pair.read()
        pair.transport.doWrite()
    assert received == head + b"b" * len(body) + b"t"


class TakesViews(Protocol):
    """Copies what it receives, and records the types."""

    takes_views = True

    def __init__(self) -> None:
        self.data = b""
        self.kinds: list[type] = []

    def dataReceived(self, data: bytes | memoryview) -> None:
        self.kinds.append(type(data))
        self.data += data
        if isinstance(data, memoryview):
            data[:] = bytes(len(data))  # it is writable


@pytest.mark.parametrize("is_carrier", [True, False])
def test_only_a_carriers_protocol_that_takes_views_gets_them(pair: Pair, is_carrier: bool) -> None:
    pair.transport.protocol = protocol = TakesViews()
    if is_carrier:
        pair.transport.send_queue = SendQueueMonitor(pair.transport.socket)
    for sent in (b"long" * MIN_VIEW_BYTES, b"short"):
        pair.peer.sendall(sent)
        while not protocol.data.endswith(sent):
            assert pair.transport.doRead() is None
    assert protocol.data == b"long" * MIN_VIEW_BYTES + b"short"
    assert set(protocol.kinds) == ({memoryview, bytes} if is_carrier else {bytes})
    assert protocol.kinds[-1] is bytes
    pair.peer.shutdown(socket.SHUT_WR)
    while (result := pair.transport.doRead()) is None:
        pass
    assert result is main.CONNECTION_DONE


class FullOf:
    """A socket that always fills the requested size until its data ends."""

    def __init__(self, *left: int) -> None:
        self._left = list(left)
        self.asked: list[int] = []

    def recv(self, count: int) -> bytes:
        self.asked.append(count)
        taken = min(count, self._left[0])
        self._left[0] -= taken
        if not self._left[0]:
            del self._left[0]
        return bytes(taken)


def test_reads_grow_to_their_bound_while_each_is_full_and_shrink_again(pair: Pair) -> None:
    real, least = pair.transport.socket, MIN_READ_BYTES
    pair.transport.socket = full = FullOf(least * (1 + 2 + 4 + 4) + least, 100, 100)
    for _ in range(7):
        assert pair.transport.doRead() is None
    pair.transport.socket = real
    assert full.asked == [least, 2 * least, 4 * least, 4 * least, 4 * least, 4 * least, least]
    assert max(full.asked) == MAX_READ_BYTES
    assert len(pair.transport.protocol._wrappedProtocol.data) == 12 * least + 200


@ensureDeferred
async def test_data_that_the_socket_does_not_accept_arrives_in_order(pair: Pair) -> None:
    sent = b"".join(b"%08d" % number for number in range(1_000_000))
    pair.transport.write(sent[:4_000_000])
    pair.transport.writeSequence([sent[4_000_000:6_000_000], sent[6_000_000:7_999_992]])
    pair.transport.write(sent[7_999_992:])
    assert pair.transport in reactor.getWriters()
    pair.peer.setblocking(False)
    received = bytearray()
    while len(received) < len(sent):
        try:
            received += pair.read()
        except BlockingIOError:
            waiting: Deferred[None] = Deferred()
            reactor.callLater(0.001, waiting.callback, None)
            await waiting
    assert bytes(received) == sent


@ensureDeferred
async def test_unsent_data_is_freed_with_the_connection(pair: Pair) -> None:
    """A transport is part of reference cycles, so its buffer would be freed late."""
    transport = pair.transport
    for _ in range(3):
        transport.write(bytes(8_000_000))
    assert transport._tempDataLen + len(transport.dataBuffer) > 8_000_000
    transport.abortConnection()
    while transport.connected:
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.001, waiting.callback, None)
        await waiting
    assert not transport.dataBuffer
    assert not transport._tempDataBuffer


@ensureDeferred
async def test_broken_connection_is_reported_by_the_reactor(pair: Pair) -> None:
    pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    pair.peer.close()
    pair.transport.write(b"x")
    pair.transport.write(b"y")
    pair.transport.writeSequence([b"z" * MIN_GATHER_BYTES])
    assert pair.transport.connected
    while pair.transport.connected:
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.001, waiting.callback, None)
        await waiting


def test_other_transports_are_not_changed() -> None:
    transport = Protocol()
    write_immediately(transport)
    accept_immediately(transport)
    assert type(transport) is Protocol


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@ensureDeferred
async def test_accepted_connections_write_immediately(address: str) -> None:
    accepted: Deferred[Any] = Deferred()
    factory = Factory.forProtocol(Ear)
    factory.buildProtocol = lambda addr: Told(accepted)  # type: ignore[method-assign]
    port: Any = reactor.listenTCP(0, factory, interface=address)
    accept_immediately(port)
    peer = socket.create_connection((address, port.getHost().port))
    transport = (await accepted).transport
    write_immediately(transport)
    assert type(transport) is IMMEDIATE[tcp.Server]
    assert (transport.getPeer().host, transport.getPeer().port) == peer.getsockname()[:2]
    assert transport.getHost() == port.getHost()
    assert address in repr(transport)
    transport.write(b"now")
    assert peer.recv(3) == b"now"
    peer.close()
    transport.abortConnection()
    await port.stopListening()


class Told(Protocol):
    """Fires when it is connected."""

    def __init__(self, connected: Deferred[Any]) -> None:
        self._connected_then = connected

    def connectionMade(self) -> None:
        self._connected_then.callback(self)
