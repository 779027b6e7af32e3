"""A reset that follows everything written: bytes read before a reset are delivered before it.

``abortConnection`` drops the buffer in user space and, on TCP, the kernel's send queue. Where a reset is only
passed on from another connection, that would drop bytes which arrived in order before it. So
a ``LingeringReset`` waits until the transport has handed everything to the kernel and the peer's kernel has
acknowledged it, ``LINGER_SECONDS`` at most, and then resets. A yamux stream does the same in its session, see
``StreamTransport.resetConnection``.

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
"""How long a peer that does not read may delay its reset."""

FIRST_LOOK_SECONDS: Final = 0.005
LAST_LOOK_SECONDS: Final = 0.1
"""Between two looks at the send queue: doubled from the first to the last."""

UNKNOWN_SECONDS: Final = 0.2
"""Time for the kernel to send where it cannot be asked: a round trip of most paths."""

SIOCOUTQ: Final = 0x5411
"""Of ``linux/sockios.h``: bytes in the send queue of a socket that the peer has not acknowledged."""

TCP_CLOSE: Final = 7
"""Of ``linux/tcp_states.h``: nothing can be sent any more, for example since the peer has reset."""

_ioctl: Any = None
if sys.platform == "linux":
    with suppress(ImportError):
        _ioctl = importlib.import_module("fcntl").ioctl


class LingeringReset:
    """Resets a leg once everything that was written has left. ``cancel`` it when the leg is gone.

    Args:
        reactor: Provides the time.
        leg: A leg without a producer. Its protocol drops the data that it still receives.
    """

    __slots__ = ("_call", "_deadline", "_delay", "_leg", "_reactor")

    def __init__(self, reactor: IReactorTime, leg: Leg) -> None:
        self._reactor = reactor
        self._leg = leg
        self._call: IDelayedCall | None = None
        self._delay = FIRST_LOOK_SECONDS
        reset = getattr(leg, "resetConnection", None)
        if reset is not None:
            reset()
            return
        self._deadline = reactor.seconds() + LINGER_SECONDS
        self._look()

    def cancel(self) -> None:
        """Wait no longer, and do nothing."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
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
        self._call = self._reactor.callLater(self._delay, self._look)
        self._delay = min(2 * self._delay, LAST_LOOK_SECONDS)

    def _reset(self) -> None:
        self._call = None
        self._leg.abortConnection()


def unacknowledged_bytes(leg: object) -> int | None:
    """Return how much the kernel holds of a leg that its peer has not acknowledged.

    Returns:
        0 for what is no TCP socket, because a reset takes nothing from it, and for a socket that the peer has
        reset. None where the system cannot be asked.
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
            return 0  # its queue still counts what was never acknowledged
        answer = _ioctl(sock.fileno(), SIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):  # gone
        return 0
    return int.from_bytes(answer, sys.byteorder)
