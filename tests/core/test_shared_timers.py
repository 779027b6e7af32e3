"""``SharedTimers``: the calls are made as by a reactor, with one timer for each delay."""

from __future__ import annotations

import pytest
from twisted.internet.error import AlreadyCalled
from twisted.internet.task import Clock

from seance.core.shared_timers import SharedTimers


def test_calls_are_made_when_they_are_due_and_in_order() -> None:
    clock, called = Clock(), []
    timers = SharedTimers(clock)
    for name, delay in (("a", 5), ("b", 3), ("c", 5)):
        timers.callLater(delay, lambda name=name: called.append((name, clock.seconds())))
        clock.advance(1)
    assert len(clock.getDelayedCalls()) == 2
    clock.pump([0.5] * 20)
    assert called == [("b", 4), ("a", 5), ("c", 7)]
    assert clock.getDelayedCalls() == []


def test_arguments_are_passed_on() -> None:
    clock, called = Clock(), []
    timers = SharedTimers(clock)
    timers.callLater(1, lambda *args, **kwargs: called.append((args, kwargs)), 1, 2, three=3)
    clock.advance(1)
    assert called == [((1, 2), {"three": 3})]


def test_a_cancelled_call_is_not_made() -> None:
    clock, called = Clock(), []
    timers = SharedTimers(clock)
    first, second = (timers.callLater(1, called.append, number) for number in (1, 2))
    assert first.active()
    assert first.getTime() == 1
    first.cancel()
    assert not first.active()
    with pytest.raises(AlreadyCalled):
        first.cancel()
    clock.advance(1)
    assert called == [2]
    assert not second.active()


def test_timeouts_that_are_all_stopped_leave_one_timer_until_it_is_due() -> None:
    clock = Clock()
    timers = SharedTimers(clock)
    timers.start()
    for _ in range(100):
        timers.callLater(5, pytest.fail).cancel()
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(5)
    assert clock.getDelayedCalls() == []


def test_a_service_that_has_stopped_leaves_no_timer() -> None:
    clock, called = Clock(), []
    timers = SharedTimers(clock)
    timers.start()
    timers.callLater(1, pytest.fail).cancel()
    left = timers.callLater(2, pytest.fail)
    timers.stop()
    assert len(clock.getDelayedCalls()) == 1
    left.cancel()
    assert clock.getDelayedCalls() == []
    timers.callLater(1, called.append, 1)
    clock.advance(1)
    assert called == [1]


def test_a_call_may_start_and_cancel_others() -> None:
    clock, called = Clock(), []
    timers = SharedTimers(clock)

    def begin() -> None:
        last.cancel()
        timers.callLater(1, called.append, "next")

    timers.callLater(1, begin)
    last = timers.callLater(1, called.append, "last")
    clock.advance(1)
    assert called == []
    clock.advance(1)
    assert called == ["next"]


def test_a_call_that_fails_does_not_stop_the_others() -> None:
    clock, called = Clock(), []
    timers = SharedTimers(clock)
    timers.callLater(1, lambda: 1 / 0)
    timers.callLater(1, called.append, "second")
    with pytest.raises(ZeroDivisionError):
        clock.advance(1)
    clock.advance(0)
    assert called == ["second"]


def test_a_call_without_a_delay_is_the_reactors() -> None:
    clock, called = Clock(), []
    SharedTimers(clock).callLater(0, called.append, 1)
    assert len(clock.getDelayedCalls()) == 1
    clock.advance(0)
    assert called == [1]


def test_service_that_stops_during_a_call() -> None:
    clock = Clock()
    timers = SharedTimers(clock)
    timers.start()
    timers.callLater(1, timers.stop)
    clock.advance(1)
    assert clock.getDelayedCalls() == []
