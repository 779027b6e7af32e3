"""The loads of a benchmark: what clients do for a moment, and what is counted meanwhile.

Each client is a protocol of its own that does as little as it can: its frames are prepared, what comes back
is counted by its length, and only the echoes are compared. Nevertheless one process plays all clients, so
where the tunnel is quick it is this process, or the local server, that is the limit; the direct connection,
measured with the same clients against the same server, says where that is.

Every load is bounded by time, not by a count: a slow machine measures less, not longer.
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
from seance.wsclient.dial import Target, dial
from seance.wsclient.frames import BINARY, Frame, encode

__all__ = ["LOADS", "Load", "Sample", "idle_clients", "percentile"]

MASK = b"\x5a\xa5\x3c\xc3"

ECHO_BYTES = 64
FAN_BYTES = 128
"""A moved cursor is about 110 bytes (yjs.md, fact 9)."""
BULK_BYTES = 256 * 1024

CROWD = 50
FLOOD_CLIENTS = 8
FLOOD_DEPTH = 64
BULK_CLIENTS = 2
BULK_DEPTH = 4
FAN_CLIENTS = 50
FAN_INTERVAL_SECONDS = 0.01

DRAIN_SECONDS = 20.0
"""How long what is under way may take to arrive once the time is over; then the load has failed."""


@dataclass(slots=True)
class Sample:
    """What one load showed.

    Attributes:
        seconds: How long it went on.
        messages: How many came back.
        payload_bytes: How many bytes those held.
        latencies_seconds: One for each message, where that was looked at; unsorted.
    """

    seconds: float = 0.0
    messages: int = 0
    payload_bytes: int = 0
    latencies_seconds: list[float] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[round((len(values) - 1) * share)]


class _Client(Protocol):
    """A client of a load: knows when it has all that it waits for."""

    def __init__(self) -> None:
        self.is_over = False
        self.is_gone = False
        self.finished: Deferred[None] = Deferred()

    @property
    def leg(self) -> Any:  # noqa: ANN401  # ITCPTransport, or a TLS one: no common type
        return cast(Any, self.transport)

    def finish(self) -> None:
        """All has arrived that was under way."""
        if not self.finished.called:
            self.finished.callback(None)

    def fail(self, words: str) -> None:
        if not self.finished.called:
            self.finished.errback(Gone(f"During the load {words}.", code="load"))
        self.leg.abortConnection()

    def stop(self) -> None:
        """Begin nothing more."""
        self.is_over = True

    def leave(self) -> None:
        """Hang up, whatever is under way."""
        self.finish()
        if self.transport is not None and not self.is_gone:
            self.leg.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_gone = True
        if not self.finished.called:
            self.finished.errback(Gone("During the load a connection was lost.", code="load"))


class Echoing(_Client):
    """Sends one message, waits for its echo, sends the next."""

    def __init__(self, size: int = ECHO_BYTES) -> None:
        super().__init__()
        payload = bytes(index & 0xFF for index in range(size))
        self._question = encode(Frame(BINARY, payload), mask=MASK)
        self._answer = encode(Frame(BINARY, payload))
        self._received = b""
        self._sent_at = 0.0
        self.latencies_seconds: list[float] = []

    def go(self) -> None:
        self._sent_at = time.perf_counter()
        self.leg.write(self._question)

    def dataReceived(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._received:
            data = self._received + data
        if len(data) < len(self._answer):
            self._received = data
            return
        self._received = b""
        if data != self._answer:
            self.fail("an echo was not what had been sent")
            return
        self.latencies_seconds.append(now - self._sent_at)
        if self.is_over:
            self.finish()
            return
        self._sent_at = time.perf_counter()
        self.leg.write(self._question)


class Pipelining(_Client):
    """Keeps some messages under way, and counts what comes back."""

    def __init__(self, size: int, depth: int) -> None:
        super().__init__()
        self._question = encode(Frame(BINARY, bytes(size)), mask=MASK)
        self._answer_bytes = len(encode(Frame(BINARY, bytes(size))))
        self._depth = depth
        self._received_bytes = 0
        self._sent = 0
        self.received = 0

    def go(self) -> None:
        self._send(self._depth)

    def _send(self, count: int) -> None:
        self._sent += count
        self.leg.write(self._question * count)

    def dataReceived(self, data: bytes) -> None:
        self._received_bytes += len(data)
        whole = self._received_bytes // self._answer_bytes
        came, self.received = whole - self.received, whole
        if self.is_over:
            if self.received == self._sent:
                self.finish()
        elif came:
            self._send(came)


class Hearing(_Client):
    """Hears what one of them tells all, and when that was said."""

    def __init__(self) -> None:
        super().__init__()
        self._answer_bytes = len(encode(Frame(BINARY, bytes(FAN_BYTES))))
        self._received = bytearray()
        self.expected = -1
        self.latencies_seconds: list[float] = []

    def tell(self) -> None:
        payload = struct.pack("<d", time.perf_counter()).ljust(FAN_BYTES, b"\0")
        self.leg.write(encode(Frame(BINARY, payload), mask=MASK))

    def dataReceived(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        size = self._answer_bytes
        while len(self._received) >= size:
            (said_at,) = struct.unpack_from("<d", self._received, size - FAN_BYTES)
            self.latencies_seconds.append(now - said_at)
            del self._received[:size]
        if len(self.latencies_seconds) == self.expected:
            self.finish()

    def expect(self, count: int) -> None:
        self.expected = count
        if len(self.latencies_seconds) == count:
            self.finish()


# -- Loads ---------------------------------------------------------------------------------


async def _connecting(reactor: Any, target: Target, seconds: float) -> Sample:  # noqa: ANN401  # a reactor
    """Dial, hang up, dial again; the latency is that of the handshake."""
    sample = Sample()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        client = _Client()
        dialled_at = time.perf_counter()
        await dial(reactor, target, client)
        sample.latencies_seconds.append(time.perf_counter() - dialled_at)
        client.leave()
        sample.messages += 1
    sample.seconds = time.perf_counter() - began
    return sample


def _echoing(count: int) -> LoadFunction:
    async def run(reactor: Any, target: Target, seconds: float) -> Sample:  # noqa: ANN401  # a reactor
        clients = [Echoing() for _ in range(count)]
        sample = await _drive(reactor, target, clients, seconds)
        sample.latencies_seconds = [one for client in clients for one in client.latencies_seconds]
        sample.messages = len(sample.latencies_seconds)
        sample.payload_bytes = sample.messages * ECHO_BYTES
        return sample

    return run


def _pipelining(count: int, size: int, depth: int) -> LoadFunction:
    async def run(reactor: Any, target: Target, seconds: float) -> Sample:  # noqa: ANN401  # a reactor
        clients = [Pipelining(size, depth) for _ in range(count)]
        sample = await _drive(reactor, target, clients, seconds)
        sample.messages = sum(client.received for client in clients)
        sample.payload_bytes = sample.messages * size
        return sample

    return run


async def _fanning(reactor: Any, target: Target, seconds: float) -> Sample:  # noqa: ANN401  # a reactor
    clients = [Hearing() for _ in range(FAN_CLIENTS)]
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1
        clients[0].tell()

    async with _Connected(reactor, target.at("fan"), clients):
        began = time.perf_counter()
        telling = LoopingCall(tell)
        telling.clock = reactor
        going: Deferred[Any] = telling.start(FAN_INTERVAL_SECONDS)
        await deferLater(reactor, seconds)
        telling.stop()
        await going
        for client in clients:
            client.expect(told)
        await _all_finished(reactor, clients)
        latencies = [one for client in clients for one in client.latencies_seconds]
        return Sample(time.perf_counter() - began, len(latencies), len(latencies) * FAN_BYTES, latencies)


async def idle_clients(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    target: Target,
    count: int,
    look: Callable[[int], None],
    steps: Sequence[int],
) -> None:
    """Open connections that say nothing, one after the other.

    Args:
        reactor: Where connections come from.
        target: Whom to dial.
        count: How many in all.
        look: Called with how many there are, whenever that is one of ``steps``.
        steps: When to look; a moment is waited before that.
    """
    clients: list[_Client] = []
    try:
        for number in range(1, count + 1):
            client = _Client()
            await dial(reactor, target, client)
            clients.append(client)
            if number in steps:
                await deferLater(reactor, 0.3)
                look(number)
    finally:
        for client in clients:
            client.leave()


async def _drive(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    target: Target,
    clients: Sequence[Echoing] | Sequence[Pipelining],
    seconds: float,
) -> Sample:
    async with _Connected(reactor, target, clients):
        began = time.perf_counter()
        for client in clients:
            client.go()
        await deferLater(reactor, seconds)
        for client in clients:
            client.stop()
        await _all_finished(reactor, clients)
        return Sample(seconds=time.perf_counter() - began)


class _Connected:
    """All clients of a load, for the time of an ``async with`` block."""

    def __init__(self, reactor: Any, target: Target, clients: Sequence[_Client]) -> None:  # noqa: ANN401  # a reactor
        self._reactor = reactor
        self._target = target
        self._clients = clients

    async def __aenter__(self) -> None:
        for client in self._clients:
            await dial(self._reactor, self._target, client)

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.finished.addErrback(lambda _: None)  # said already, or to be said by another of them
            client.leave()


async def _all_finished(reactor: Any, clients: Sequence[_Client]) -> None:  # noqa: ANN401  # a reactor
    for client in clients:
        client.finished.addTimeout(DRAIN_SECONDS, reactor)
        try:
            await client.finished
        except DeferredTimeout:
            sentence = f"What was sent did not come back within {DRAIN_SECONDS:g} s."
            raise Gone(sentence, code="load") from None


LoadFunction = Callable[[Any, Target, float], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Load:
    """One load, and what to tell about it.

    Attributes:
        name: In JSON and ``--loads``.
        words: For people.
        run: Runs it.
        is_rate: Whether messages a second say something.
        is_bytes: Whether bytes a second do.
        is_latency: Whether latencies do.
        needs_fan: Whether the local server has to be one of ours.
    """

    name: str
    words: str
    run: LoadFunction
    is_rate: bool = False
    is_bytes: bool = False
    is_latency: bool = False
    needs_fan: bool = False


LOADS: tuple[Load, ...] = (
    Load("connect", "connecting", _connecting, is_latency=True),
    Load("echo", "echo, 1 client, 64 B", _echoing(1), is_latency=True),
    Load("crowd", f"echo, {CROWD} clients, 64 B", _echoing(CROWD), is_rate=True, is_latency=True),
    Load(
        "flood",
        f"{FLOOD_CLIENTS} clients, 64 B, pipelined",
        _pipelining(FLOOD_CLIENTS, ECHO_BYTES, FLOOD_DEPTH),
        is_rate=True,
    ),
    Load(
        "bulk",
        f"{BULK_CLIENTS} clients, 256 KiB messages",
        _pipelining(BULK_CLIENTS, BULK_BYTES, BULK_DEPTH),
        is_bytes=True,
    ),
    Load("fan", f"1 tells {FAN_CLIENTS}, 128 B", _fanning, is_latency=True, needs_fan=True),
)
"""In the order of the table."""
