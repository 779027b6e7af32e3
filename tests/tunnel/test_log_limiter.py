"""How often the same event is logged."""

from __future__ import annotations

from twisted.internet.task import Clock

from seance.tunnel.log_limiter import LogLimiter


def test_first_event_is_logged_and_further_ones_are_counted_for_a_minute() -> None:
    clock = Clock()
    limiter = LogLimiter(clock.seconds)
    assert limiter.count("a") == 1
    for _ in range(1000):
        assert limiter.count("a") == 0
    clock.advance(59.9)
    assert limiter.count("a") == 0
    clock.advance(0.1)
    assert limiter.count("a") == 1002
    assert limiter.count("a") == 0
    clock.advance(60)
    assert limiter.count("a") == 2


def test_each_key_is_a_change_of_its_own() -> None:
    limiter = LogLimiter(Clock().seconds)
    assert [limiter.count(key) for key in "aba"] == [1, 1, 0]
    limiter.reset("a")
    limiter.reset("unknown")
    assert limiter.count("a") == 1


def test_keys_are_bounded() -> None:
    limiter = LogLimiter(Clock().seconds, max_keys=2)
    assert [limiter.count(key) for key in "abca"] == [1, 1, 1, 1]
    assert limiter.count("c") == 0
