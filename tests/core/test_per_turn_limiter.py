"""How many operations begin in one turn, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from seance.core.per_turn_limiter import MAX_PER_TURN, PerTurnLimiter


class TurnReactor:
    """A reactor with explicit turns: unlike with ``Clock``, a call added during a turn runs in the next."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callLater(self, seconds: float, call: Callable[[], object]) -> Any:
        self.calls.append(call)
        return object()

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def make_limiter(max_per_turn: int) -> tuple[TurnReactor, PerTurnLimiter]:
    reactor: Any = TurnReactor()
    return reactor, PerTurnLimiter(reactor, max_per_turn)


def test_operations_over_the_limit_begin_in_the_next_turns_in_order() -> None:
    reactor, limiter = make_limiter(3)
    begun: list[int] = []
    for number in range(8):
        limiter.acquire().addCallback(lambda _, number=number: begun.append(number))
    seen = [len(begun)]
    while reactor.calls:
        reactor.turn()
        seen.append(len(begun))
    assert seen == [3, 6, 8, 8]
    assert begun == sorted(begun)


def test_one_operation_per_turn_never_waits() -> None:
    reactor, limiter = make_limiter(MAX_PER_TURN)
    for _ in range(100):
        assert limiter.acquire().called
        reactor.turn()
    assert reactor.calls == []


def test_cancelled_waiter_does_not_use_a_turn() -> None:
    reactor, limiter = make_limiter(1)
    limiter.acquire()
    second, third = limiter.acquire(), limiter.acquire()
    second.addErrback(lambda failure: None)
    second.cancel()
    reactor.turn()
    assert third.called
    reactor.turn()


def test_later_callers_wait_behind_earlier_ones() -> None:
    reactor, limiter = make_limiter(1)
    limiter.acquire()
    waiting = limiter.acquire()
    late: list[Deferred[None]] = []
    waiting.addCallback(lambda _: late.append(limiter.acquire()))
    reactor.turn()
    assert waiting.called
    assert not late[0].called
    reactor.turn()
    assert late[0].called
    reactor.turn()
