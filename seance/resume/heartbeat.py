"""Decide when a carrier is dead.

Any inbound byte is a sign of life, so a busy link is never closed by its own heartbeat. After a period of
silence a ping is sent. While the peer owes something (an answer to that ping, or an acknowledgement of data),
further silence means that the carrier is dead. One check a second is enough:

* idle: up to 1 s until the last byte is noticed, 4 s of silence, a ping, 4 s: 9 s, within the promised 10 s;
* data in flight: up to 1 s until it is noticed, 4 s: 5 s, within the promised 6 s.

A late check means that the process was stopped, the laptop asleep or the event loop stalled. Then bytes may
wait in the socket, so the check sends a ping and allows two seconds for the answer. A loop that stalls all
the time also reads between the checks, so only the first late checks of a silence do this. ``probe`` can
bring the deadline forward and never postpones it.
"""

from __future__ import annotations

import enum
import math

__all__ = ["CHECK_SECONDS", "Heartbeat", "HeartbeatAction"]

CHECK_SECONDS = 1.0
"""Interval between two checks."""

LATE_SECONDS = 1.5
"""A check is late if the one before is at least this old. A larger value would let a stall use up the time
for an answer, because a reactor runs timers before it reads."""

MAX_LATE_CHECKS = 5
"""Late checks in one silence that are answered with another ping."""

QUIET_SECONDS = 3.9
ANSWER_SECONDS = 3.9
PROBE_SECONDS = 2.0


class HeartbeatAction(enum.Enum):
    """What to do after a check."""

    NONE = "none"
    PING = "ping"
    DEAD = "dead"


class Heartbeat:
    """The heartbeat of one carrier. Call ``check`` once a second.

    Args:
        now: Seconds, monotonic.
    """

    __slots__ = ("_checked_at", "_dead_at", "_late_checks", "_received_at")

    def __init__(self, now: float) -> None:
        self._received_at = self._checked_at = now
        self._dead_at = math.inf
        self._late_checks = 0

    def check(self, now: float, *, has_heard: bool, is_owed: bool) -> HeartbeatAction:
        """Decide what to do now.

        Args:
            now: Seconds, monotonic.
            has_heard: Whether any byte has arrived since the last check.
            is_owed: Whether the peer has data to acknowledge.

        Returns:
            PING: send a ping now. DEAD: close the carrier. NONE: nothing to do.
        """
        is_late = now - self._checked_at >= LATE_SECONDS
        self._checked_at = now
        if has_heard:
            self._received_at = now
            self._dead_at = math.inf
            self._late_checks = 0
        if is_late and self._late_checks < MAX_LATE_CHECKS:
            self._late_checks += 1
            self._dead_at = now + PROBE_SECONDS
            return HeartbeatAction.PING
        if self._dead_at < math.inf:
            return HeartbeatAction.DEAD if now >= self._dead_at else HeartbeatAction.NONE
        if is_owed:
            self._dead_at = now + ANSWER_SECONDS
        elif now - self._received_at >= QUIET_SECONDS:
            self._dead_at = now + ANSWER_SECONDS
            return HeartbeatAction.PING
        return HeartbeatAction.NONE

    def probe(self, now: float) -> None:
        """Record that a ping was sent. Its answer is due in two seconds."""
        self._dead_at = min(self._dead_at, now + PROBE_SECONDS)
