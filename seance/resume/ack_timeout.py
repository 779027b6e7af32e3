"""When a peer must be taken for one that never acknowledges.

It lives: it answers pings, and perhaps it sends. But what it was sent stays unacknowledged, so nothing may be
forgotten, and once the bound is reached nothing is sent any more: a room that is "online" and serves nobody.
No loss of a carrier is behind that but a mistake in the peer, and another carrier would not mend it.

A path that takes no more bytes is a reason to wait for longer, because what lies in the socket can be
minutes away. Any progress is enough: our own peers tell of theirs four times a second (``Incoming``).
"""

from __future__ import annotations

__all__ = ["AckTimeout"]

PATIENCE_SECONDS = 15.0
"""For a peer that was given everything."""

FULL_TIMEOUT_SECONDS = 60.0
"""For one whose path is full. Clients give up after 30 s without a message (yjs.md, fact 2)."""


class AckTimeout:
    """One carrier's. Call ``has_expired`` now and then.

    Args:
        now: Seconds, monotonic.
    """

    __slots__ = ("_base", "_since_seconds")

    def __init__(self, now: float) -> None:
        self._base = -1
        self._since_seconds = now

    def has_expired(self, now: float, *, base: int, kept_bytes: int, is_full: bool) -> bool:
        """Judge.

        Args:
            now: Seconds, monotonic.
            base: Bytes that the peer has acknowledged.
            kept_bytes: Bytes that it has not.
            is_full: Whether the carrier takes no more for now.
        """
        if not kept_bytes or base != self._base:
            self._base, self._since_seconds = base, now
            return False
        return now - self._since_seconds >= (FULL_TIMEOUT_SECONDS if is_full else PATIENCE_SECONDS)
