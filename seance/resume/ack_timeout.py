"""Detect a peer that does not acknowledge the data sent to it.

Such a peer may answer pings and send data. But its data stays unacknowledged and has to be kept; when the
limit of kept bytes is reached, sending stops. The room would look online and would not serve any client. The
cause is an error in the peer, not a lost carrier, so a new carrier would not help.

A full carrier gets a longer timeout, because the data in its socket can take minutes to arrive. Any progress
resets the timeout: a Seance peer acknowledges four times a second (``Incoming``).
"""

from __future__ import annotations

__all__ = ["AckTimeout"]

TIMEOUT_SECONDS = 15.0
"""Timeout while the carrier accepts data."""

FULL_TIMEOUT_SECONDS = 60.0
"""Timeout while the carrier is full. Yjs clients give up after 30 s without a message."""


class AckTimeout:
    """The acknowledgement timeout of one carrier. Call ``has_expired`` at regular intervals.

    Args:
        now: Seconds, monotonic.
    """

    __slots__ = ("_base", "_since_seconds")

    def __init__(self, now: float) -> None:
        self._base = -1
        self._since_seconds = now

    def has_expired(self, now: float, *, base: int, kept_bytes: int, is_full: bool) -> bool:
        """Return whether the peer has failed to acknowledge data in time.

        Args:
            now: Seconds, monotonic.
            base: Bytes that the peer has acknowledged.
            kept_bytes: Bytes that the peer has not acknowledged.
            is_full: Whether the carrier accepts no more data at present.
        """
        if not kept_bytes or base != self._base:
            self._base, self._since_seconds = base, now
            return False
        return now - self._since_seconds >= (FULL_TIMEOUT_SECONDS if is_full else TIMEOUT_SECONDS)
