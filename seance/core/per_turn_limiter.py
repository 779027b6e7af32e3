"""Limits how many operations begin in one turn of the reactor, so that other connections get their turn.

A thousand clients that connect to a room together cost the relay about a second of CPU, and the agent
another: a head to parse, a stream to open, a connection to make for each. In one turn of the reactor, that
second is a pause for every client that is connected already. With eight per turn the pause between two polls
is a few milliseconds, and the thousand clients connect as fast. Figures: ``docs/benchmarks.md``, "Narrow and
long lines".

``Frontend`` uses it for upgrades and ``LocalConnection`` for dials. ``FastReject`` counts on its own how many
connections it passes on per turn.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["MAX_PER_TURN", "PerTurnLimiter"]

MAX_PER_TURN: Final = 8
"""One operation takes about 0.5 ms on the relay and on the agent: 4 ms per turn."""


class PerTurnLimiter:
    """Call ``acquire`` before each operation. It fires immediately unless many begin in the same turn.

    Args:
        reactor: Starts the next turn.
        max_per_turn: Operations that may begin in one turn.
    """

    def __init__(self, reactor: IReactorTime, max_per_turn: int = MAX_PER_TURN) -> None:
        self._reactor = reactor
        self._max_per_turn = max_per_turn
        self._begun = 0
        self._waiting: OrderedDict[Deferred[None], None] = OrderedDict()
        self._next_turn: IDelayedCall | None = None

    def acquire(self) -> Deferred[None]:
        """Wait for a turn in which another operation may begin, in order of the calls. May be cancelled.

        The callers limit how many wait: at most one per open connection.
        """
        if self._next_turn is None:
            self._next_turn = self._reactor.callLater(0, self._turn)
        if self._begun < self._max_per_turn and not self._waiting:
            self._begun += 1
            return succeed(None)
        waiting: Deferred[None] = Deferred(lambda _: self._waiting.pop(waiting))
        self._waiting[waiting] = None
        return waiting

    def _turn(self) -> None:
        self._next_turn = None
        self._begun = min(self._max_per_turn, len(self._waiting))
        if self._begun:
            self._next_turn = self._reactor.callLater(0, self._turn)
        for _ in range(self._begun):
            if self._waiting:
                self._waiting.popitem(last=False)[0].callback(None)
