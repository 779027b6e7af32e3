"""A token bucket: a rate with a burst. Pure: the time is an argument."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """A bucket that fills with ``rate`` tokens per second up to ``burst``. It starts full.

    Args:
        rate: Tokens per second.
        burst: Capacity in tokens.
        now: Seconds, monotonic.
    """

    __slots__ = ("_burst", "_rate", "_seconds", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._seconds = now

    def take(self, count: float, now: float) -> bool:
        """Take ``count`` tokens if the bucket has them; return whether it had."""
        self._refill(now)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def charge(self, count: float, now: float) -> float:
        """Take ``count`` tokens even if the bucket has fewer, which leaves a debt.

        Returns:
            Seconds until the debt is refilled; 0 if there is none.
        """
        self._refill(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._seconds) * self._rate)
        self._seconds = now
