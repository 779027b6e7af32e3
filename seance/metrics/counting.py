"""Numbers that are added up while events happen, and cost nothing until somebody asks.

Plain integers, no locks: everything happens in the reactor's thread. prometheus_client's own counters
lock, and remember when each was made in a series of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from seance.metrics.catalogue import BUCKETS_SECONDS

__all__ = ["MOST_WORDS", "OTHER", "Histogram", "Tally"]

MOST_WORDS = 256
"""Different words that one tally counts; a ``Verifier`` of somebody else's may refuse in words of its own."""

OTHER = "other"
"""What further words are counted as."""


class Tally:
    """How often each of some words has come.

    Args:
        words: Those that are shown from the start, with 0.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.counts = dict.fromkeys(words, 0)

    def add(self, word: str) -> None:
        """Count one."""
        counts = self.counts
        if word not in counts:
            if len(counts) >= MOST_WORDS:
                word = OTHER
            counts.setdefault(word, 0)
        counts[word] += 1

    def labelled(self) -> dict[tuple[str, ...], float]:
        """Return the counts as series with one label."""
        return {(word,): count for word, count in self.counts.items()}


class Histogram:
    """How long something has taken.

    Attributes:
        sum_seconds: All together.
        count: How often.
    """

    def __init__(self) -> None:
        self._buckets = [0] * (len(BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        """Note one."""
        self._buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds
        self.count += 1

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the upper bounds and how many were at most that, as the exposition format has them."""
        found, total = [], 0
        for bound, count in zip((*map(str, BUCKETS_SECONDS), "+Inf"), self._buckets, strict=True):
            total += count
            found.append((bound, float(total)))
        return found
