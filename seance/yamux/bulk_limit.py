"""Limit the bulk data in flight by the delay that it causes, so that no buffer on the path fills up.

Used by :mod:`seance.yamux.outbox`. Data that has left the session cannot be overtaken. A modem may buffer a
megabyte of it, which is eight seconds at 1 Mbit/s, and no socket option prevents this. So the session
measures the delay: the answer to a ping means that everything before the ping has arrived.

The number of bytes in flight when a ping was sent, divided by its round trip, is the rate of the path. The
window is that rate times the round trip of the empty path plus 60 ms, so at most 60 ms of our data wait in
the buffers of the path. This is the window of FAST TCP and the limit of BBR; the target, and that the
window gives way to other traffic, are LEDBAT's (RFC 6817). While less than half of the target waits, the
window grows as in TCP's slow start; at the first sign of a queue this ends, as in HyStart (RFC 9406).

The round trip of the empty path is the minimum of the last minute. A transfer keeps 60 ms in the queue, so
every fifteen seconds the queue is drained and the round trip measured again, as BBR does.

Interactive data is never held; it only counts as data in flight. A peer that answers no ping has no limit.
Reasons and figures: docs/decisions/0015-who-sends-next.md.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from seance.yamux.constants import KIB, MIB

__all__ = ["BULK_PINGS", "BULK_PING_VALUE", "BulkLimit"]

TARGET_SECONDS: Final = 0.06
"""How long our data may wait in the queues of the path. RFC 6817 permits 100 ms. With 50 ms a
transfer uses 2 % less of a line with 30 ms of jitter (simulated)."""

_GROWTH_SECONDS: Final = TARGET_SECONDS / 2
"""While a ping waited for less, the path is not full, and the window grows."""

_INITIAL_BYTES: Final = 16 * KIB
"""About TCP's initial window (RFC 6928), which limits the first round trip in any case."""

_MIN_BYTES: Final = 4 * KIB
"""Three packets: TCP needs that many to notice a loss without a timeout."""

_MAX_BYTES: Final = 64 * MIB
"""1.5 Gbit/s at a round trip of 350 ms."""

BULK_PINGS: Final = 16
"""Maximum number of pings in flight, half of what libp2p/go-yamux keeps to answer."""

_PINGS_PER_WINDOW: Final = 8

_PACKET_BYTES: Final = 1380
"""Bulk data that fits into one packet with the headers of TCP, TLS, WebSocket and yamux, and a ping. Messages
are whole packets, two at least: at 1 Mbit/s other sizes cost 2 to 5 % of the line."""

_LARGE_PARTS: Final = 4
"""Messages per window of a megabyte or more, on fast paths; other windows have one for each ping."""

_SAMPLES: Final = 4
"""The window is the largest of as many results, half a round trip, so that one late ping has no effect."""

_BASE_SECONDS: Final = 15.0
_BASE_PERIODS: Final = 4
"""The round trip of the empty path is a minimum over as many periods of that length."""

_DRAIN_SHARE: Final = 0.75
"""Share of the data in flight on an empty path that stays in flight while the queue drains, so that the path
is hardly less used meanwhile."""

_SILENCE_SECONDS: Final = 1.5
"""Time without an answer after which a minimum window is sent in any case. Answers may be late, on a path
that others have filled, or missing: go-yamux drops pings under load."""

_SILENT_LIMIT: Final = 20
"""After as many of these times without an answer, 30 s, nothing is held: the peer answers no more."""

BULK_PING_VALUE: Final = 0x8000_0000
"""Marks the values of these pings; those of the keepalive are smaller."""


class _Ping(NamedTuple):
    value: int
    sent_at: float
    mark: int  # bytes sent before this ping
    flight: int  # of these, the bytes that were not known to have arrived


