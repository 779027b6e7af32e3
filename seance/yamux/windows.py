"""Credit arithmetic: how much may be sent on a stream, in each direction. Nothing else.

Called by :mod:`seance.yamux.session`, which decides what a refusal means. Windows never raise on
what a peer does: they answer whether it fits. What must always hold is written in ``check()``, which the
tests call after every step of theirs.

Credit goes back only for bytes that the application *took*. Giving it back on arrival is what
rust-yamux once called ``OnReceive`` and removed: the sender then never learns that nobody reads.

A stream moves at most a window per round trip, so a window grows with the path: it doubles when the
application takes a window's worth within two round trips, that is, when at least half of it was on the
way. So it ends between two and four times what is on the way. An application that reads slowly keeps what
it began with: a window's worth takes it long, and while it does not read it holds more than half. It shrinks
when less than a sixteenth is on the way: what was taken is then not given back. Yamux has no word to
take back what was granted, so one that is quiet keeps its size, but not what it has claimed
(:mod:`seance.yamux.budget`).
"""

from __future__ import annotations

from typing import Final

from seance.errors import LocalProtocolError
from seance.yamux.budget import WindowBudget
from seance.yamux.constants import INITIAL_WINDOW_BYTES, MIB, WINDOW_CEILING_BYTES

__all__ = ["ReceiveWindow", "SendWindow"]

_LATEST_GRANT_BYTES: Final = 1 * MIB
"""Credit waits for no more than this, however large the window: 16 MiB would otherwise come in two lumps."""

_GROW_ROUND_TRIPS: Final = 2
"""A window doubles when a window's worth takes less than so many round trips."""

_SHRINK_ROUND_TRIPS: Final = 16
"""A window shrinks while a window's worth would take longer than so many round trips."""


_QUIET_SECONDS: Final = 30.0
"""A window that has not taken its size in so long does not need it now."""

UNCHARGED_BYTES: Final = INITIAL_WINDOW_BYTES
"""What a window whose claim was given up may hold beyond what it began with and what it claims again. A
prompt reader holds what one read of a carrier brings, which is as much."""


class SendWindow:
    """How many bytes the peer still lets us send on one stream."""

    __slots__ = ("available_bytes",)

    def __init__(self) -> None:
        self.available_bytes = INITIAL_WINDOW_BYTES
        """What may be sent now; ``Stream.write`` takes off what it writes."""

    def grow(self, delta_bytes: int) -> bool:
        """Add what the peer granted.

        Returns:
            Whether the sum can be a window at all; if not, the window is unchanged. hashicorp lets the
            number wrap, and a stream whose window wraps to zero is mute for ever.
        """
        if self.available_bytes + delta_bytes > WINDOW_CEILING_BYTES:
            return False
        self.available_bytes += delta_bytes
        return True

    def check(self) -> None:
        """Assert what always holds."""
        assert 0 <= self.available_bytes <= WINDOW_CEILING_BYTES, "a send window fits its field"

    def __repr__(self) -> str:
        return f"<SendWindow {self.available_bytes} available>"


