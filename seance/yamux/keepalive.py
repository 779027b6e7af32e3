"""When to ask the peer for a sign of life, and when to give it up. Knows numbers, not frames.

Called by :mod:`seance.yamux.session`. It has no clock: ``now`` comes in (seconds, monotonic) and the next
deadline goes out.

Any inbound byte counts as life, not only the answer to a ping. Elsewhere healthy sessions died because
the pong stood behind four megabytes of bulk data (hashicorp/yamux issue 38, frp 774, kcptun 103); here a
session with inbound bytes cannot die.

The answers also measure the path, for windows that grow with it. Whoever wants to know the round trip
says so in ``wants_round_trip``, which is looked at when bytes arrive: only then ``now`` is certain to be
the present, and a link without bulk is never asked. A ping that passes through a full queue comes back late,
so of the last few round trips the least counts (rust-libp2p 5387: windows grew because queues did).

The peer is only ever given up *after* a ping, however late the clock: a laptop that wakes up finds its last
byte hours old, and pings before it judges.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from seance.yamux.constants import WINDOW_CEILING_BYTES

__all__ = ["Keepalive", "Verdict"]

_MEASURE_SECONDS: Final = 5.0
"""How old the latest ping has to be before another one measures; 12 bytes in so many seconds cost nothing."""

_ROUND_TRIPS: Final = 8
"""How many round trips the least is taken of: half a minute of bulk, so that a path that has become longer
is noticed."""


class Verdict(enum.Enum):
    """What is due at a deadline."""

    NOTHING = "nothing"
    PING = "ping"
    DEAD = "dead"


class Keepalive:
    """The ping schedule of one session; at most one ping is in flight.

    Until the first ``heard`` or ``verdict`` the schedule does not know the time; its deadline is then
    0.0, which is always due.
    """

    __slots__ = (
        "_is_in_doubt",
        "_ping_at",
        "_ping_value",
        "_round_trips",
        "_sent_value",
        "heard_at",
        "min_round_trip_seconds",
        "round_trip_seconds",
        "wants_round_trip",
    )

    def __init__(self) -> None:
        self.heard_at: float | None = None
        """When bytes arrived last."""
        self._ping_at = 0.0
        self._ping_value: int | None = None
        """The value of the ping in flight."""
        self._sent_value = 0
        """The value of the latest ping."""
        self._is_in_doubt = False
        """Whether a ping was sent and no byte has come since."""
        self.round_trip_seconds: float | None = None
        """How long the latest answered ping took, from being queued."""
        self.min_round_trip_seconds: float | None = None
        """The least of the last eight."""
        self.wants_round_trip = False
        """Whether somebody would like to know it."""
        self._round_trips: deque[float] = deque(maxlen=_ROUND_TRIPS)

    @property
    def is_ping_in_flight(self) -> bool:
        """Whether a ping waits for its answer."""
        return self._ping_value is not None

    def heard(self, now: float) -> None:
        """Note that bytes arrived, whatever they were."""
        self.heard_at = now
        self._is_in_doubt = False

    def is_measuring_due(self, now: float) -> bool:
        """Whether to ``ping`` now for the round trip that somebody wanted; forgets that it was wanted."""
        self.wants_round_trip = False
        is_known = self.round_trip_seconds is not None
        return self._ping_value is None and (not is_known or now - self._ping_at >= _MEASURE_SECONDS)

    def ping(self, now: float) -> int:
        """Begin a ping; one that is still in flight is given up.

        Returns:
            The value that the ping has to carry.
        """
        self._sent_value = (self._sent_value + 1) & WINDOW_CEILING_BYTES
        self._ping_value = self._sent_value
        self._ping_at = now
        self._is_in_doubt = True
        return self._sent_value

    def answered(self, value: int, now: float) -> float | None:
        """Match an answer with the ping in flight.

        Returns:
            The round trip in seconds, or None for an answer to something else, which means nothing:
            rust-yamux and js-libp2p end the session over one, hashicorp ignores it, as we do.
        """
        if value != self._ping_value:
            return None
        self._ping_value = None
        self.round_trip_seconds = max(0.0, now - self._ping_at)
        self._round_trips.append(self.round_trip_seconds)
        self.min_round_trip_seconds = min(self._round_trips)
        return self.round_trip_seconds

    def deadline(self, ping_after_seconds: float | None, dead_after_seconds: float) -> float | None:
        """Return when ``verdict`` has to be asked next."""
        if self._is_in_doubt:
            return self._ping_at + dead_after_seconds
        if ping_after_seconds is None:
            return None
        return 0.0 if self.heard_at is None else self.heard_at + ping_after_seconds

    def verdict(self, now: float, ping_after_seconds: float | None, dead_after_seconds: float) -> Verdict:
        """Decide what is due now. For PING call ``ping`` next, for DEAD end the session."""
        if self.heard_at is None:
            self.heard_at = now
        due = self.deadline(ping_after_seconds, dead_after_seconds)
        if due is None or now < due:
            return Verdict.NOTHING
        return Verdict.DEAD if self._is_in_doubt else Verdict.PING
