"""When a carrier has to be taken for dead.

Any inbound byte is a sign of life, so a busy link is never killed by its own heartbeat. Silence
alone means nothing for a while; then we ask. From the moment that something is owed to us (an answer
to that question, or an acknowledgement of data) silence means death. One look a second is enough:

* idle: 1 s until the last byte is noted, 4 s of silence, a question, 4 s: 9 s, within the 10 that we promise;
* data in flight: 1 s until it is noted that some is, 4 s: 5 s, within the 6.

A look that comes late was not looking: the process was stopped, the laptop asleep, the loop stalled. Then
what lies in the socket has to be read before anybody is judged: it asks, and waits for two seconds. Not
for ever, though: a loop that stalls all the time reads between its looks, too, so after some of them silence
means what it says. Questions that others ask bring the end nearer and never put it off.
"""

from __future__ import annotations

import enum
import math

__all__ = ["CHECK_SECONDS", "Heartbeat", "HeartbeatAction"]

CHECK_SECONDS = 1.0
"""From one look to the next."""

LATE_SECONDS = 1.5
"""A look that comes so long after the one before is late. With more, a stall could eat up the time for an
answer: a reactor runs its timers first and reads afterwards."""

LATE_LOOKS = 5
"""So many in one silence judge nobody."""

QUIET_SECONDS = 3.9
PATIENCE_SECONDS = 3.9
PROBE_SECONDS = 2.0


class HeartbeatAction(enum.Enum):
    """What a look says."""

    NONE = "none"
    PING = "ping"
    DEAD = "dead"


class Heartbeat:
    """One carrier's. Call ``look`` once a second.

    Args:
        now: Seconds, monotonic.
    """

    __slots__ = ("_dead_at", "_heard_at", "_late_looks", "_looked_at")

    def __init__(self, now: float) -> None:
        self._heard_at = self._looked_at = now
        self._dead_at = math.inf
        self._late_looks = 0

    def check(self, now: float, *, has_heard: bool, is_owed: bool) -> HeartbeatAction:
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
            self._dead_at = math.inf
            self._late_looks = 0
        if is_late and self._late_looks < LATE_LOOKS:
            self._late_looks += 1
            self._dead_at = now + PROBE_SECONDS
            return HeartbeatAction.PING
        if self._dead_at < math.inf:
            return HeartbeatAction.DEAD if now >= self._dead_at else HeartbeatAction.NONE
        if is_owed:
            self._dead_at = now + PATIENCE_SECONDS
        elif now - self._heard_at >= QUIET_SECONDS:
            self._dead_at = now + PATIENCE_SECONDS
            return HeartbeatAction.PING
        return HeartbeatAction.NONE

    def probe(self, now: float) -> None:
        """Take note that a ping was sent whose answer is awaited for two seconds only."""
        self._dead_at = min(self._dead_at, now + PROBE_SECONDS)
