"""Choose the size of messages, so that interactive data does not wait long behind a message.

Used by the owner of a session, which takes messages from it and writes them to a carrier. Inside the session
a keystroke can overtake a document, on the wire it cannot. In between is one message: 64 KiB take half a
second at 1 Mbit/s. But the cost of a message is that of many kilobytes, so small messages would be wasteful
on a fast path. The time for which the carrier stays full shows the speed of the path.

It requires a carrier that reports "full" as soon as a part of a message has to wait in this process, and a
kernel that buffers little more than the data in flight (``TCP_NOTSENT_LOWAT``).
"""

from __future__ import annotations

from typing import Final

from seance.yamux.constants import KIB

__all__ = ["LARGE_MESSAGE_BYTES", "MESSAGE_BYTES", "MessageSizer"]

MESSAGE_BYTES: Final = 64 * KIB
"""Maximum length of a message; all proxies and other implementations accept it."""

LARGE_MESSAGE_BYTES: Final = 256 * KIB
"""Maximum length for a peer that resumes, on a path that accepts 1 MiB without a pause. It takes a tenth less
CPU for a large transfer."""

_MIN_BYTES: Final = 1 * KIB
"""8 ms at 1 Mbit/s, and 120 messages a second."""

_INITIAL_BYTES: Final = 4 * KIB
"""Small, because a fast path shows immediately and a slow one only after seconds."""

_LONG_SECONDS: Final = 0.025
"""A carrier that is full for longer halves the size. 50 ms are noticeable, and the kernel's buffer adds to
this time."""

_RUN_MESSAGES: Final = 16
"""Full-size messages in a row, without a full carrier, that double the size: 64 KiB at the start, more than a
kernel accepts before the speed of the path shows."""


class MessageSizer:
    """The size of the next message: halved after a long wait, doubled after a short one or after none.

    Above 64 KiB it is doubled only by a run of messages without a wait, and a wait that is not short returns
    it to 64 KiB. So a path that is slower than its sources gets no larger messages, and one that becomes
    slower gets no more of them when the first one takes long.

    Attributes:
        max_bytes: The highest value of ``message_bytes``.
        message_bytes: The limit for ``Session.next_message``, 1 KiB to ``max_bytes``.
    """

    __slots__ = ("_full_since", "_run_bytes", "max_bytes", "message_bytes")

    def __init__(self, max_bytes: int = MESSAGE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.message_bytes = _INITIAL_BYTES
        self._full_since: float | None = None
        self._run_bytes = 0

    def sent(self, count: int) -> None:
        """Record that a message was sent. Only messages of at least half the permitted size count."""
        if self.message_bytes < self.max_bytes and count * 2 >= self.message_bytes:
            self._run_bytes += count
            if self._run_bytes >= self.message_bytes * _RUN_MESSAGES:
                self._double()

    def filled(self, now: float) -> None:
        """Record that the carrier is full."""
        self._run_bytes = 0
        if self._full_since is None:
            self._full_since = now

    def drained(self, now: float) -> None:
        """Record that the carrier accepts data again."""
        if self._full_since is None:
            return
        full_seconds = now - self._full_since
        self._full_since = None
        is_short = full_seconds < _LONG_SECONDS / 2
        if self.message_bytes > MESSAGE_BYTES and not is_short:
            self.message_bytes = MESSAGE_BYTES
        elif full_seconds > _LONG_SECONDS:
            self.message_bytes = max(_MIN_BYTES, self.message_bytes // 2)
        elif is_short and self.message_bytes < MESSAGE_BYTES:
            self._double()

    def _double(self) -> None:
        self._run_bytes = 0
        self.message_bytes = min(self.max_bytes, self.message_bytes * 2)
