"""An event that happens at most once, and its waiters."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from seance.net import OneShotEvent


def results_of(*waiting: Deferred[Any]) -> list[Any]:
    results: list[Any] = []
    for one in waiting:
        one.addBoth(results.append)
    return results


def test_every_waiter_gets_the_value_once() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    assert not occasion.has_fired
    results = results_of(occasion.when(), occasion.when())
    assert results == []
    occasion.fire("now")
    occasion.fire("again")
    occasion.fail(Failure(ValueError()))
    assert results == ["now", "now"]
    assert occasion.has_fired


def test_a_later_waiter_gets_the_value_immediately() -> None:
    occasion: OneShotEvent[None] = OneShotEvent()
    occasion.fire(None)
    assert results_of(occasion.when(), occasion.when()) == [None, None]


def test_every_waiter_gets_the_failure() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    before = results_of(occasion.when())
    occasion.fail(Failure(ValueError("never")))
    occasion.fire("too late")
    occasion.fail(Failure(KeyError()))
    after = results_of(occasion.when())
    assert [type(failure.value) for failure in before + after] == [ValueError, ValueError]
    assert occasion.has_fired


def test_a_failure_without_waiters_is_not_unhandled() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    occasion.fail(Failure(ValueError("never")))


def test_each_waiter_has_a_separate_deferred() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    first, second = occasion.when(), occasion.when()
    first.addCallback(lambda _: "spoilt")
    results = results_of(second)
    first.cancel()
    occasion.fire("now")
    assert results == ["now"]
    assert isinstance(results_of(first)[0].value, CancelledError)


def test_a_cancelled_waiter_gets_nothing() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    waiting = occasion.when()
    results = results_of(waiting)
    waiting.cancel()
    occasion.fire("now")
    assert len(results) == 1
    assert results[0].check(CancelledError)


def test_a_cancelled_waiter_is_not_kept() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    waiting = occasion.when().addErrback(lambda _: None)
    gone = weakref.ref(waiting)
    waiting.cancel()
    del waiting
    gc.collect()
    assert gone() is None
    assert not occasion.has_fired


def test_it_can_be_waited_for_again() -> None:
    occasion: OneShotEvent[int] = OneShotEvent()
    occasion.fire(1)
    occasion.reset()
    assert not occasion.has_fired
    results = results_of(occasion.when())
    occasion.reset()
    occasion.fire(2)
    assert results == [2]


def test_a_callback_may_wait_again() -> None:
    occasion: OneShotEvent[str] = OneShotEvent()
    inner: list[Any] = []
    occasion.when().addCallback(lambda _: occasion.when().addCallback(inner.append))
    occasion.fire("now")
    assert inner == ["now"]
