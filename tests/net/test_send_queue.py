"""The limit of unsent data in the kernel, so that a small frame can overtake a transfer."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from seance.net import tune
from seance.net.send_queue import SIOCOUTQNSD, SendQueueMonitor
from tests.ears import Ear
from tests.relay.rig import reactor, until

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="requires Linux")

KIB = 1024


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection with a far end that does not read and has a small buffer."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    near.setblocking(False)
    with near, far:
        yield near, far


def fill(sock: socket.socket, monitor: SendQueueMonitor, piece: int) -> int:
    """Write until the monitor reports enough; return the number of bytes."""
    sent = 0
    while sent < 10_000 * KIB:
        count = sock.send(bytes(piece))
        sent += count
        if monitor.wrote(count):
            return sent
    return sent


def not_sent(sock: socket.socket) -> int:
    import fcntl  # not on every system

    return int.from_bytes(fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4)), sys.byteorder)


@linux_only
def test_a_full_send_queue_is_detected_before_data_is_buffered(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, _ = pair
    monitor = SendQueueMonitor(near)
    fill(near, monitor, KIB)
    assert monitor.max_bytes <= not_sent(near) < 2 * monitor.max_bytes + KIB


@linux_only
def test_the_limit_follows_the_path(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    monitor = SendQueueMonitor(near)
    first = monitor.max_bytes
    for _ in range(10):
        monitor.filled(0.0)
        monitor.drained(0.1)
    assert monitor.max_bytes == KIB < first
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 2 * KIB
    for _ in range(10):
        monitor.filled(0.0)
        monitor.drained(0.001)
    assert monitor.max_bytes == 64 * KIB
    assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 128 * KIB


def test_a_socket_without_the_query_is_never_full() -> None:
    near, far = socket.socketpair()
    with far:
        near.close()
        assert not SendQueueMonitor(near).wrote(1 << 20)


class Source:
    """A producer that writes until it is paused."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.is_paused = False
        self.resumed = 0
        self.written = 0

    def write(self, size: int) -> None:
        while not self.is_paused and self.written < 20_000 * KIB:
            self.transport.write(bytes(size))
            self.written += size

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self.resumed += 1

    def stopProducing(self) -> None:
        pass


@linux_only
@ensureDeferred
async def test_a_carrier_is_paused_by_the_kernels_send_queue() -> None:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1])
    ear = await endpoint.connect(Factory.forProtocol(Ear))
    far, _ = listening.accept()
    listening.close()
    transport: Any = ear.transport
    tune(transport, is_carrier=True)
    source = Source(transport)
    transport.registerProducer(source, True)
    source.write(KIB)
    assert source.is_paused
    assert not transport.dataBuffer
    assert not transport._tempDataBuffer
    assert source.written < 1_000 * KIB
    far.setblocking(False)

    def take() -> bool:
        with contextlib.suppress(BlockingIOError):
            far.recv(1 << 20)
        return source.resumed > 0

    await until(take)
    far.close()
    transport.unregisterProducer()
    transport.abortConnection()
    await until(lambda: not transport.connected)
