"""A TCP proxy with a deliberate fault, in front of a relay or a local server without faults.

It copies bytes, FIN and RST in both directions, except for its fault. Connections of agents (``/agent``)
are copied unchanged. It is for tests only: it has no limits.
"""

from __future__ import annotations

import enum
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.wsclient.frames import TEXT, Frame, FrameReader, encode

__all__ = ["Fault", "FaultyProxy"]

reactor: Any = _reactor

HEAD_END = b"\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 "


class Fault(enum.Enum):
    """The faults of a proxy."""

    NONE = "none"
    DROPS_GLUED = "drops the bytes that follow the 101 in the same read"
    LOWERCASES_TEXT = "lowercases text"
    DELAYS_FIN = "delays FIN"


class FaultyProxy(Factory):
    """Accepts clients and connects to the server.

    Args:
        port: Port of the server on 127.0.0.1.
        fault: The fault.
        delay_seconds: Delay of a FIN for ``DELAYS_FIN``.
    """

    noisy = False

    def __init__(self, port: int, fault: Fault, delay_seconds: float = 1.0) -> None:
        self.port = port
        self.fault = fault
        self.delay_seconds = delay_seconds
        self.legs: set[_Leg] = set()
        self.ends: list[Any] = []

    def stopFactory(self) -> None:
        """Abort all connections and delayed calls."""
        for end in self.ends:
            if end.active():
                end.cancel()
        for leg in list(self.legs):
            transport: Any = leg.transport
            transport.abortConnection()

    def buildProtocol(self, addr: object) -> Protocol:
        return Near(self)


@implementer(IHalfCloseableProtocol)
class _Leg(Protocol):
    """One of two joined connections; data is kept until the other one exists."""

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.other: _Leg | None = None
        self.waiting = b""
        self.has_ended = False

    def connectionMade(self) -> None:
        self.proxy.legs.add(self)

    def changed(self, data: bytes) -> bytes:
        return data

    def dataReceived(self, data: bytes) -> None:
        data = self.changed(data)
        if self.other is None or self.other.transport is None:
            self.waiting += data
        elif data:
            self.other.transport.write(data)

    def join(self, other: _Leg) -> None:
        self.other = other
        other.other = self
        for leg in (self, other):
            assert leg.transport is not None
            assert leg.other is not None
            assert leg.other.transport is not None
            if leg.waiting:
                leg.other.transport.write(leg.waiting)
            if leg.has_ended:
                leg.pass_end()

    def readConnectionLost(self) -> None:
        self.has_ended = True
        if self.other is not None:
            self.pass_end()

    def pass_end(self) -> None:
        is_late = self.proxy.fault is Fault.DELAYS_FIN and not self.is_link
        seconds = self.proxy.delay_seconds if is_late else 0
        self.proxy.ends.append(reactor.callLater(seconds, self._end_other))

    def _end_other(self) -> None:
        assert self.other is not None
        transport: Any = self.other.transport
        if not transport.connected:
            return
        if self.other.has_ended:
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.legs.discard(self)
        transport: Any = self.other.transport if self.other is not None else None
        if transport is not None:
            transport.loseConnection() if reason.check(ConnectionDone) else transport.abortConnection()

    @property
    def is_link(self) -> bool:
        near = self if isinstance(self, Near) else self.other
        return isinstance(near, Near) and near.head.startswith(b"GET /agent")


class Near(_Leg):
    """The connection from the client."""

    head = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        dialling = ClientFactory()
        dialling.noisy = False
        dialling.buildProtocol = lambda _: Far(self.proxy, self)  # type: ignore[method-assign]
        reactor.connectTCP("127.0.0.1", self.proxy.port, dialling)

    def changed(self, data: bytes) -> bytes:
        if HEAD_END not in self.head:
            self.head += data
        return data


class Far(_Leg):
    """The connection to the server; the fault applies to what it receives."""

    def __init__(self, proxy: FaultyProxy, near: Near) -> None:
        super().__init__(proxy)
        self._near = near
        self._head = b""
        self._is_refusal = False
        self._frames = FrameReader()

    def connectionMade(self) -> None:
        super().connectionMade()
        near: Any = self._near.transport
        if not near or not near.connected:
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        self.join(self._near)

    def changed(self, data: bytes) -> bytes:
        if self.is_link or self._is_refusal or self.proxy.fault in (Fault.NONE, Fault.DELAYS_FIN):
            return data
        if HEAD_END not in self._head:
            before = len(self._head)
            self._head += data
            if HEAD_END not in self._head:
                return data
            if not self._head.startswith(SWITCHED):
                self._is_refusal = True
                return data
            head_bytes = self._head.index(HEAD_END) + len(HEAD_END)
            glued = self._head[head_bytes:]
            passed = self._head[before:head_bytes]
            return passed if self.proxy.fault is Fault.DROPS_GLUED else passed + self._lowered(glued)
        return self._lowered(data) if self.proxy.fault is Fault.LOWERCASES_TEXT else data

    def _lowered(self, data: bytes) -> bytes:
        frames = [
            Frame(frame.opcode, frame.payload.lower(), frame.is_final) if frame.opcode == TEXT else frame
            for frame in self._frames.receive(data)
        ]
        return b"".join(map(encode, frames))
