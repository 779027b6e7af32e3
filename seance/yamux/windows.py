"""Flow-control windows: how much may be sent on a stream, in each direction.

Called by :mod:`seance.yamux.session`, which decides what a refusal means. Windows never raise for an action
of the peer; they return whether it fits. ``check()`` states the invariants, and the tests call it after every
step.

Credit is returned only for bytes that the application has *consumed*. rust-yamux once returned it on arrival
(``OnReceive``) and removed that mode: the sender does not notice that the receiver has stopped reading.

A stream moves at most one window per round trip, so a window grows with the path. It doubles when the
application consumes a window's worth within two round trips, that is, when at least half of the window was in
flight. So its size ends between two and four times the data in flight. A slow application keeps the initial
window: it takes long to consume a window's worth, and while it does not read it holds more than half. A
window shrinks when less than a sixteenth is in flight: consumed bytes are then not returned as credit. Yamux
cannot take back what was granted, so an idle window keeps its size but not its charge
(:mod:`seance.yamux.budget`).
"""

from __future__ import annotations

from typing import Final

from seance.errors import LocalProtocolError
from seance.yamux.budget import WindowBudget
from seance.yamux.constants import INITIAL_WINDOW_BYTES, MIB, WINDOW_CEILING_BYTES

__all__ = ["ReceiveWindow", "SendWindow"]

_MAX_GRANT_BYTES: Final = 1 * MIB
"""Credit is sent when this much is due, however large the window: a window of 16 MiB would otherwise come in
two parts."""

_GROW_ROUND_TRIPS: Final = 2
"""A window grows when a window's worth takes fewer round trips."""

_SHRINK_ROUND_TRIPS: Final = 16
"""A window shrinks when a window's worth would take more round trips."""


_IDLE_SECONDS: Final = 30.0
"""A window that has not consumed its size for this long is idle."""

UNCHARGED_BYTES: Final = INITIAL_WINDOW_BYTES
"""Bytes that an uncharged window may hold beyond its initial size. A reader that keeps up holds the result of
one read of a carrier, which is as much."""


class SendWindow:
    """How many bytes the peer still lets us send on one stream."""

    __slots__ = ("available_bytes",)

    def __init__(self) -> None:
        self.available_bytes = INITIAL_WINDOW_BYTES
        """Bytes that may be sent now; ``Stream.write`` subtracts what it writes."""

    def grow(self, delta_bytes: int) -> bool:
        """Add what the peer granted.

        Returns:
            Whether the sum is valid; if not, the window is unchanged. In hashicorp/yamux the number wraps
            around, and a stream never sends again if its window wraps to zero.
        """
        if self.available_bytes + delta_bytes > WINDOW_CEILING_BYTES:
            return False
        self.available_bytes += delta_bytes
        return True

    def check(self) -> None:
        """Assert the invariants."""
        assert 0 <= self.available_bytes <= WINDOW_CEILING_BYTES, "a send window fits its field"

    def __repr__(self) -> str:
        return f"<SendWindow {self.available_bytes} available>"


