"""How many may begin in one turn, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from seance.core.per_turn_limiter import MAX_PER_TURN, PerTurnLimiter


class Turning:
    """A reactor that turns when it is told to: unlike ``Clock``, what is asked for in a turn comes in the
    next."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callLater(self, seconds: float, call: Callable[[], object]) -> Any:
        self.calls.append(call)
        return object()

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def few(most: int) -> tuple[Turning, PerTurnLimiter]:
    turning: Any = Turning()
    return turning, PerTurnLimiter(turning, most)


def test_few_begin_at_once_and_the_others_in_the_next_turns_in_order() -> None:
    clock, turns = few(3)
    begun: list[int] = []
    for number in range(8):
        turns.acquire().addCallback(lambda _, number=number: begun.append(number))
    seen = [len(begun)]
    while clock.calls:
        clock.turn()
        seen.append(len(begun))
    assert seen == [3, 6, 8, 8]
    assert begun == sorted(begun)


def test_one_after_the_other_nobody_waits() -> None:
    clock, turns = few(MAX_PER_TURN)
    for _ in range(100):
        assert turns.acquire().called
        clock.turn()
    assert clock.calls == []


def test_who_gives_up_gives_the_place_back() -> None:
    clock, turns = few(1)
    turns.acquire()
    second, third = turns.acquire(), turns.acquire()
    second.addErrback(lambda failure: None)
    second.cancel()
    assert len(turns) == 1
    clock.turn()
    assert third.called
    clock.turn()


def test_newcomers_stand_behind_those_that_wait() -> None:
    clock, turns = few(1)
    turns.acquire()
    waiting = turns.acquire()
    late: list[Deferred[None]] = []
    waiting.addCallback(lambda _: late.append(turns.acquire()))
    clock.turn()
    assert waiting.called
    assert not late[0].called
    clock.turn()
    assert late[0].called
    clock.turn()