class ReceiveWindow:
    """How many bytes the peer may still send us on one stream, and how many it gets back.

    Every byte of the window is in one of three places, so they always add up to ``size_bytes``:
    with the peer (``remaining_bytes``), with our application (``held_bytes``), or on its way back
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
        """What it begins with, which needs no claim."""
        self.size_bytes = INITIAL_WINDOW_BYTES
        """What the peer may have sent ahead of the application at most."""
        self.remaining_bytes = INITIAL_WINDOW_BYTES
        """What it may send now. A frame that announces more breaks the protocol."""
        self.held_bytes = 0
        """What was handed to the application and not yet taken by it."""
        self.taken_bytes = 0
        """What was taken and not yet given back."""
        self.charged_bytes = 0
        """How much of the size it has grown, out of the budget of the process ..."""
        self.uncharged_bytes = 0
        """... and how much of it on trust: it had claimed it and does not need it at present."""
        self._measured_at: float | None = None
        """When the pace of the application was last looked at ..."""
        self._measured_bytes = 0
        """... and what was given back since."""

    def widen(self, size_bytes: int) -> int:
        """Raise the size that the window begins with to ``size_bytes``, which is never lower.

        Returns:
            The delta that the peer has to be told, 0 when nothing changed.
        """
        delta_bytes = max(0, size_bytes - self.size_bytes)
        self.start_bytes += delta_bytes
        self.size_bytes += delta_bytes
        self.remaining_bytes += delta_bytes
        return delta_bytes

    def receive(self, count: int) -> None:
        """Account for ``count`` bytes that arrived; the caller has checked ``remaining_bytes``."""
        self.remaining_bytes -= count
        self.held_bytes += count
        assert self.remaining_bytes >= 0, "what does not fit is refused at its header"

    def take(self, count: int) -> bool:
        """Account for ``count`` bytes that the application has consumed.

        Returns:
            Whether a grant is now due: half of the window was taken, as in hashicorp and rust-yamux, or
            1 MiB. Sooner would be a frame per read, later would stall the sender. Next: ``tune``, ``grant``.

        Raises:
            LocalProtocolError: More was taken than was ever delivered ("taken_too_much").
        """
        if not 0 <= count <= self.held_bytes:
            msg = f"The application says it took {count} bytes, but holds {self.held_bytes}."
            raise LocalProtocolError(msg, code="taken_too_much")
        self.held_bytes -= count
        self.taken_bytes += count
        return self.taken_bytes * 2 >= self.size_bytes or self.taken_bytes >= _LATEST_GRANT_BYTES

    def tune(self, now: float, round_trip_seconds: float, max_bytes: int, budget: WindowBudget) -> None:
        """Grow or shrink when a grant is due: what there is to grant is then more, or less.

        Args:
            now: Seconds, monotonic; the first time only starts the measurement.
            round_trip_seconds: Of the path; with 0.0, unknown or too short to tell, nothing changes.
            max_bytes: What the window may grow to.
            budget: Of the process.
        """
        since = self._measured_at
        size, count = self.size_bytes, self._measured_bytes + self.taken_bytes
        if since is not None and now >= since:
            # At this pace a window's worth would take ``size / count * trips`` round trips.
            trips = (now - since) / round_trip_seconds if round_trip_seconds else _SHRINK_ROUND_TRIPS
            is_read = self.held_bytes * 2 < size
            if is_read and count * 2 >= size and size * trips < count * _GROW_ROUND_TRIPS:
                if self._double(max_bytes, budget, now):
                    now += round_trip_seconds  # So long it takes to show.
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
        """Whether it has needed little for half a minute, and holds no more than it began with."""
        since = self._measured_at
        return since is not None and now - since >= _QUIET_SECONDS and self.held_bytes <= self.start_bytes

    def release_idle(self) -> int:
        """Give up what was claimed, and keep the size; for ``WindowBudget``.

        Returns:
            What was claimed.
        """
        charged_bytes, self.charged_bytes = self.charged_bytes, 0
        self.uncharged_bytes += charged_bytes
        return charged_bytes

    def recharge(self, budget: WindowBudget, now: float) -> bool:
        """Whether the budget bears what is held; of what is on trust, claims again as much as that takes."""
        more_bytes = self.held_bytes - self.start_bytes - self.charged_bytes - UNCHARGED_BYTES
        if more_bytes <= 0 or not self.uncharged_bytes:
            return True
        more_bytes = min(more_bytes, self.uncharged_bytes)
        if not budget.recharge(self, more_bytes, now):
            return False
        self.charged_bytes += more_bytes
        self.uncharged_bytes -= more_bytes
        return True

    def settle(self, budget: WindowBudget) -> None:
        """Claim only what is still held: nothing more comes. Again whenever some of it was taken."""
        self._give_back_but(max(0, self.held_bytes - self.start_bytes), budget)

    def give_back(self, budget: WindowBudget) -> None:
        """Claim nothing any more: what is held is dropped."""
        self._give_back_but(0, budget)

    def _give_back_but(self, kept_bytes: int, budget: WindowBudget) -> None:
        released_bytes = max(0, self.charged_bytes - kept_bytes)
        self.charged_bytes -= released_bytes
        self.uncharged_bytes = 0
        budget.release(self, released_bytes)

    def grant(self) -> int:
        """Give back everything that was taken.

        Returns:
            The delta of the window update that has to be sent.
        """
        delta_bytes = self.taken_bytes
        self.taken_bytes = 0
        self.remaining_bytes += delta_bytes
        self._measured_bytes += delta_bytes
        return delta_bytes

    def check(self) -> None:
        """Assert what always holds."""
        places = (self.remaining_bytes, self.held_bytes, self.taken_bytes)
        assert min(places) >= 0, "no place owes bytes"
        assert sum(places) == self.size_bytes, "credit is conserved"
        assert min(self.charged_bytes, self.uncharged_bytes) >= 0, "nothing is claimed twice"
        grown_bytes = self.size_bytes - self.start_bytes
        assert self.charged_bytes + self.uncharged_bytes <= grown_bytes, "excess is what has grown"

    def __repr__(self) -> str:
        return (
            f"<ReceiveWindow {self.remaining_bytes} of {self.size_bytes} remaining, "
            f"{self.held_bytes} held, {self.taken_bytes} taken>"
        )
