"""How long to wait before dialling again."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


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
