"""A leg: one end of a splice, whatever it is made of.

A TCP connection, a TLS connection and a yamux stream end in two different ways that must not be
mixed up: *end of data* ("I have said all, I still listen") and *gone* ("nobody is there"). Most
proxies forward only the second and cut answers short (aesthetics.md 1.7). ``end`` and
``is_orderly`` are the two places where the difference is spelled out.
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
"""Of ``tcpi_rtt``, in microseconds, in Linux's ``struct tcp_info``."""


class Leg(Protocol):
    """The few operations that a splice needs.

    Twisted's TCP, UNIX and TLS transports and ``seance.mux.StreamTransport`` have them.
    """

    def write(self, data: bytes) -> None:
        """Send ``data`` after everything written before; never blocks, never raises."""

    def pauseProducing(self) -> None:
        """Deliver nothing until ``resumeProducing``; may be called again while paused."""

    def resumeProducing(self) -> None:
        """Deliver again."""

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause ``producer`` while more is queued here than the far side takes."""

    def unregisterProducer(self) -> None:
        """Forget the producer, which is not paused any more from here."""

    def loseConnection(self) -> None:
        """Close both directions once everything written has left."""

    def abortConnection(self) -> None:
        """Cut both directions now; what is queued is lost, and the far side sees a reset."""


def end(leg: Leg) -> None:
    """Say "end of data" on ``leg`` once everything written has left; it still receives.

    TLS has no half-close: a ``close_notify`` ends both directions, and shutting the TCP socket
    under it loses the answer (yamux.md 5.4). A TLS leg is therefore closed in whole. That is
    harmless for a WebSocket, whose last word in either direction is its close frame.
    """
    leg.unregisterProducer()
    if IHalfCloseableDescriptor.providedBy(leg) and not ISSLTransport.providedBy(leg):
        leg.loseWriteConnection()  # type: ignore[attr-defined]  # given by the interface above
    else:
        leg.loseConnection()


def unsent_bytes(leg: object) -> int:
    """Return how much a TCP or TLS leg still holds in user space; 0 for what cannot tell.

    Only good for seeing whether a peer takes anything: the kernel's share is not counted.
    """
    held = 0
    while (inner := getattr(leg, "transport", None)) is not None:
        held += sum(map(len, getattr(leg, "_appSendBuffer", ())))  # of TLS, before its handshake is over
        leg = inner
    held += len(getattr(leg, "dataBuffer", b"")) - getattr(leg, "offset", 0)
    return int(held + getattr(leg, "_tempDataLen", 0))


def take_undelivered(leg: object) -> bytes:
    """Return, once, what had arrived on a leg that was cut and a paused protocol did not get."""
    take = getattr(leg, "take_undelivered", None)
    return b"" if take is None else take()


def round_trip_seconds(leg: object) -> float:
    """Return the round trip that the kernel has measured for a TCP or TLS leg; 0.0 if it is not known."""
    while (inner := getattr(leg, "transport", None)) is not None:
        leg = inner
    sock = getattr(leg, "socket", None)
    if not isinstance(sock, socket.socket) or sys.platform != "linux":
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RTT_OFFSET + 4)
    except OSError:  # no TCP socket, or closed
        return 0.0
    return int.from_bytes(info[RTT_OFFSET:], sys.byteorder) / 1e6


def is_orderly(reason: Failure) -> bool:
    """Whether a ``connectionLost`` reason means that both directions had ended, not a cut."""
    return reason.check(ConnectionDone) is not None
