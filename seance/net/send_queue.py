"""Limit the unsent data of a carrier in the kernel's send queue.

No stream can overtake data in the kernel, so a keystroke waits behind it. But the kernel must hold as much as
it sends until this process runs again, or the path is idle. The limit therefore follows the speed of the
path, with the same measurement as the message size (``seance.yamux.MessageSizer``): how long the carrier
stays full.

``TCP_NOTSENT_LOWAT`` does not enforce the limit. Linux checks it only when it starts a new buffer, and fills
the last one up to 64 KiB (Linux 6.18: 28 KiB unsent with a limit of 8 KiB). So the amount is queried
(``SIOCOUTQNSD``) after each quarter of the limit. The option only determines when the socket is writable
again: when less than half of its value is unsent. Systems without this query have no limit.

Used by :mod:`seance.net.immediate_write`.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
from typing import Any, Final

from seance.yamux import MessageSizer

__all__ = ["SendQueueMonitor"]

SIOCOUTQNSD: Final = 0x894B
"""From ``linux/sockios.h``: number of bytes of a TCP socket that were never sent."""

_ioctl: Any = None
if sys.platform == "linux":
    with contextlib.suppress(ImportError):  # a Python built without it
        _ioctl = importlib.import_module("fcntl").ioctl


class SendQueueMonitor:
    """Determines when the kernel has enough unsent data of one socket.

    Call ``wrote`` after each write, ``filled`` when writing pauses, and ``drained`` when the socket is
    writable.

    Args:
        sock: A TCP socket; its low-water mark is set now and when the speed of the path changes.

    Attributes:
        max_bytes: Amount of unsent data up to which more is written; the excess is at most one message.
    """

    __slots__ = ("_sizer", "_socket", "_unchecked_bytes", "max_bytes")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sizer = MessageSizer()
        self._unchecked_bytes = 0
        self.max_bytes = 0
        self._update_limit()

    def wrote(self, count: int) -> bool:
        """Record that ``count`` bytes were written; return whether the kernel has enough now."""
        self._sizer.sent(count)
        self._unchecked_bytes += count
        if self._unchecked_bytes * 4 < self.max_bytes or _ioctl is None:
            return False
        self._unchecked_bytes = 0
        self._update_limit()
        try:
            answer = _ioctl(self._socket.fileno(), SIOCOUTQNSD, b"\0\0\0\0")
        except (OSError, ValueError):  # not a TCP socket, or closed
            return False
        return int.from_bytes(answer, sys.byteorder) >= self.max_bytes

    def filled(self, now: float) -> None:
        """Record that writing pauses."""
        self._sizer.filled(now)

    def drained(self, now: float) -> None:
        """Record that the socket is writable again."""
        self._sizer.drained(now)
        self._update_limit()

    def _update_limit(self) -> None:
        if self.max_bytes == self._sizer.message_bytes:
            return
        self.max_bytes = self._sizer.message_bytes
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            with contextlib.suppress(OSError):
                # Doubled, because the socket is writable when less than half of this is unsent.
                self._socket.setsockopt(socket.IPPROTO_TCP, option, 2 * self.max_bytes)
