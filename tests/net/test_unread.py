"""Received data is read before the loss of a connection is reported.

The peer is a plain socket. It sends its last message and resets while there is data to write to it, so the
connection is readable, writable and in error in one turn of the reactor.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from seance.net import unread
from seance.net.sockets import tune
from tests.ears import HalfEar, pattern

reactor: Any = _reactor
MUCH = 4_000_000
numbers = itertools.count()


async def until(condition: Any) -> None:
    give_up_at = reactor.seconds() + 5
    while not condition():
        assert reactor.seconds() < give_up_at, "the awaited condition did not occur"
        await deferLater(reactor, 0.001)


async def connected(path: str = "") -> tuple[HalfEar, socket.socket]:
    """A protocol on a transport of this project, and the peer's plain socket."""
    listening = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listening.bind(path or ("127.0.0.1", 0))
    listening.listen()
    endpoint: Any
    if path:
        endpoint = UNIXClientEndpoint(reactor, path)
    else:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1])
    ear = await endpoint.connect(Factory.forProtocol(HalfEar))
    ear = getattr(ear, "_wrappedProtocol", ear)
    peer, _ = listening.accept()
    listening.close()
    tune(ear.transport)
    return ear, peer


def reset(peer: socket.socket) -> None:
    """Close with unread data, which sends a reset after all data."""
    if peer.family == socket.AF_UNIX or select.select([peer], [], [], 1)[0]:
        peer.close()
        return
    msg = "nothing was written to the peer"
    raise AssertionError(msg)


SIZES = [0, 1, 1000, 65_536, 65_537, 100_000]
WRITES = [[], ["before"], ["after"], ["later"], ["before", "after"], ["after", "later"]]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("family", ["tcp", "unix"])
@ensureDeferred
async def test_everything_is_read_before_the_loss(family: str, is_paused: bool, ends: bool) -> None:
    for size, writes in itertools.product(SIZES, WRITES):
        await check_reading(family, size, writes, is_paused=is_paused, ends=ends)


async def check_reading(family: str, size: int, writes: list[str], *, is_paused: bool, ends: bool) -> None:
    path = f"\0seance-test-{os.getpid()}-{next(numbers)}" if family == "unix" else ""
    ear, peer = await connected(path)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    transport = ear.transport
    transport.write(b"something that the peer does not read")
    if "before" in writes:
        transport.write(bytes(MUCH))
    if is_paused:
        transport.pauseProducing()
    peer.setblocking(False)
    sent = peer.send(pattern(size)) if size else 0
    if ends:
        peer.shutdown(socket.SHUT_WR)
    reset(peer)
    if "after" in writes:
        transport.write(bytes(MUCH))
    await deferLater(reactor, 0.001)
    if "later" in writes:
        transport.write(b"more")
        await deferLater(reactor, 0.001)
    if is_paused and size:
        assert not ear.is_lost, "not before the data is read"
    if is_paused:
        transport.resumeProducing()
    await deferLater(reactor, 0.001)

    def is_lost() -> bool:
        transport.write(b"a transport that has read an end notices the reset when it writes")
        return ear.is_lost

    await until(is_lost)
    assert ear.data == pattern(sent)
    if family == "tcp":
        assert ("read ended" in ear.told) is ends
    assert ear.was_lost_with(ConnectionLost)


@ensureDeferred
async def test_the_loss_is_reported_to_a_paused_protocol_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unread, "UNREAD_SECONDS", 0.05)
    ear, peer = await connected()
    ear.transport.pauseProducing()
    peer.sendall(b"never read")
    ear.transport.write(b"x")
    reset(peer)
    ear.transport.write(bytes(MUCH))
    await until(lambda: ear.is_lost)
    assert ear.data == b""
    assert ear.was_lost_with(ConnectionLost)


@ensureDeferred
async def test_data_written_while_the_loss_is_delayed_is_dropped() -> None:
    ear, peer = await connected()
    transport = ear.transport
    transport.pauseProducing()
    peer.sendall(b"last word")
    transport.write(b"x")
    reset(peer)
    transport.write(bytes(MUCH))
    await deferLater(reactor, 0.01)
    transport.write(bytes(MUCH))
    assert (transport.dataBuffer, transport._tempDataLen) == (b"", 0)
    assert transport not in reactor.getReaders() + reactor.getWriters(), "it would poll in a busy loop"
    transport.resumeProducing()
    await until(lambda: ear.is_lost)
    assert ear.data == b"last word"


@pytest.mark.parametrize(
    ("how", "reason"), [("loseConnection", ConnectionDone), ("abortConnection", ConnectionAborted)]
)
@ensureDeferred
async def test_a_close_is_not_delayed(how: str, reason: type[Exception]) -> None:
    ear, peer = await connected()
    ear.transport.pauseProducing()
    peer.sendall(b"never read")
    ear.transport.write(b"x")
    reset(peer)
    ear.transport.write(bytes(MUCH))
    await deferLater(reactor, 0.01)
    assert not ear.is_lost
    getattr(ear.transport, how)()
    await until(lambda: ear.is_lost)
    assert ear.data == b""
    assert ear.was_lost_with(reason)