class ReceiveWindow:
    """How many bytes the peer may send on one stream, and how many it gets back.

    Each byte of the window is in one of three states, so their sum is ``size_bytes``: granted to the peer
    (``remaining_bytes``), held by our application (``held_bytes``), or waiting to be returned
    (``taken_bytes``).
    """

    __slots__ = (
        "_measured_at",
        "_measured_bytes",
        "charged_bytes",
        "held_bytes",
        "remaining_bytes",
        "size_bytes",
        "start_bytes",
        "taken_bytes",
        "uncharged_bytes",
    )

    def __init__(self) -> None:
        self.start_bytes = INITIAL_WINDOW_BYTES
        """Initial window size; not charged to the budget."""
        self.size_bytes = INITIAL_WINDOW_BYTES
        """Bytes that the peer may send ahead of the application."""
        self.remaining_bytes = INITIAL_WINDOW_BYTES
        """Bytes that the peer may send now. A frame that announces more is a protocol error."""
        self.held_bytes = 0
        """Bytes that the application has received and not consumed."""
        self.taken_bytes = 0
        """Bytes that the application has consumed and that are not returned to the peer yet."""
        self.charged_bytes = 0
        """Growth that is charged to the budget of the process."""
        self.uncharged_bytes = 0
        """Growth that was charged and released because the window was idle."""
        self._measured_at: float | None = None
        """Start of the current measurement of the application's speed."""
        self._measured_bytes = 0
        """Bytes returned to the peer since then."""

    def widen(self, size_bytes: int) -> int:
        """Raise the initial size to ``size_bytes``, if it is lower.

        Returns:
            The delta to send to the peer; 0 if nothing changed.
        """
        delta_bytes = max(0, size_bytes - self.size_bytes)
        self.start_bytes += delta_bytes
        self.size_bytes += delta_bytes
        self.remaining_bytes += delta_bytes
        return delta_bytes

    def receive(self, count: int) -> None:
        """Record that ``count`` bytes arrived; the caller has checked ``remaining_bytes``."""
        self.remaining_bytes -= count
        self.held_bytes += count
        assert self.remaining_bytes >= 0, "a frame beyond the window is rejected at its header"

    def take(self, count: int) -> bool:
        """Record that the application has consumed ``count`` bytes.

        Returns:
            Whether credit is due: half of the window, as in hashicorp/yamux and rust-yamux, or 1 MiB. Earlier
            would be a frame per read, later would stall the sender. Next: ``tune``, ``grant``.

        Raises:
            LocalProtocolError: The count exceeds what was delivered ("taken_too_much").
        """
        if not 0 <= count <= self.held_bytes:
            msg = f"The application reports {count} bytes consumed but holds only {self.held_bytes}."
            raise LocalProtocolError(msg, code="taken_too_much")
        self.held_bytes -= count
        self.taken_bytes += count
        return self.taken_bytes * 2 >= self.size_bytes or self.taken_bytes >= _MAX_GRANT_BYTES

    def tune(self, now: float, round_trip_seconds: float, max_bytes: int, budget: WindowBudget) -> None:
        """Grow or shrink the window when credit is due, and with it the credit.

        Args:
            now: Seconds, monotonic; the first call only starts the measurement.
            round_trip_seconds: Round trip of the path. With 0.0, unknown or too short to measure, nothing
                changes.
            max_bytes: Maximum size.
            budget: The budget of the process.
        """
        since = self._measured_at
        size, count = self.size_bytes, self._measured_bytes + self.taken_bytes
        if since is not None and now >= since:
            # At this speed a window's worth would take ``size / count * trips`` round trips.
            trips = (now - since) / round_trip_seconds if round_trip_seconds else _SHRINK_ROUND_TRIPS
            is_read = self.held_bytes * 2 < size
            if is_read and count * 2 >= size and size * trips < count * _GROW_ROUND_TRIPS:
                if self._double(max_bytes, budget, now):
                    now += round_trip_seconds  # until the growth takes effect
            elif trips > _SHRINK_ROUND_TRIPS and size * trips > count * _SHRINK_ROUND_TRIPS:
                self._withhold(budget)
            elif count < size:
                return
        if since is None or now > since:
            self._measured_at = now
        self._measured_bytes = -self.taken_bytes

    def _double(self, max_bytes: int, budget: WindowBudget, now: float) -> bool:
        more_bytes = min(self.size_bytes, max_bytes - self.size_bytes)
        if more_bytes <= 0 or not budget.charge(self, self.uncharged_bytes + more_bytes, now):
            return False
        self.charged_bytes += self.uncharged_bytes + more_bytes
        self.uncharged_bytes = 0
        self.size_bytes += more_bytes
        self.taken_bytes += more_bytes
        return True

    def _withhold(self, budget: WindowBudget) -> None:
        count = min(self.taken_bytes, self.charged_bytes + self.uncharged_bytes)
        charged_bytes = max(0, count - self.uncharged_bytes)
        self.uncharged_bytes -= count - charged_bytes
        self.charged_bytes -= charged_bytes
        self.size_bytes -= count
        self.taken_bytes -= count
        budget.release(self, charged_bytes)

    def is_idle(self, now: float) -> bool:
        """Return whether it has needed little for half a minute, and holds no more than its initial size."""
        since = self._measured_at
        return since is not None and now - since >= _IDLE_SECONDS and self.held_bytes <= self.start_bytes

    def release_idle(self) -> int:
        """Make the charge uncharged and keep the size; for ``WindowBudget``.

        Returns:
            The bytes that were charged.
        """
        charged_bytes, self.charged_bytes = self.charged_bytes, 0
        self.uncharged_bytes += charged_bytes
        return charged_bytes

    def recharge(self, budget: WindowBudget, now: float) -> bool:
        """Charge again what an uncharged window holds in excess. Return False if the budget is used up."""
        more_bytes = self.held_bytes - self.start_bytes - self.charged_bytes - UNCHARGED_BYTES
        if more_bytes <= 0 or not self.uncharged_bytes:
            return True
        more_bytes = min(more_bytes, self.uncharged_bytes)
        if not budget.recharge(self, more_bytes, now):
            return False
        self.charged_bytes += more_bytes
        self.uncharged_bytes -= more_bytes
        return True

    def release_consumed(self, budget: WindowBudget) -> None:
        """After the peer's end of data, and after each ``take`` then: charge only the bytes still held."""
        self._release_down_to(max(0, self.held_bytes - self.start_bytes), budget)

    def release_all(self, budget: WindowBudget) -> None:
        """Return the whole charge: the data held is dropped."""
        self._release_down_to(0, budget)

    def _release_down_to(self, kept_bytes: int, budget: WindowBudget) -> None:
        released_bytes = max(0, self.charged_bytes - kept_bytes)
        self.charged_bytes -= released_bytes
        self.uncharged_bytes = 0
        budget.release(self, released_bytes)

    def grant(self) -> int:
        """Return all consumed bytes to the peer as credit.

        Returns:
            The delta of the window update to send.
        """
        delta_bytes = self.taken_bytes
        self.taken_bytes = 0
        self.remaining_bytes += delta_bytes
        self._measured_bytes += delta_bytes
        return delta_bytes

    def check(self) -> None:
        """Assert the invariants."""
        parts = (self.remaining_bytes, self.held_bytes, self.taken_bytes)
        assert min(parts) >= 0, "no count is negative"
        assert sum(parts) == self.size_bytes, "credit is conserved"
        assert min(self.charged_bytes, self.uncharged_bytes) >= 0, "no charge is negative"
        grown_bytes = self.size_bytes - self.start_bytes
        assert self.charged_bytes + self.uncharged_bytes <= grown_bytes, "only growth is charged"

    def __repr__(self) -> str:
        return (
            f"<ReceiveWindow {self.remaining_bytes} of {self.size_bytes} remaining, "
            f"{self.held_bytes} held, {self.taken_bytes} taken>"
        )
