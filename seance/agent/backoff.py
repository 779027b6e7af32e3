"""How long to wait before dialling again."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

__all__ = ["SOON_SECONDS", "Backoff", "RedialWaits"]

SOON_SECONDS: Final = 15.0
"""Time after the loss of a link in which an agent dials as often as while its session is kept: a relay that
is being restarted is back by then."""


class Backoff:
    """Exponential waits with full jitter.

    Each wait is uniformly random between zero and a bound that doubles, so that a thousand
    agents that lost one relay together do not come back together (the herd of yjs.md, row 30).

    Args:
        base_seconds: The first bound.
        cap_seconds: The last bound.
        random: Gives floats from 0 to 1; ``random.random`` outside of tests.
    """

    def __init__(self, base_seconds: float, cap_seconds: float, random: Callable[[], float]) -> None:
        self._base_seconds = base_seconds
        self._cap_seconds = cap_seconds
        self._random = random
        self._bound_seconds = base_seconds

    def next_seconds(self) -> float:
        """Return the next wait, and double the bound of the one after."""
        bound = min(self._bound_seconds, self._cap_seconds)
        self._bound_seconds = min(self._bound_seconds * 2, self._cap_seconds)
        return bound * self._random()

    def slow_down(self) -> None:
        """Wait as long as ever from now on: there is nothing to hurry for."""
        self._bound_seconds = self._cap_seconds

    def reset(self) -> None:
        """Start over: the link was healthy."""
        self._bound_seconds = self._base_seconds


class RedialWaits:
    """The waits of one agent between its dials.

    They are short while a session is kept, and in the first 15 s after a link was lost, so that an agent is
    attached within about a second once a restarted relay listens. They grow up to the usual cap otherwise.

    Args:
        usual: Waits while no relay is in reach.
        quick: Waits while a session is kept, and soon after a loss.
        healthy_seconds: A link that lived for this time starts the usual waits over. Quick waits after a loss
            begin at most once in this time, so that a link which flaps does not dial without pause.
    """

    def __init__(self, usual: Backoff, quick: Backoff, healthy_seconds: float) -> None:
        self.usual = usual
        self.quick = quick
        self._healthy_seconds = healthy_seconds
        self._soon_since = self._soon_until = -inf

    def note_attached(self) -> None:
        """The link is up."""
        self.quick.reset()

    def note_lost(self, now: float, lived_seconds: float) -> None:
        """The link was lost at ``now`` after ``lived_seconds``."""
        if lived_seconds >= self._healthy_seconds:
            self.usual.reset()
        if now - self._soon_since >= self._healthy_seconds:
            self._soon_since, self._soon_until = now, now + SOON_SECONDS

    def note_rejected(self) -> None:
        """A relay that is there has rejected the agent: a relay to wait for is not the problem."""
        self._soon_until = -inf

    def slow_down(self) -> None:
        """Take the longest waits from now on."""
        self.usual.slow_down()
        self._soon_until = -inf

    def next_seconds(self, now: float, *, is_kept: bool) -> float:
        """Return the next wait.

        Args:
            now: Seconds, monotonic.
            is_kept: Whether a session waits for its next carrier.
        """
        return (self.quick if is_kept or now < self._soon_until else self.usual).next_seconds()