class BulkLimit:
    """The window of one session for its bulk data.

    For each message of a backlog, and for any message once ``sent_bytes`` has reached ``ping_at_bytes``, call
    ``room``, and ``ping`` if ``is_ping_due``. Add all messages to ``sent_bytes``.

    Attributes:
        window_bytes: Bytes in flight up to which bulk data is sent.
        message_bytes: Bytes of bulk data that one message may have.
        sent_bytes: Bytes of all messages; the caller counts them.
        ping_at_bytes: The value of ``sent_bytes`` from which a ping is due in any message. The first message
            on a carrier has one, which shows the round trip of the empty path.
    """

    __slots__ = (
        "_acked",
        "_answered_at",
        "_base_at",
        "_bases",
        "_drain_bytes",
        "_has_answered",
        "_held_at",
        "_is_off",
        "_pinged",
        "_pings",
        "_samples",
        "_silent_count",
        "_value",
        "message_bytes",
        "ping_at_bytes",
        "sent_bytes",
        "window_bytes",
    )

    def __init__(self) -> None:
        self.sent_bytes = 0
        self._value = 0
        self.restart()

    def restart(self) -> None:
        """Forget the path: the next message is sent over another carrier."""
        self._resize(_INITIAL_BYTES)
        self._acked = self.sent_bytes
        self._pings: deque[_Ping] = deque()
        self._pinged = self.sent_bytes
        self.ping_at_bytes = self.sent_bytes
        self._held_at = -1
        """Bytes sent when bulk data was held for the last time."""
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._bases: deque[float] = deque(maxlen=_BASE_PERIODS)
        self._base_at = 0.0
        self._answered_at = 0.0
        self._has_answered = self._is_off = False
        self._silent_count = 0
        self._drain_bytes = 0

    def room(self) -> int:
        """Return how many bytes of bulk data the next message may have; 0 holds them."""
        if self._is_off:
            return _MAX_BYTES
        if not self._pings:
            self._acked = self.sent_bytes  # whatever was sent without pings was not enough to matter
        room = (self._drain_bytes or self.window_bytes) - (self.sent_bytes - self._acked)
        if room <= 0:
            self._held_at = self.sent_bytes
            return 0
        return min(room, self.message_bytes)

    def is_ping_due(self, has_backlog: bool) -> bool:
        """Return whether to send a ping before the data of the next message.

        Args:
            has_backlog: Whether bulk data was left by the previous message. If not, there are few pings, so
                that they cost little beside small messages.
        """
        due_bytes = self.ping_at_bytes
        if has_backlog:
            part = (self._drain_bytes or self.window_bytes) // _PINGS_PER_WINDOW
            due_bytes = min(due_bytes, self._pinged + part)
        return self.sent_bytes >= due_bytes and len(self._pings) < BULK_PINGS

    def ping(self, now: float) -> int:
        """Start a ping; return the value of its frame."""
        self._value = (self._value + 1) % BULK_PING_VALUE
        sent_bytes = self._pinged = self.sent_bytes
        self.ping_at_bytes = sent_bytes + self.window_bytes // 2
        value = self._value | BULK_PING_VALUE
        self._pings.append(_Ping(value, now, sent_bytes, sent_bytes - self._acked))
        return value

    def pong_received(self, value: int, now: float) -> None:
        """Adjust the window after the answer to a ping. Unknown values are ignored."""
        pings = self._pings
        if not any(ping.value == value for ping in pings):
            return
        while (ping := pings.popleft()).value != value:
            pass
        acked = max(0, ping.mark - self._acked)
        self._acked = max(self._acked, ping.mark)
        self._answered_at = now
        self._has_answered, self._is_off = True, False
        self._silent_count = 0
        round_trip = max(now - ping.sent_at, 1e-6)
        base = self._update_base(round_trip, now)
        if self._drain_bytes:
            if ping.flight <= self._drain_bytes:
                self._drain_bytes = 0
            return
        was_held = self._held_at >= ping.mark
        if round_trip - base < _GROWTH_SECONDS:
            self._samples.clear()
            if was_held:
                self._resize(self.window_bytes + acked)
            return
        self._samples.append(ping.flight * (base + TARGET_SECONDS) / round_trip)
        goal = int(max(self._samples))
        if goal > self.window_bytes:
            if was_held:
                self._resize(min(goal, self.window_bytes + acked))
        elif ping.flight * 2 >= self.window_bytes:
            self._resize(goal)

    def deadline(self) -> float | None:
        """Return when to call ``handle_timeout``, or None while nothing is held."""
        if self._held_at < self.sent_bytes or not self._pings:
            return None
        return max(self._pings[0].sent_at, self._answered_at) + _SILENCE_SECONDS

    def handle_timeout(self, now: float) -> None:
        """Let a minimum window pass if the peer has not answered in time."""
        due = self.deadline()
        if due is None or now < due:
            return
        self._answered_at = now
        self._silent_count += 1
        self._is_off = not self._has_answered or self._silent_count >= _SILENT_LIMIT
        self._resize(_MIN_BYTES)
        self._acked = self.sent_bytes
        if len(self._pings) == BULK_PINGS:
            self._pings.popleft()

    def _update_base(self, round_trip: float, now: float) -> float:
        bases = self._bases
        if not bases or now - self._base_at >= _BASE_SECONDS:
            # A queue that is never empty would hide the round trip of the path.
            if bases and self._held_at > self._acked:
                base = min(bases)
                part = base / (base + TARGET_SECONDS)  # of the window, the part that is not in the queue
                self._drain_bytes = max(_MIN_BYTES, int(self.window_bytes * part * _DRAIN_SHARE))
            bases.append(round_trip)
            self._base_at = now
        else:
            bases[-1] = min(bases[-1], round_trip)
        return min(bases)

    def _resize(self, count: int) -> None:
        self.window_bytes = max(_MIN_BYTES, min(count, _MAX_BYTES))
        parts = _PINGS_PER_WINDOW if self.window_bytes < MIB else _LARGE_PARTS
        packets = self.window_bytes // parts // _PACKET_BYTES
        self.message_bytes = max(2, packets) * _PACKET_BYTES
