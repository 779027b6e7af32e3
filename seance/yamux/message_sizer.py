"""How large may a message be, so that what comes next does not wait long behind it?

Asked by whoever takes messages out of a session and hands them to a carrier. Between the session, where
a keystroke can still pass a document, and the wire, where it cannot, lies one message: 64 KiB are half a
second at 1 Mbit/s. But every message costs as much as many kilobytes do, so on a fast path small ones would
only be dear. How fast the path is shows in how long the carrier stays full.

It needs a carrier that says "full" as soon as a part of a message has to wait in this process, and a
kernel that takes little more than what is on the way (``TCP_NOTSENT_LOWAT``).
"""

from __future__ import annotations

from typing import Final

from seance.yamux.constants import KIB

__all__ = ["MessageSizer"]

_LEAST_BYTES: Final = 1 * KIB
"""8 ms at 1 Mbit/s, and 120 messages a second."""

_FIRST_BYTES: Final = 4 * KIB
"""A fast path shows at once, a slow one after seconds: so it begins as if it were slow."""

_MOST_BYTES: Final = 64 * KIB

_LONG_SECONDS: Final = 0.025
"""A carrier that is full for longer makes the messages smaller: 50 ms is what a person notices, and what the
kernel holds comes on top."""

_RUN_MESSAGES: Final = 16
"""So many messages in a row of full size, and the carrier never full: 64 KiB at the beginning, more than a
kernel takes before the path has shown what it is."""


class MessageSizer:
    """The size of the next message: halved after a long wait, doubled after a short one, or after none.

    Attributes:
        message_bytes: The limit for ``Session.next_message``, 1 to 64 KiB.
    """

    __slots__ = ("_full_since", "_run_bytes", "message_bytes")

    def __init__(self) -> None:
        self.message_bytes = _FIRST_BYTES
        self._full_since: float | None = None
        self._run_bytes = 0

    def sent(self, count: int) -> None:
        """Take note that a message left; only those that were about as large as they may be tell anything."""
        if self.message_bytes < _MOST_BYTES and count * 2 >= self.message_bytes:
            self._run_bytes += count
            if self._run_bytes >= self.message_bytes * _RUN_MESSAGES:
                self._double()

    def filled(self, now: float) -> None:
        """Take note that the carrier is full, since now if it was not."""
        self._run_bytes = 0
        if self._full_since is None:
            self._full_since = now

    def drained(self, now: float) -> None:
        """Take note that the carrier takes more."""
        if self._full_since is None:
            return
        full_seconds = now - self._full_since
        self._full_since = None
        if full_seconds > _LONG_SECONDS:
            self.message_bytes = max(_LEAST_BYTES, self.message_bytes // 2)
        elif full_seconds < _LONG_SECONDS / 2:
            self._double()

    def _double(self) -> None:
        self._run_bytes = 0
        self.message_bytes = min(_MOST_BYTES, self.message_bytes * 2)
