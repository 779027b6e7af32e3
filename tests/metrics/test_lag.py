"""The delay of a reactor."""

from __future__ import annotations

from twisted.internet.task import Clock

from seance.metrics.lag import MAX_SAMPLES, ReactorLag


class LateClock(Clock):
    """A clock that advances in steps that are too long."""

    def be_late(self, seconds: float) -> None:
        self.rightNow += seconds
        self.advance(0)


def test_lag_is_the_delay_of_a_call_and_the_worst_of_the_last_minute() -> None:
    clock = LateClock()
    lag = ReactorLag(clock)
    assert lag.worst_seconds == lag.latest_seconds == 0.0
    lag.startService()
    clock.be_late(1.3)
    clock.be_late(1.05)
    assert abs(lag.worst_seconds - 0.3) < 1e-9
    assert abs(lag.latest_seconds - 0.05) < 1e-9
    for _ in range(MAX_SAMPLES):
        clock.be_late(1.0)
    assert lag.worst_seconds < 1e-9
    lag.stopService()
    assert clock.getDelayedCalls() == []
