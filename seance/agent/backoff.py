"""The waits between an agent's attempts to connect."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

__all__ = ["SOON_SECONDS", "Backoff", "RedialWaits"]

SOON_SECONDS: Final = 15.0
"""Time after the loss of a link in which an agent dials as often as while its session is kept. A relay that
is restarted listens again within this time."""


class Backoff:
    """Exponential waits with full jitter.

    Each wait is uniformly random between zero and a bound that doubles, so that a thousand agents which lost
    the same relay do not reconnect in the same moment.

    Args:
        base_seconds: The first bound.
        cap_seconds: The largest bound.
        random: Returns floats from 0 to 1; ``random.random`` outside of tests.
    """

    def __init__(self, base_seconds: float, cap_seconds: float, random: Callable[[], float]) -> None:
        self._base_seconds = base_seconds
        self._cap_seconds = cap_seconds
        self._random = random
        self._bound_seconds = base_seconds

    def next_seconds(self) -> float:
        """Return the delay before the next attempt in seconds, and double the maximum for the next one."""
        bound = min(self._bound_seconds, self._cap_seconds)
        self._bound_seconds = min(self._bound_seconds * 2, self._cap_seconds)
        return bound * self._random()

    def slow_down(self) -> None:
        """Use the largest bound until the next ``reset``."""
        self._bound_seconds = self._cap_seconds

    def reset(self) -> None:
        """Start at the first bound again: the link was healthy."""
        self._bound_seconds = self._base_seconds


class RedialWaits:
    """The waits of one agent between its attempts to connect.

    They are short while the relay keeps the session, and in the first 15 s after a link was lost, so that an
    agent is attached within about a second after a restarted relay listens. Otherwise they grow up to the
    usual cap.

    Args:
        usual: Waits while no relay answers.
        quick: Waits while a session is kept, and shortly after a loss.
        healthy_seconds: After a link that lasted this long, ``usual`` starts again. Quick waits after a loss
            start at most once in this time, so that a link which flaps does not cause constant dialling.
    """

    def __init__(self, usual: Backoff, quick: Backoff, healthy_seconds: float) -> None:
        self.usual = usual
        self.quick = quick
        self._healthy_seconds = healthy_seconds
        self._quick_since = self._quick_until = -inf
        self._skips_next = False
        self._retry_after_seconds = 0.0

    def note_attached(self) -> None:
        """The link is up."""
        self.quick.reset()
        self._skips_next = False

    def note_lost(self, now: float, lived_seconds: float) -> None:
        """The link was lost at ``now`` after ``lived_seconds``."""
        if lived_seconds >= self._healthy_seconds:
            self.usual.reset()
        if now - self._quick_since >= self._healthy_seconds:
            self._quick_since, self._quick_until = now, now + SOON_SECONDS

    def note_rejected(self) -> None:
        """A running relay has rejected the agent, so there is no restart to wait for: stop quick waits."""
        self._quick_until = -inf

    def slow_down(self) -> None:
        """Use the longest waits from now on."""
        self.usual.slow_down()
        self._quick_until = -inf

    def skip_next(self) -> None:
        """Make the next wait zero, because an event suggests that the relay can be reached now."""
        self._skips_next = True

    def set_retry_after(self, seconds: float) -> None:
        """Set the minimum of the next wait, as the relay has asked for; 0 for none."""
        self._retry_after_seconds = seconds

    def next_seconds(self, now: float, *, is_kept: bool) -> float:
        """Return the next wait.

        Args:
            now: Seconds, monotonic.
            is_kept: Whether the relay keeps a session for its next carrier.
        """
        seconds = (self.quick if is_kept or now < self._quick_until else self.usual).next_seconds()
        if self._skips_next:
            self._skips_next, seconds = False, 0.0
        return max(seconds, self._retry_after_seconds)
