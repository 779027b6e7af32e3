"""The loads of a benchmark: what its clients send, and what is counted.

One process runs all clients, so each does as little as possible: frames are prepared, responses are counted
by their length, and only echoes are compared. Where the tunnel is faster than this process or the local
server, these are the limit; the direct connection, measured with the same clients and the same server,
shows where that limit is.

A load ends after a time, not after a number of messages, so a slow machine does not take longer.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from seance.errors import Gone
from seance.wsclient import Reactor, Target, dial
from seance.wsclient.frames import BINARY, Frame, encode

__all__ = ["LOADS", "Load", "Sample", "open_idle_clients", "percentile"]

MASK = b"\x5a\xa5\x3c\xc3"

ECHO_BYTES = 64
BROADCAST_BYTES = 128
"""A cursor movement in Yjs takes about 110 bytes."""
BROADCAST_CLIENTS = 50
BROADCAST_INTERVAL_SECONDS = 0.01

DRAIN_SECONDS = 20.0
"""Time limit for outstanding messages after the end of a load."""


@dataclass(slots=True)
class Sample:
    """The result of one run of a load.

    Attributes:
        seconds: How long it took.
        messages: Number of messages received.
        payload_bytes: Their total payload.
        latencies_seconds: One latency for each message, if the load measures it; unsorted.
    """

    seconds: float = 0.0
    messages: int = 0
    payload_bytes: int = 0
    latencies_seconds: list[float] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not below ``share`` of the values; 0 for no values."""
    return sorted(values)[round((len(values) - 1) * share)] if values else 0.0


