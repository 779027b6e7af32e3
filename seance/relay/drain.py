"""How a relay empties itself before it stops: who is sent away when, and how fast.

Agents first. Each gets a slot, so that a relay with a thousand of them does not send a thousand
dials to its replacement at once. At its slot an agent that understands link control is told ``drain``,
dials the replacement, and says GoAway when it is there; a plain one gets GoAway and close code 1012. The
notice is sent *at* the slot, with ``in`` 0, and not early with the slot as ``in``: one path for both kinds,
a single timer, and nobody who has been told has to be remembered.

Clients cannot move: their sockets end in this process. They are closed when their agent has moved,
or has shown that it finds no replacement, or when time runs out, and never more than so many a second,
because stock clients come back at once and without jitter (yjs.md, row 30). Until its turn
comes, a client whose agent is still here goes on working.

``Departures`` is the list of the clients and the pace; it exists as long as the relay and lets a client
go at once while nothing is being drained. ``Drain`` is one leave-taking, made by ``Relay.stopService``.
Neither knows what a client or an agent is made of, and both do with a clock of the test's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from random import random as _random
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from seance.carrier import CloseCode
from seance.net import OneShotEvent

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from seance.core.settings import RelaySettings

__all__ = ["Departing", "Departures", "Drain", "DrainedLink", "slots"]

TICK_SECONDS = 0.02
"""How often clients are let go: 200 a second are four at a time."""

LONGEST_TICK_SECONDS = 0.2

AGENTS_PER_SECOND = 20.0
"""Slots lie no further apart than this needs: three agents do not have to wait for five seconds."""

PATIENCE_SECONDS = 1.0
"""How much longer than it was told an agent may take to leave."""

ALL_TOLD, MOST_TRIED, ALL_LEAVE, ALL_SEEN_OFF = 0.5, 0.25, 0.75, 0.9
"""Parts of ``drain_seconds``: the last slot is over, an agent may try for so long, whoever is still there is
sent away, the last client has been. The rest is for closing handshakes."""

REASON = "the relay is restarting"


class Departing(Protocol):
    """A client, as seen from here."""

    def close_gracefully(self) -> None:
        """Send it away in order; ``Departures.remove`` follows when its connection is gone."""

    def cut(self) -> None:
        """End it now."""


class DrainedLink(Protocol):
    """A link, as seen from here."""

    @property
    def is_attached(self) -> bool:
        """Whether its agent is connected at the moment."""

    def notice_drain(self, in_seconds: float, try_seconds: float, on_moved: Callable[[], None]) -> bool:
        """Tell the agent to move, and hear of it; False if it would not understand."""

    def leave(self, reason: str, code: CloseCode = ...) -> None:
        """Take leave of the agent."""

    def cut(self) -> None:
        """End the link now."""

    def when_lost(self) -> Deferred[None]:
        """Wait for its end."""


class Departures:
    """All clients of a relay that have a stream, and how they are sent away.

    Args:
        reactor: Where time comes from.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._clients: dict[object, dict[Departing, None]] = {}
        self._queue: deque[tuple[Departing | None, Callable[[], None]]] = deque()
        self._queued: set[Departing] = set()
        self._per_second: float | None = None
        self._by_seconds = 0.0
        self._allowance = 0.0
        self._ticked_at = 0.0
        self._ticking: IDelayedCall | None = None
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """Clients whose connection is not gone yet."""
        return sum(map(len, self._clients.values()))

    @property
    def is_empty(self) -> bool:
        """Whether every client is gone, and everything that was to follow has happened."""
        return not self._clients and not self._queue

    def add(self, client: Departing, link: object) -> None:
        """Count a client in; it is one of this link's."""
        self._clients.setdefault(link, {})[client] = None

    def remove(self, client: Departing, link: object) -> None:
        """Count a client out: its connection is gone."""
        of_link = self._clients.get(link, {})
        of_link.pop(client, None)
        if not of_link:
            self._clients.pop(link, None)
        self._queued.discard(client)
        if self.is_empty:
            self.on_empty()

    def lost_agent(self, client: Departing) -> None:
        """See a client off whose agent is gone for good: at once, or in its turn while draining."""
        if self._per_second is None:
            client.close_gracefully()
        elif client not in self._queued:
            self._queued.add(client)
            self._enqueue(client, client.close_gracefully)

    def send_away(self, link: object, then: Callable[[], None]) -> None:
        """See all clients of a link off in their turn, and call ``then`` after the last."""
        for client in self._clients.get(link, ()):
            self.lost_agent(client)
        self._enqueue(None, then)

    def pace(self, per_second: float, by_seconds: float) -> None:
        """From now on let so many go a second; more, if the last would be later than ``by_seconds``."""
        self._per_second = per_second
        self._by_seconds = by_seconds

    def stop(self) -> None:
        """Cut whoever is left, and pace nobody any more."""
        self._per_second = None
        self._queue.clear()
        self._queued.clear()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        for of_link in list(self._clients.values()):
            for client in list(of_link):
                client.cut()

    # -- inside ----------------------------------------------------------------------------

    def _enqueue(self, client: Departing | None, act: Callable[[], None]) -> None:
        self._queue.append((client, act))
        if self._ticking is None:
            self._ticked_at = self._reactor.seconds()
            self._allowance = 0.0
            self._ticking = self._reactor.callLater(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now = self._reactor.seconds()
        left_seconds = max(self._by_seconds - now, TICK_SECONDS)
        per_second = max(self._per_second or 0.0, len(self._queued) / left_seconds)
        # A loop that was busy for long does not make up for it in one burst.
        self._allowance += per_second * min(now - self._ticked_at, LONGEST_TICK_SECONDS)
        self._ticked_at = now
        while self._queue:
            client, act = self._queue[0]
            if client in self._queued:
                if self._allowance < 1.0:
                    break
                self._allowance -= 1.0
                self._queued.discard(client)
            elif client is not None:
                self._queue.popleft()  # it has gone by itself
                continue
            self._queue.popleft()
            act()
        if self._queue:
            self._ticking = self._reactor.callLater(TICK_SECONDS, self._tick)
        elif self.is_empty:
            self.on_empty()


class Drain:
    """One leave-taking: ``begin``, then wait for ``when_over``.

    Args:
        reactor: Where time comes from.
        settings: The relay's; ``drain_seconds`` bounds the whole.
        departures: The relay's clients.
        random: Gives a number from 0 up to 1, for the slots.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        departures: Departures,
        *,
        random: Callable[[], float] = _random,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._departures = departures
        self._random = random
        self._links: dict[DrainedLink, None] = {}
        self._sent_away: set[DrainedLink] = set()
        self._calls: list[IDelayedCall] = []
        self._over: OneShotEvent[None] = OneShotEvent()

    def when_over(self) -> Deferred[None]:
        """Wait until nobody is left, or everybody was cut."""
        return self._over.when()

    def begin(self, links: Iterable[DrainedLink]) -> None:
        """Send everybody away, agents first."""
        settings, departures = self._settings, self._departures
        total = settings.drain_seconds
        self._links = dict.fromkeys(links)
        count = len(self._links)
        if count or len(departures):
            self._log.info(
                "Taking leave of {agents} agents and {clients} clients, in {seconds:g} s at most; "
                "a second signal ends at once",
                agents=count,
                clients=len(departures),
                seconds=total,
                event="drain.begun",
            )
        departures.on_empty = self._look
        departures.pace(settings.drain_clients_per_second, self._reactor.seconds() + total * ALL_SEEN_OFF)
        spread = min(settings.drain_spread_seconds, total * ALL_TOLD, count / AGENTS_PER_SECOND)
        for link, slot in zip(list(self._links), slots(count, spread, self._random), strict=True):
            link.when_lost().addCallback(lambda _, link: self._note_lost(link), link)
            self._plan(slot, self._take_leave_of, link)
        self._plan(total * ALL_LEAVE, self._send_away_all)
        self._plan(total, self._end)
        self._look()

    # -- inside ----------------------------------------------------------------------------

    def _plan(self, seconds: float, act: Callable[..., None], *arguments: object) -> None:
        self._calls.append(self._reactor.callLater(seconds, act, *arguments))

    def _take_leave_of(self, link: DrainedLink) -> None:
        if link not in self._links:
            return
        try_seconds = min(self._settings.drain_try_seconds, self._settings.drain_seconds * MOST_TRIED)
        if not link.is_attached:
            self._send_away(link)  # it cannot come back: we do not listen any more
        elif link.notice_drain(0.0, try_seconds, lambda: self._send_away(link)):
            self._plan(try_seconds + PATIENCE_SECONDS, self._send_away, link)
        else:
            link.leave(REASON, CloseCode.SERVICE_RESTART)

    def _send_away_all(self) -> None:
        for link in list(self._links):
            self._send_away(link)

    def _send_away(self, link: DrainedLink) -> None:
        if link in self._links and link not in self._sent_away:
            self._sent_away.add(link)
            self._departures.send_away(link, lambda: link.leave(REASON, CloseCode.SERVICE_RESTART))

    def _note_lost(self, link: DrainedLink) -> None:
        self._links.pop(link, None)
        self._look()

    def _look(self) -> None:
        if not self._links and self._departures.is_empty:
            self._end()

    def _end(self) -> None:
        if self._over.has_fired:
            return
        for call in self._calls:
            if call.active():
                call.cancel()
        self._calls.clear()
        if self._links or len(self._departures):
            self._log.warn(
                "The time to take leave is over: {agents} agents and {clients} clients are cut",
                agents=len(self._links),
                clients=len(self._departures),
                event="drain.cut",
            )
        self._departures.on_empty = lambda: None
        self._departures.stop()
        for link in list(self._links):
            link.cut()
        self._over.fire(None)


def slots(count: int, spread_seconds: float, random: Callable[[], float]) -> list[float]:
    """Return when each of ``count`` has its turn: one in each of as many equal parts of the time."""
    return [(number + random()) * spread_seconds / count for number in range(count)]
