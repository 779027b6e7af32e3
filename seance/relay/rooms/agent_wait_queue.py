"""Where clients wait for a room whose agent is away: bounded, and let go one after the other.

A Yjs client that is refused dials again within 2.5 s, without jitter, so that a thousand people whose
host's Wi-Fi blinks are 400 upgrades a second, in phase (yjs.md, section 1.1). One that is not answered
waits: browsers hold a pending upgrade without a retry, Firefox for 20 s (fact 2 there). A client that
waits costs a descriptor and some kilobytes, and is served in the moment in which the agent is back.

They are not let go all at once then, since each costs the agent a dial and the local server a
handshake. The order is that of arrival; when several rooms are back, they take turns.

Plain bookkeeping around one timer for the oldest and one for the pace. Whether a room is *known*, so
that its clients may wait at all, the relay asks ``RoomTable``; it calls ``when_back``, ``note_back`` when a
link is there, and ``close`` when it stops.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from random import randint
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from seance.core.settings import RelaySettings
from seance.errors import Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["AgentWaitQueue"]

RELEASE_SECONDS = 0.005
"""Between two clients that are let go, in the whole relay: 200 a second. A plain agent's 256 are in
after 1.3 s; an upgrade takes about a millisecond of each process on its way."""

RETRY_SECONDS = (2, 5)
"""The least and the most of a ``Retry-After``. Each client gets its own: those who came together would
otherwise come again together."""


@dataclass(eq=False, slots=True)
class _WaitingClientSlot:
    room: str
    until_seconds: float
    waiting: Deferred[None]


class AgentWaitQueue:
    """The clients of one relay that wait for an agent.

    Args:
        reactor: Where time comes from.
        settings: The relay's.
        is_back: Says of a room whether its clients can be served now.
        most: Clients that may wait in all, if that is less than ``parked``.
        random: Gives an integer between two, both included; for ``Retry-After``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        is_back: Callable[[str], bool],
        *,
        most: int | None = None,
        random: Callable[[int, int], int] = randint,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._most = settings.parked if most is None else min(most, settings.parked)
        self._is_back = is_back
        self._random = random
        self._parked: OrderedDict[_WaitingClientSlot, None] = OrderedDict()
        self._rooms: dict[str, OrderedDict[_WaitingClientSlot, None]] = {}
        self._returning: OrderedDict[str, None] = OrderedDict()
        self._deadline: IDelayedCall | None = None
        self._release: IDelayedCall | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """Clients that wait now."""
        return len(self._parked)

    def open(self) -> None:
        """Take clients, also after ``close``; it begins open."""
        self._is_closed = False

    def close(self) -> None:
        """Refuse all who wait, now, and whoever comes later: the relay is stopping."""
        self._is_closed = True
        while self._parked:
            self._refuse(next(iter(self._parked)), self._stopping())

    def has_place_for(self, room: str) -> bool:
        """Whether one more client of a room may wait."""
        of_room = len(self._rooms.get(room, ()))
        return len(self._parked) < self._most and of_room < self._settings.parked_per_room

    def refusal(self) -> Refusal:
        """Return what somebody is told for whom there is no place."""
        sentence = "The agent of this room is away, and as many clients wait for it as may; try again."
        return Refusal(503, sentence, code="parking_full", headers=self._retry_after())

    def when_back(self, room: str, since_seconds: float | None = None) -> Deferred[None]:
        """Wait until a room can be served. Cancelling gives the place back.

        Args:
            room: Which.
            since_seconds: Since when it has been waiting for something, if not only from now on.

        Returns:
            Fires when ``is_back(room)``, and it is this client's turn. Fails with ``Refusal``, 503 with
            ``Retry-After``: ``agent_away`` after ``park_seconds``, ``parking_full`` at once if there
            is no place, ``relay_stopping`` when the relay stops.
        """
        if self._is_closed:
            return fail(self._stopping())
        if not self.has_place_for(room):
            return fail(self.refusal())
        until = self._reactor.seconds() + self._settings.park_seconds
        one = _WaitingClientSlot(room, until, Deferred(lambda _: self._leave(one)))
        self._parked[one] = None
        self._rooms.setdefault(room, OrderedDict())[one] = None
        self._watch_the_oldest()
        if since_seconds is not None:
            left_seconds = since_seconds + self._settings.park_seconds - self._reactor.seconds()
            one.waiting.addTimeout(max(0.0, left_seconds), self._reactor, self._too_late)
        return one.waiting

    def note_back(self, room: str) -> None:
        """A room has its agent again: let its clients go, in their turn."""
        if room in self._rooms:
            self._returning[room] = None
            if self._release is None:
                self._release = self._reactor.callLater(RELEASE_SECONDS, self._release_next)

    # -- inside ----------------------------------------------------------------------------

    def _release_next(self) -> None:
        self._release = None
        while self._returning:
            room, _ = self._returning.popitem(last=False)
            # It may have gone again meanwhile; whoever is left waits on for the rest of its time.
            if room in self._rooms and self._is_back(room):
                break
        else:
            return
        one = next(iter(self._rooms[room]))
        self._leave(one)
        if room in self._rooms:
            self._returning[room] = None
        if self._returning:
            self._release = self._reactor.callLater(RELEASE_SECONDS, self._release_next)
        one.waiting.callback(None)

    def _leave(self, one: _WaitingClientSlot) -> None:
        del self._parked[one]
        room_parked = self._rooms[one.room]
        del room_parked[one]
        if not room_parked:
            del self._rooms[one.room]
            self._returning.pop(one.room, None)
        if not self._parked:
            for timer in (self._deadline, self._release):
                if timer is not None:
                    timer.cancel()
            self._deadline = self._release = None

    def _watch_the_oldest(self) -> None:
        # All wait equally long, so the first is always the next whose time is over.
        if self._deadline is None and self._parked:
            seconds = next(iter(self._parked)).until_seconds - self._reactor.seconds()
            self._deadline = self._reactor.callLater(max(0.0, seconds), self._refuse_overdue)

    def _refuse_overdue(self) -> None:
        self._deadline = None
        now = self._reactor.seconds()
        while self._parked and (one := next(iter(self._parked))).until_seconds <= now:
            self._refuse(one, self._away())
        self._watch_the_oldest()

    def _too_late(self, result: object, seconds: float) -> object:
        if isinstance(result, Failure):
            raise self._away()
        return result

    def _refuse(self, one: _WaitingClientSlot, refusal: Refusal) -> None:
        self._leave(one)
        one.waiting.errback(refusal)

    def _away(self) -> Refusal:
        sentence = "The agent of this room is not there at the moment; try again."
        return Refusal(503, sentence, code="agent_away", headers=self._retry_after())

    def _stopping(self) -> Refusal:
        sentence = "This relay is stopping; try again."
        return Refusal(503, sentence, code="relay_stopping", headers=self._retry_after())

    def _retry_after(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((b"Retry-After", b"%d" % self._random(*RETRY_SECONDS)),)
