"""When a carrier has to be taken for dead.

Any inbound byte is a sign of life, so a busy link is never killed by its own heartbeat. Silence
alone means nothing for a while; then we ask. From the moment that something is owed to us (an answer
to that question, or an acknowledgement of data) silence means death. One look a second is enough:

* idle: 1 s until the last byte is noted, 4 s of silence, a question, 4 s: 9 s, within the 10 that we promise;
* data in flight: 1 s until it is noted that some is, 4 s: 5 s, within the 6.

A look that comes late was not looking: the process was stopped, the laptop asleep, the loop stalled. Then
what lies in the socket has to be read before anybody is judged: it asks, and waits for two seconds.
"""

from __future__ import annotations

import enum

__all__ = ["LOOK_SECONDS", "Beat", "Heartbeat"]

LOOK_SECONDS = 1.0
"""From one look to the next."""

LATE_SECONDS = 1.5
"""A look that comes so long after the one before is late. With more, a stall could eat up the time for an
answer: a reactor runs its timers first and reads afterwards."""

QUIET_SECONDS = 3.9
PATIENCE_SECONDS = 3.9
PROBE_SECONDS = 2.0


class Beat(enum.Enum):
    """What a look says."""

    FINE = "fine"
    ASK = "ask"
    DEAD = "dead"


class Heartbeat:
    """One carrier's. Call ``look`` once a second.

    Args:
        now: Seconds, monotonic.
    """

    __slots__ = ("_doubt_at", "_heard_at", "_looked_at", "_patience_seconds")

    def __init__(self, now: float) -> None:
        self._heard_at = self._looked_at = now
        self._doubt_at: float | None = None
        self._patience_seconds = PATIENCE_SECONDS

    def look(self, now: float, *, has_heard: bool, is_owed: bool) -> Beat:
        """Judge.

        Args:
            now: Seconds, monotonic.
            has_heard: Whether any byte has come since the last look.
            is_owed: Whether the peer has something to acknowledge.

        Returns:
            For ``ASK`` send a ping now; for ``DEAD`` cut the carrier.
        """
        is_late = now - self._looked_at >= LATE_SECONDS
        self._looked_at = now
        if has_heard:
            self._heard_at = now
            self._doubt_at = None
        if is_late:
            self.probe(now)
            return Beat.ASK
        if self._doubt_at is not None:
            return Beat.DEAD if now - self._doubt_at >= self._patience_seconds else Beat.FINE
        if is_owed:
            self._doubt(now, PATIENCE_SECONDS)
        elif now - self._heard_at >= QUIET_SECONDS:
            self._doubt(now, PATIENCE_SECONDS)
            return Beat.ASK
        return Beat.FINE

    def probe(self, now: float) -> None:
        """Take note that a ping was sent whose answer is awaited for two seconds only."""
        self._doubt(now, PROBE_SECONDS)

    def _doubt(self, now: float, patience_seconds: float) -> None:
        self._doubt_at = now
        self._patience_seconds = patience_seconds
