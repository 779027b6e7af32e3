"""Lets few begin in one turn of the reactor, so that those who are there have theirs.

A thousand clients that come to a live room at once are a second of work for the relay and another for the
agent: a head to parse, a stream to open, a connection to make. Done in one turn that second is a pause for
everybody who is typing. Done eight at a time it is some milliseconds between two polls, and costs the
thousand nothing that they would notice. Measured: ``docs/benchmarks.md``, "Narrow and long lines".

Used by ``Frontend`` for upgrades and by ``LocalConnection`` for dials; what ``FastReject`` accepts is counted
there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["AT_A_TIME", "PerTurnLimiter"]

AT_A_TIME: Final = 8
"""Half a millisecond of work each, for the relay and for the agent: 4 ms in a turn."""


class PerTurnLimiter:
    """Whoever wants to begin waits ``acquire``, which is at once unless many do.

    Args:
        reactor: Where time comes from.
        most: How many in one turn.
    """

    def __init__(self, reactor: IReactorTime, most: int = AT_A_TIME) -> None:
        self._reactor = reactor
        self._most = most
        self._begun = 0
        self._waiting: OrderedDict[Deferred[None], None] = OrderedDict()
        self._next_turn: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many wait; who may wait is bounded by whoever lets them come this far."""
        return len(self._waiting)

    def acquire(self) -> Deferred[None]:
        """Wait for the turn in which one may begin; in order of arrival. Cancelling gives the place back."""
        if self._next_turn is None:
            self._next_turn = self._reactor.callLater(0, self._turn)
        if self._begun < self._most and not self._waiting:
            self._begun += 1
            return succeed(None)
        one: Deferred[None] = Deferred(lambda _: self._waiting.pop(one))
        self._waiting[one] = None
        return one

    def _turn(self) -> None:
        self._next_turn = None
        self._begun = min(self._most, len(self._waiting))
        if self._begun:
            self._next_turn = self._reactor.callLater(0, self._turn)
        for _ in range(self._begun):
            if self._waiting:
                self._waiting.popitem(last=False)[0].callback(None)
