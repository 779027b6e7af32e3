"""A reset that is sent after all written data.

``abortConnection`` drops the buffer in user space and, on TCP, the kernel's send queue. If a splice forwards
a reset from another connection, data that arrived before the reset would be lost. So ``LingeringReset`` waits
until the transport has passed all data to the kernel and the peer's kernel has acknowledged it, at most
``LINGER_SECONDS``, and then resets. For a yamux stream see ``StreamTransport.resetConnection``.

Used by :mod:`seance.core.splice`.
"""

from __future__ import annotations

import importlib
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime

from seance.net.legs import Leg, unsent_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["LINGER_SECONDS", "LingeringReset", "unacknowledged_bytes"]

LINGER_SECONDS: Final = 30.0
"""Maximum time by which a peer that does not read delays the reset."""

MIN_POLL_SECONDS: Final = 0.005
MAX_POLL_SECONDS: Final = 0.1
"""Interval between two checks of the send queue; it doubles from the minimum to the maximum."""

UNKNOWN_SECONDS: Final = 0.2
"""Time to wait where the send queue cannot be queried; a round trip of most paths."""

SIOCOUTQ: Final = 0x5411
"""From ``linux/sockios.h``: bytes in the send queue of a socket that the peer has not acknowledged."""

TCP_CLOSE: Final = 7
"""From ``linux/tcp_states.h``: the socket can send nothing more, for example because the peer has reset."""

_ioctl: Any = None
if sys.platform == "linux":
    with suppress(ImportError):
        _ioctl = importlib.import_module("fcntl").ioctl


class LingeringReset:
    """Resets a leg once all written data is sent. Call ``cancel`` when the leg is lost.

    Args:
        reactor: Provides the time.
        leg: A leg without a producer. Its protocol drops received data.
    """

    __slots__ = ("_call", "_deadline", "_delay", "_leg", "_reactor")

    def __init__(self, reactor: IReactorTime, leg: Leg) -> None:
        self._reactor = reactor
        self._leg = leg
        self._call: IDelayedCall | None = None
        self._delay = MIN_POLL_SECONDS
        reset = getattr(leg, "resetConnection", None)
        if reset is not None:
            reset()
            return
        self._deadline = reactor.seconds() + LINGER_SECONDS
        self._poll()

    def cancel(self) -> None:
        """Stop waiting, without a reset."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _poll(self) -> None:
        self._call = None
        waiting = unsent_bytes(self._leg)
        if not waiting:
            in_kernel = unacknowledged_bytes(self._leg)
            if in_kernel is None:
                self._call = self._reactor.callLater(UNKNOWN_SECONDS, self._reset)
                return
            waiting = in_kernel
        if not waiting or self._reactor.seconds() >= self._deadline:
            self._leg.abortConnection()
            return
        self._call = self._reactor.callLater(self._delay, self._poll)
        self._delay = min(2 * self._delay, MAX_POLL_SECONDS)

    def _reset(self) -> None:
        self._call = None
        self._leg.abortConnection()


def unacknowledged_bytes(leg: object) -> int | None:
    """Return the number of bytes in the kernel that the peer of a leg has not acknowledged.

    Returns:
        0 if it is not a TCP socket, because a reset drops nothing then, and for a socket that the peer has
        reset. None if the system has no such query.
    """
    while (inner := getattr(leg, "transport", None)) is not None:
        leg = inner
    sock = getattr(leg, "socket", None)
    if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    if _ioctl is None:
        return None
    try:
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE:
            return 0  # the query would still count data that was never acknowledged
        answer = _ioctl(sock.fileno(), SIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):  # closed
        return 0
    return int.from_bytes(answer, sys.byteorder)
