"""Decide when to ping the peer, and when the peer has timed out.

Called by :mod:`seance.yamux.session`. It has no clock: ``now`` (seconds, monotonic) is passed in, and the
next deadline is returned.

Any inbound byte counts as a sign of life, not only the answer to a ping. In other implementations healthy
sessions died because the answer was queued behind four megabytes of bulk data (hashicorp/yamux issue 38, frp
774, kcptun 103). Here a session that receives bytes cannot time out.

The answers also measure the round trip, for windows that grow with the path. A caller that needs the round
trip sets ``wants_round_trip``. It is evaluated when bytes arrive, because only then ``now`` is certain to be
the present; so a link without bulk data is not measured. A ping that passes through a full queue takes too
long, so the minimum of the last few round trips counts (rust-libp2p 5387: windows grew because queues did).

The peer times out only after a ping, however late the clock is: a laptop that wakes up received its last byte
hours ago, and sends a ping before it decides.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from seance.yamux.bulk_limit import BULK_PING_VALUE

__all__ = ["Keepalive", "Verdict"]

_MEASURE_SECONDS: Final = 5.0
"""Minimum age of the latest ping before another one measures. The cost is 12 bytes every 5 s."""

_ROUND_TRIPS: Final = 8
"""How many round trips the minimum covers: half a minute of bulk data, so that a longer path is noticed."""


class Verdict(enum.Enum):
    """The action that is due."""

    NOTHING = "nothing"
    PING = "ping"
    DEAD = "dead"


class Keepalive:
    """The ping schedule of one session. At most one ping is in flight.

    Until the first ``bytes_received`` or ``verdict`` the schedule has no time; its deadline is 0.0, which is
    always due.
    """

    __slots__ = (
        "_awaits_reply",
        "_ping_at",
        "_ping_value",
        "_round_trips",
        "_sent_value",
        "min_round_trip_seconds",
        "received_at",
        "round_trip_seconds",
        "wants_round_trip",
    )

    def __init__(self) -> None:
        self.received_at: float | None = None
        """When bytes arrived last."""
        self._ping_at = 0.0
        self._ping_value: int | None = None
        """The value of the ping in flight."""
        self._sent_value = 0
        """The value of the latest ping."""
        self._awaits_reply = False
        """Whether no byte has arrived since a ping was sent."""
        self.round_trip_seconds: float | None = None
        """Round trip of the latest answered ping, including its time in the send queue."""
        self.min_round_trip_seconds: float | None = None
        """The minimum of the last eight round trips."""
        self.wants_round_trip = False
        """Whether a caller needs the round trip."""
        self._round_trips: deque[float] = deque(maxlen=_ROUND_TRIPS)

    @property
    def is_ping_in_flight(self) -> bool:
        """Whether a ping waits for its answer."""
        return self._ping_value is not None

    def bytes_received(self, now: float) -> None:
        """Record that bytes arrived."""
        self.received_at = now
        self._awaits_reply = False

    def is_measuring_due(self, now: float) -> bool:
        """Return whether to ``ping`` now to measure the round trip, and reset ``wants_round_trip``."""
        self.wants_round_trip = False
        is_known = self.round_trip_seconds is not None
        return self._ping_value is None and (not is_known or now - self._ping_at >= _MEASURE_SECONDS)

    def ping(self, now: float) -> int:
        """Start a ping; it replaces one that is in flight.

        Returns:
            The value of the ping frame.
        """
        self._sent_value = (self._sent_value + 1) % BULK_PING_VALUE
        self._ping_value = self._sent_value
        self._ping_at = now
        self._awaits_reply = True
        return self._sent_value

    def pong_received(self, value: int, now: float) -> float | None:
        """Match an answer with the ping in flight.

        Returns:
            The round trip in seconds, or None if the value does not match. A wrong value is ignored, as in
            hashicorp/yamux (rust-yamux and js-libp2p end the session).
        """
        if value != self._ping_value:
            return None
        self._ping_value = None
        self.round_trip_seconds = max(0.0, now - self._ping_at)
        self._round_trips.append(self.round_trip_seconds)
        self.min_round_trip_seconds = min(self._round_trips)
        return self.round_trip_seconds

    def deadline(self, ping_after_seconds: float | None, dead_after_seconds: float) -> float | None:
        """Return when to call ``verdict`` next."""
        if self._awaits_reply:
            return self._ping_at + dead_after_seconds
        if ping_after_seconds is None:
            return None
        return 0.0 if self.received_at is None else self.received_at + ping_after_seconds

    def verdict(self, now: float, ping_after_seconds: float | None, dead_after_seconds: float) -> Verdict:
        """Decide what is due now. PING: call ``ping`` next. DEAD: end the session."""
        if self.received_at is None:
            self.received_at = now
        due = self.deadline(ping_after_seconds, dead_after_seconds)
        if due is None or now < due:
            return Verdict.NOTHING
        return Verdict.DEAD if self._awaits_reply else Verdict.PING
