"""Protocols and producers that record the callbacks of a transport."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Ear", "HalfEar", "PullSource", "PushSource", "pattern"]


def pattern(size: int, seed: int = 0) -> bytes:
    """Return bytes in which every position is recognisable, so that a lost or moved piece shows."""
    first = (seed % 256) << 24
    numbers = array("I", range(first, first + size // 8 + 1))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes().hex().encode()[:size]


class Ear(Protocol):
    """Records callbacks, and whether one came during another.

    Attributes:
        data: All received bytes.
        told: The events in order: "made", "data" (once for any number), "lost" and, from ``HalfEar``, "read
            ended" and "write ended".
        reasons: The reasons of ``connectionLost``.
        reentered: Callbacks that came while another, or a ``calling`` block, was still running.
        on_made: Called with this protocol when it is connected.
        on_data: Called with the bytes of each ``dataReceived``.
    """

    transport: Any

    def __init__(
        self,
        *,
        on_made: Callable[[Any], object] | None = None,
        on_data: Callable[[bytes], object] | None = None,
    ) -> None:
        self.data = bytearray()
        self.told: list[str] = []
        self.reasons: list[Failure] = []
        self.reentered: list[str] = []
        self.on_made = on_made
        self.on_data = on_data
        self._inside: list[str] = []

    def connectionMade(self) -> None:
        with self._noting("made"):
            if self.on_made is not None:
                self.on_made(self)

    def dataReceived(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data, "dataReceived was called without data"
        with self._noting("data"):
            self.data += data
            if self.on_data is not None:
                self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        with self._noting("lost"):
            self.reasons.append(reason)

    @property
    def is_lost(self) -> bool:
        return bool(self.reasons)

    def was_lost_with(self, kind: type[BaseException]) -> bool:
        """Return whether ``connectionLost`` came once, with this reason, as the last callback."""
        return len(self.reasons) == 1 and self.told[-1] == "lost" and self.reasons[0].check(kind) is not None

    @contextmanager
    def calling(self) -> Iterator[Any]:
        """Yield the transport, and record callbacks that come before the block ends."""
        self._inside.append("call")
        try:
            yield self.transport
        finally:
            self._inside.pop()

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        if self._inside:
            self.reentered.append(f"{what} inside {self._inside[-1]}")
        if what != "data" or self.told[-1:] != ["data"]:
            self.told.append(what)
        self._inside.append(what)
        try:
            yield
        finally:
            self._inside.pop()


@implementer(IHalfCloseableProtocol)
class HalfEar(Ear):
    """An ``Ear`` with half-close."""

    def readConnectionLost(self) -> None:
        with self._noting("read ended"):
            pass

    def writeConnectionLost(self) -> None:
        with self._noting("write ended"):
            pass


@implementer(IPushProducer)
class PushSource:
    """Writes ``data`` in pieces until it is paused; then unregisters, unless told not to.

    Attributes:
        written_bytes: Number of bytes written.
        pauses: Number of pauses, without repetitions.
    """

    def __init__(self, consumer: IConsumer, data: bytes, *, piece_bytes: int = 16384) -> None:
        self._consumer = consumer
        self._data = data
        self._piece_bytes = piece_bytes
        self.written_bytes = 0
        self.pauses = 0
        self.stops = 0
        self.is_paused = False
        self.is_over = False

    def start(self) -> None:
        self._consumer.registerProducer(cast(IPushProducer, self), True)
        self._produce()

    def pauseProducing(self) -> None:
        self.pauses += not self.is_paused
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self._produce()

    def stopProducing(self) -> None:
        self.stops += 1
        self.is_over = True

    def _produce(self) -> None:
        while not self.is_paused and not self.is_over:
            piece = self._data[self.written_bytes : self.written_bytes + self._piece_bytes]
            if not piece:
                self.is_over = True
                self._consumer.unregisterProducer()
                return
            self.written_bytes += len(piece)
            self._consumer.write(piece)


@implementer(IPullProducer)
class PullSource:
    """Writes one of ``pieces`` for each request; unregisters after the last."""

    def __init__(self, consumer: IConsumer, pieces: list[bytes]) -> None:
        self._consumer = consumer
        self._pieces = pieces
        self.stops = 0

    def start(self) -> None:
        self._consumer.registerProducer(cast(IPullProducer, self), False)

    def resumeProducing(self) -> None:
        if self._pieces:
            self._consumer.write(self._pieces.pop(0))
        else:
            self._consumer.unregisterProducer()

    def stopProducing(self) -> None:
        self.stops += 1
