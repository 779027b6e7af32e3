"""How much of a carrier's data the kernel may keep that has not left yet.

What the kernel holds, nothing can overtake: a keystroke waits behind it. But it has to hold as much as leaves
until this process has its next turn, or the path runs dry. So the mark follows the path, as the size of
messages does, by the same measure (``seance.yamux.MessageSizer``): how long the carrier stays full.

``TCP_NOTSENT_LOWAT`` alone keeps no promise: the system looks at it only where a new buffer begins, and
goes on filling the last one, up to 64 KiB (Linux 6.18: 28 KiB unsent with a mark of 8). So whoever writes
to a carrier asks afterwards (``SIOCOUTQNSD``), about every quarter of the mark; the option then only says
when to go on: when less than half of it is left. Systems that cannot be asked hold what they hold.

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
"""Of ``linux/sockios.h``: how many bytes of a TCP socket were never sent."""

_ioctl: Any = None
if sys.platform == "linux":
    with contextlib.suppress(ImportError):  # a Python that was built without it
        _ioctl = importlib.import_module("fcntl").ioctl


class SendQueueMonitor:
    """Says of one socket when the kernel has enough. ``wrote`` after each write; ``filled``, ``drained``.

    Args:
        sock: A TCP socket; its low-water mark is set, now and whenever the path turns out faster or slower.

    Attributes:
        most_bytes: What may be unsent when more is written; a message more is unsent at most.
    """

    __slots__ = ("_pace", "_socket", "_unasked_bytes", "most_bytes")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._pace = MessageSizer()
        self._unasked_bytes = 0
        self.most_bytes = 0
        self._follow_pace()

    def wrote(self, count: int) -> bool:
        """Whether the kernel has enough, now that it was given ``count`` bytes more."""
        self._pace.sent(count)
        self._unasked_bytes += count
        if self._unasked_bytes * 4 < self.most_bytes or _ioctl is None:
            return False
        self._unasked_bytes = 0
        self._follow_pace()
        try:
            answer = _ioctl(self._socket.fileno(), SIOCOUTQNSD, b"\0\0\0\0")
        except (OSError, ValueError):  # no TCP socket of this system's own, or gone
            return False
        return int.from_bytes(answer, sys.byteorder) >= self.most_bytes

    def filled(self, now: float) -> None:
        """Take note that nothing more is written."""
        self._pace.filled(now)

    def drained(self, now: float) -> None:
        """Take note that the kernel asks for more."""
        self._pace.drained(now)
        self._follow_pace()

    def _follow_pace(self) -> None:
        if self.most_bytes == self._pace.message_bytes:
            return
        self.most_bytes = self._pace.message_bytes
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            with contextlib.suppress(OSError):
                # The kernel asks for more when less than half of it is unsent.
                self._socket.setsockopt(socket.IPPROTO_TCP, option, 2 * self.most_bytes)
