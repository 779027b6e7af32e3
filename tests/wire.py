"""Two transports connected in memory, for tests on a ``Clock``: the behaviour of TCP without a socket.

Each has a send buffer with a high-water mark, a bounded receive buffer, half-close, reset and abort, and can
deliver pieces of any size. ``tests/contract.py`` runs against it and against real TCP, so results of tests on
it hold for TCP.

Nothing happens inside a call. Each end has its own turn on the clock, in which it first sends and then
receives, as in a reactor.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPullProducer,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Wire", "WireEnd", "WireEndpoint", "run", "run_until"]

KIB = 1024
WHOLE = 64 * KIB
"""The number of bytes that a Twisted transport reads at a time."""


def run(clock: Clock, turns: int = 50) -> None:
    """Run everything that is due now."""
    for _ in range(turns):
        clock.advance(0)


def run_until(clock: Clock, condition: Callable[[], object], turns: int = 20_000) -> None:
    """Run everything that is due now until ``condition`` is true; fail if that takes too long."""
    for _ in range(turns):
        if condition():
            return
        clock.advance(0)
    msg = f"the condition did not become true in {turns} turns"
    raise AssertionError(msg)


@dataclass(frozen=True, slots=True)
class Wire:
    """The behaviour of the two ends, and the ends themselves after ``join``.

    Attributes:
        clock: Schedules the turns.
        chop_bytes: Maximum size of a delivered piece; sizes are random from 1 to this, unless it is WHOLE.
        seed: Seed of the sizes.
        high_water_bytes: Above this, an end pauses its producer.
        room_bytes: Number of bytes that an end receives for a protocol that does not read.
        latency_seconds: Delay of every piece and event.
    """

    clock: Clock
    chop_bytes: int = WHOLE
    seed: int = 0
    high_water_bytes: int = 64 * KIB
    room_bytes: int = 64 * KIB
    latency_seconds: float = 0.0
    ends: list[WireEnd] = field(default_factory=list)

    def join(self, near: IProtocol, far: IProtocol) -> None:
        """Connect two protocols, the far one first."""
        ends = [WireEnd(self, 1), WireEnd(self, 2)]
        self.ends.extend(ends)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        ends[0].protocol, ends[1].protocol = near, far
        far.makeConnection(ends[1])
        near.makeConnection(ends[0])

    @property
    def near(self) -> WireEnd:
        return self.ends[0]

    @property
    def far(self) -> WireEnd:
        return self.ends[1]


@implementer(ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor)
class WireEnd:
    """The transport of one of the two protocols.

    Attributes:
        written: The argument of every ``write`` and ``writeSequence``, for tests that count them.
    """

    _log = Logger()

    peer: WireEnd

    def __init__(self, wire: Wire, number: int) -> None:
        self._wire = wire
        self._number = number
        self._random = random.Random(wire.seed + number)
        self.protocol: IProtocol | None = None
        self.written: list[bytes] = []
        self.unsent = bytearray()
        self._arrived = bytearray()
        self.is_connected = True
        self.is_reading = True
        self._wants_to_write = False
        self._is_closing = False
        self._is_ending = False
        self._has_ended = False
        self._is_aborting = False
        self._got_end = False
        self._got_reset = False
        self._producer: IProducer | None = None
        self._is_streaming = True
        self._producer_is_paused = False
        self._has_turn = False

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        return self._is_closing

    @property
    def dataBuffer(self) -> bytes:  # noqa: N802  # Twisted's name
        """The unsent bytes, with the name that ``seance.net.unsent_bytes`` reads."""
        return bytes(self.unsent)

    def write(self, data: bytes) -> None:
        self._write(data)

    def writeSequence(self, iovec: list[bytes]) -> None:
        self._write(b"".join(iovec))

    def _write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            msg = f"Data must be bytes, not {type(data)}"
            raise TypeError(msg)
        if not self.is_connected or self._has_ended or self._is_aborting or not data:
            return
        self.written.append(data)
        self.unsent += data
        is_full = len(self.unsent) > self._wire.high_water_bytes
        if self._producer is not None and self._is_streaming and is_full:
            self._producer_is_paused = True
            cast(IPushProducer, self._producer).pauseProducing()
        self._start_writing()

    def loseConnection(self) -> None:
        if self.is_connected and not self._is_closing and not self._is_aborting:
            self.is_reading = False
            if self._has_ended:
                self._close()
            else:
                self._is_closing = True
                self._start_writing()

    def loseWriteConnection(self) -> None:
        self._is_ending = True
        self._start_writing()

    def abortConnection(self) -> None:
        if self.is_connected and not self._is_aborting:
            self._is_aborting = True
            self._wire.clock.callLater(0, self._abort)

    def getPeer(self) -> IAddress:
        return self.peer.getHost()

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", self._number)

    def readConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError

    def writeConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError

    # -- IConsumer and IPushProducer -------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            msg = f"{self._producer!r} was never unregistered"
            raise RuntimeError(msg)
        if not self.is_connected:
            producer.stopProducing()
            return
        self._producer, self._is_streaming = producer, streaming
        if not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.is_connected and self._is_closing:
            self._start_writing()

    def pauseProducing(self) -> None:
        self.is_reading = False

    def resumeProducing(self) -> None:
        if self.is_connected and not self._is_closing and not self._is_aborting:
            self.is_reading = True
            self._stir()

    def stopProducing(self) -> None:
        self.loseConnection()

    # -- turns -----------------------------------------------------------------------------

    def _start_writing(self) -> None:
        self._wants_to_write = True
        self._stir()

    def _stir(self) -> None:
        if not self._has_turn and self.is_connected:
            self._has_turn = True
            self._wire.clock.callLater(self._wire.latency_seconds, self._take_turn)

    def _take_turn(self) -> None:
        self._has_turn = False
        for step in (self._send, self._receive):
            if self.is_connected and not self._is_aborting:
                try:
                    step()
                except Exception:
                    self._log.failure("A protocol failed; its connection ends")
                    self._close(Failure())

    def _send(self) -> None:
        if not self._wants_to_write:
            return
        if self.unsent and not self.peer.is_connected:
            self._lose(Failure(ConnectionLost()))
            return
        count = self._wire.room_bytes - len(self.peer._arrived)
        if self.unsent and count > 0:
            self.peer._arrived += self.unsent[:count]
            del self.unsent[:count]
            self.peer._stir()
        if self.unsent:
            return
        self._wants_to_write = False
        if self._producer is not None and (not self._is_streaming or self._producer_is_paused):
            self._producer_is_paused = False
            cast(IPushProducer, self._producer).resumeProducing()
        elif self._is_closing:
            self._close()
        elif self._is_ending and not self._has_ended:
            self._has_ended = True
            self.peer._got_end = True
            self.peer._stir()
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.writeConnectionLost()

    def _receive(self) -> None:
        if not self.is_reading:
            return
        if self._arrived:
            most = self._wire.chop_bytes
            count = most if most == WHOLE else self._random.randint(1, most)
            chunk = bytes(self._arrived[:count])
            del self._arrived[:count]
            self.peer._stir()
            self._stir()
            cast(IProtocol, self.protocol).dataReceived(chunk)
        elif self._got_reset:
            self._lose(Failure(ConnectionLost()))
        elif self._got_end:
            self.is_reading = False
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                self._close()
            else:
                half.readConnectionLost()

    # -- the end ---------------------------------------------------------------------------

    def _abort(self) -> None:
        if self.is_connected:
            self._arrived.clear()
            self.peer._got_reset = True
            self._lose(Failure(ConnectionAborted()))

    def _close(self, reason: Failure | None = None) -> None:
        # As in a kernel: closing with unread bytes is a reset.
        if self._arrived:
            self.peer._got_reset = True
        self.peer._got_end = True
        self._lose(reason or Failure(ConnectionDone()))

    def _lose(self, reason: Failure) -> None:
        self.is_connected = False
        self.peer._stir()
        try:
            if self._producer is not None:
                producer, self._producer = self._producer, None
                producer.stopProducing()
            cast(IProtocol, self.protocol).connectionLost(reason)
        except Exception:
            self._log.failure("A protocol failed at its end")


@implementer(IStreamClientEndpoint)
class WireEndpoint:
    """An endpoint that connects to a factory over a wire, after one turn. Without a factory it fails.

    Attributes:
        wires: Every connection so far.
    """

    def __init__(self, clock: Clock, factory: IProtocolFactory | None, **shape: int) -> None:
        self._clock = clock
        self._factory = factory
        self._shape = shape
        self.wires: list[Wire] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._factory is None:
            return fail(ConnectionRefusedError())
        wire = Wire(self._clock, **self._shape)
        self.wires.append(wire)
        near = cast(IProtocol, protocolFactory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 2)))
        far = cast(IProtocol, self._factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        wire.join(near, far)
        return succeed(near)
