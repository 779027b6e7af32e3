"""Numbers that are added up, and the lag of a reactor."""

from __future__ import annotations

from twisted.internet.task import Clock

from seance.metrics.catalogue import BUCKETS_SECONDS
from seance.metrics.counting import MOST_WORDS, OTHER, Histogram, Tally
from seance.metrics.lag import KEPT_LOOKS, ReactorLag


def test_words_of_a_tally_are_bounded() -> None:
    tally = Tally(["known"])
    for number in range(MOST_WORDS + 100):
        tally.add(f"word-{number}")
    tally.add("known")
    assert len(tally.counts) == MOST_WORDS + 1
    assert (tally.counts["known"], tally.counts[OTHER]) == (1, 101)
    assert sum(tally.counts.values()) == MOST_WORDS + 101


def test_histogram_counts_each_time_once_and_adds_them_up() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.005, 0.0051, 1.0, 30.0, 31.0):
        histogram.add(seconds)
    counts = dict(histogram.cumulative())
    assert (counts["0.005"], counts["0.01"], counts["1.0"]) == (2, 3, 4)
    assert (counts["30.0"], counts["+Inf"]) == (5, 6)
    assert histogram.count == 6
    assert abs(histogram.sum_seconds - 62.0101) < 1e-9
    assert list(counts) == [*map(str, BUCKETS_SECONDS), "+Inf"]


class Late(Clock):
    """A clock that advances in steps that are too long."""

    def be_late(self, seconds: float) -> None:
        self.rightNow += seconds
        self.advance(0)


def test_lag_is_how_late_a_call_came_and_the_worst_of_the_last_minute() -> None:
    clock = Late()
    lag = ReactorLag(clock)
    assert lag.worst_seconds == lag.latest_seconds == 0.0
    lag.startService()
    clock.be_late(1.3)
    clock.be_late(1.05)
    assert abs(lag.worst_seconds - 0.3) < 1e-9
    assert abs(lag.latest_seconds - 0.05) < 1e-9
    for _ in range(KEPT_LOOKS):
        clock.be_late(1.0)
    assert lag.worst_seconds < 1e-9
    lag.stopService()
    assert clock.getDelayedCalls() == []
