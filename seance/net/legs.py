"""A leg: the transport of one side of a splice: TCP, TLS, a UNIX socket or a yamux stream.

A connection can end in two ways that must be distinguished: *end of data*, after which this side still
receives, and *reset*, after which the peer is gone. Many proxies forward only the second, which truncates
responses. ``end`` and ``is_orderly`` implement the difference.
"""

from __future__ import annotations

import socket
import sys
from typing import Final, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IProducer, ISSLTransport
from twisted.python.failure import Failure

__all__ = ["Leg", "end", "is_orderly", "round_trip_seconds", "take_undelivered", "unsent_bytes"]

RTT_OFFSET: Final = 68
"""Offset of ``tcpi_rtt`` (microseconds) in Linux's ``struct tcp_info``."""


class Leg(Protocol):
    """The operations that a splice needs.

    Twisted's TCP, UNIX and TLS transports and ``seance.mux.StreamTransport`` have them.
    """

    def write(self, data: bytes) -> None:
        """Send ``data`` after all earlier data; never blocks, never raises."""

    def pauseProducing(self) -> None:
        """Deliver nothing until ``resumeProducing``; may be called again while paused."""

    def resumeProducing(self) -> None:
        """Deliver again."""

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause ``producer`` while the send queue is full."""

    def unregisterProducer(self) -> None:
        """Remove the producer."""

    def loseConnection(self) -> None:
        """Close both directions once all written data is sent."""

    def abortConnection(self) -> None:
        """Reset the connection now; queued data is lost."""


def end(leg: Leg) -> None:
    """Send "end of data" on ``leg`` after all written data; the leg still receives.

    TLS has no half-close: a ``close_notify`` ends both directions, and shutting down the TCP socket loses the
    response. A TLS leg is therefore closed completely. This is harmless for a WebSocket, which ends with a
    close frame in each direction.
    """
    leg.unregisterProducer()
    if IHalfCloseableDescriptor.providedBy(leg) and not ISSLTransport.providedBy(leg):
        leg.loseWriteConnection()  # type: ignore[attr-defined]  # given by the interface above
    else:
        leg.loseConnection()


def unsent_bytes(leg: object) -> int:
    """Return the number of bytes that a TCP or TLS leg holds in user space; 0 for other legs.

    The kernel's send queue is not included, so this only shows whether a peer is reading.
    """
    held = 0
    while (inner := getattr(leg, "transport", None)) is not None:
        held += sum(map(len, getattr(leg, "_appSendBuffer", ())))  # TLS before the end of its handshake
        leg = inner
    held += len(getattr(leg, "dataBuffer", b"")) - getattr(leg, "offset", 0)
    return int(held + getattr(leg, "_tempDataLen", 0))


def take_undelivered(leg: object) -> bytes:
    """Return, once, the received data of a reset leg that its paused protocol did not get."""
    take = getattr(leg, "take_undelivered", None)
    return b"" if take is None else take()


def round_trip_seconds(leg: object) -> float:
    """Return the round-trip time that the kernel has measured for a TCP or TLS leg; 0.0 if it is unknown."""
    while (inner := getattr(leg, "transport", None)) is not None:
        leg = inner
    sock = getattr(leg, "socket", None)
    if not isinstance(sock, socket.socket) or sys.platform != "linux":
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RTT_OFFSET + 4)
    except OSError:  # not a TCP socket, or closed
        return 0.0
    return int.from_bytes(info[RTT_OFFSET:], sys.byteorder) / 1e6


def is_orderly(reason: Failure) -> bool:
    """Return whether a ``connectionLost`` reason is a normal end of both directions."""
    return isinstance(reason.value, ConnectionDone)  # ``Failure.check`` compares names of classes