class _Client(Protocol):
    """A client of a load. ``finished`` fires when every expected message has arrived, or fails."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.is_lost = False
        self.finished: Deferred[None] = Deferred()
        self.latencies_seconds: list[float] = []

    @property
    def tcp(self) -> Any:  # noqa: ANN401  # ITCPTransport or a TLS one: no common type
        return cast(Any, self.transport)

    def finish(self) -> None:
        if not self.finished.called:
            self.finished.callback(None)

    def fail(self, message: str) -> None:
        if not self.finished.called:
            self.finished.errback(Gone(f"During the load {message}.", code="load"))

    def leave(self) -> None:
        """Disconnect immediately."""
        self.finish()
        if self.transport is not None and not self.is_lost:
            self.tcp.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self.fail("a connection was lost")


class _EchoClient(_Client):
    """Keeps ``depth`` messages of ``size`` bytes outstanding; at depth 1, compares and times echoes."""

    def __init__(self, size: int, depth: int) -> None:
        super().__init__()
        payload = bytes(index & 0xFF for index in range(size))
        self._request = encode(Frame(BINARY, payload), mask=MASK)
        self._expected = encode(Frame(BINARY, payload))
        self._depth = depth
        self._received = b""
        self._received_bytes = 0
        self._sent = 0
        self._sent_at = 0.0
        self.messages = 0

    def start(self) -> None:
        self._send(self._depth)

    def _send(self, count: int) -> None:
        self._sent += count
        self._sent_at = time.perf_counter()
        self.tcp.write(self._request * count)

    def dataReceived(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received_bytes += len(data)
        complete = self._received_bytes // len(self._expected)
        new, self.messages = complete - self.messages, complete
        if self._depth == 1:
            self._received += data
            if new and self._received != self._expected:
                self.fail("an echo differed from its message")
                self.tcp.abortConnection()
                return
            if new:
                self._received = b""
                self.latencies_seconds.append(now - self._sent_at)
        if not self.is_stopping:
            if new:
                self._send(new)
        elif self.messages == self._sent:
            self.finish()


class _BroadcastClient(_Client):
    """Receives broadcast messages; each holds the time at which it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self._message_bytes = len(encode(Frame(BINARY, bytes(BROADCAST_BYTES))))
        self._received = bytearray()
        self._expected = -1
        self.sent = 0

    def broadcast(self) -> None:
        self.sent += 1
        payload = struct.pack("<d", time.perf_counter()).ljust(BROADCAST_BYTES, b"\0")
        self.tcp.write(encode(Frame(BINARY, payload), mask=MASK))

    def dataReceived(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        size = self._message_bytes
        while len(self._received) >= size:
            (sent_at,) = struct.unpack_from("<d", self._received, size - BROADCAST_BYTES)
            self.latencies_seconds.append(now - sent_at)
            del self._received[:size]
        self.expect(self._expected)

    def expect(self, count: int) -> None:
        """Finish when ``count`` messages have arrived."""
        self._expected = count
        if self.messages == count:
            self.finish()

    @property
    def messages(self) -> int:
        return len(self.latencies_seconds)


# -- Loads ---------------------------------------------------------------------------------


async def _connect(reactor: Reactor, target: Target, seconds: float) -> Sample:
    """Connect and disconnect in a loop; the latency is that of the handshake."""
    sample = Sample()
    began = time.perf_counter()
    while (dialled_at := time.perf_counter()) - began < seconds:
        client = _Client()
        await dial(reactor, target, client)
        sample.latencies_seconds.append(time.perf_counter() - dialled_at)
        client.leave()
        sample.messages += 1
    sample.seconds = time.perf_counter() - began
    return sample


def _echo(count: int, size: int = ECHO_BYTES, depth: int = 1) -> LoadFunction:
    async def run(reactor: Reactor, target: Target, seconds: float) -> Sample:
        clients = [_EchoClient(size, depth) for _ in range(count)]

        async def echo() -> None:
            for client in clients:
                client.start()
            await deferLater(reactor, seconds)

        return await _run_clients(reactor, target, clients, size, echo)

    return run


async def _broadcast(reactor: Reactor, target: Target, seconds: float) -> Sample:
    clients = [_BroadcastClient() for _ in range(BROADCAST_CLIENTS)]

    async def broadcast() -> None:
        sending = LoopingCall(clients[0].broadcast)
        sending.clock = reactor
        running: Deferred[Any] = sending.start(BROADCAST_INTERVAL_SECONDS)
        await deferLater(reactor, seconds)
        sending.stop()
        await running
        for client in clients:
            client.expect(clients[0].sent)

    return await _run_clients(reactor, target.at("fan"), clients, BROADCAST_BYTES, broadcast)


async def _run_clients(
    reactor: Reactor,
    target: Target,
    clients: Sequence[_EchoClient] | Sequence[_BroadcastClient],
    size: int,
    work: Callable[[], Awaitable[None]],
) -> Sample:
    """Connect all clients, run ``work``, and wait for outstanding messages."""
    try:
        for client in clients:
            await dial(reactor, target, client)
        began = time.perf_counter()
        await work()
        for client in clients:
            client.is_stopping = True
        for client in clients:
            client.finished.addTimeout(DRAIN_SECONDS, reactor)
            try:
                await client.finished
            except DeferredTimeout:
                message = f"Messages were still outstanding {DRAIN_SECONDS:g} s after the load."
                raise Gone(message, code="load") from None
        took = time.perf_counter() - began
    finally:
        for client in clients:
            client.finished.addErrback(lambda _: None)  # already raised, or raised for another client
            client.leave()
    messages = sum(client.messages for client in clients)
    latencies = [latency for client in clients for latency in client.latencies_seconds]
    return Sample(took, messages, messages * size, latencies)


async def open_idle_clients(
    reactor: Reactor, target: Target, count: int, on_count: Callable[[int], None], steps: Sequence[int]
) -> None:
    """Open ``count`` connections that send nothing, one after the other, then close them.

    Args:
        reactor: Twisted's reactor.
        target: The server.
        count: Number of connections.
        on_count: Called with the current number whenever it is in ``steps``, after a pause of 0.3 s.
        steps: When to call ``on_count``.
    """
    clients: list[_Client] = []
    try:
        for number in range(1, count + 1):
            client = _Client()
            await dial(reactor, target, client)
            clients.append(client)
            if number in steps:
                await deferLater(reactor, 0.3)
                on_count(number)
    finally:
        for client in clients:
            client.leave()


LoadFunction = Callable[[Any, Target, float], Awaitable[Sample]]

LATENCY = ("p50_seconds", "p99_seconds")
RATE = ("messages_per_second",)


@dataclass(frozen=True, slots=True)
class Load:
    """A load.

    Attributes:
        name: Its name in JSON and ``--loads``.
        words: Its name in tables.
        run: Runs it with reactor, target and duration in seconds.
        figures: The figures that it measures; CPU time is measured for every load.
        needs_broadcast: Whether it needs the local server of ``seance bench`` or ``seance check``.
    """

    name: str
    words: str
    run: LoadFunction
    figures: tuple[str, ...]
    needs_broadcast: bool = False


LOADS: tuple[Load, ...] = (
    Load("connect", "connecting", _connect, LATENCY),
    Load("echo", "echo, 1 client, 64 B", _echo(1), LATENCY),
    Load("crowd", "echo, 50 clients, 64 B", _echo(50), RATE + LATENCY),
    Load("flood", "8 clients, 64 B, pipelined", _echo(8, depth=64), RATE),
    Load("bulk", "2 clients, 256 KiB messages", _echo(2, 256 * 1024, depth=4), ("bytes_per_second",)),
    Load("fan", "1 sends to 50, 128 B", _broadcast, LATENCY, needs_broadcast=True),
)
"""In the order of the table."""
