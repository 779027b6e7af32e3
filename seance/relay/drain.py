"""How a relay drains before it stops: the order and rate at which agents and clients are disconnected.

Agents come first. Each gets a slot, so that a thousand agents do not connect to the replacement at the same
moment. At its slot an agent that understands link control gets ``drain``, connects to the replacement, and
sends GoAway when it is attached there; a plain agent gets GoAway and close code 1012. The notice is sent *at*
the slot with ``in`` 0, and not early with the slot as ``in``: that is one path for both kinds of agents, with
a single timer and no list of notified agents.

Clients cannot move, because their sockets end in this process. A client is closed when its agent has moved or
has found no replacement, or when time runs out. The rate is limited, because stock clients reconnect
immediately and without jitter. Until its turn comes, a client with an attached agent continues to
work.

``Departures`` has the list of clients and the rate; it exists as long as the relay, and closes clients
immediately while the relay does not drain. ``Drain`` is one drain, made by ``Relay.stopService``.
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
"""Interval at which clients are closed: 200 a second are four each time."""

MAX_TICK_SECONDS = 0.2

AGENTS_PER_SECOND = 20.0
"""Rate of slots if the configured spread would be slower: three agents do not need five seconds."""

GRACE_SECONDS = 1.0
"""How much longer than the announced time an agent may take to leave."""

# Parts of ``drain_seconds``. The time after the last one is for closing handshakes.

MAX_TRY = 0.25
"""How long an agent may try to find another relay."""

LAST_SLOT = 0.5
"""The end of the last agent's slot."""

ALL_LEAVE = 0.75
"""All remaining agents are disconnected."""

LAST_CLIENT = 0.9
"""The last client is closed."""

REASON = "the relay is restarting"


class Departing(Protocol):
    """The part of a client that a drain uses."""

    def close_gracefully(self) -> None:
        """Close it in order; ``Departures.remove`` follows when its connection is gone."""

    def cut(self) -> None:
        """Cut its connection."""


class DrainedLink(Protocol):
    """The part of a link that a drain uses."""

    @property
    def is_attached(self) -> bool:
        """Whether its agent is connected."""

    def notice_drain(self, in_seconds: float, try_seconds: float, on_moved: Callable[[], None]) -> bool:
        """Ask the agent to move to another relay; return False for a plain agent."""

    def leave(self, reason: str, code: CloseCode = ...) -> None:
        """Send GoAway and a close frame."""

    def cut(self) -> None:
        """Cut the link."""

    def when_lost(self) -> Deferred[None]:
        """Wait for its end."""


class Departures:
    """All clients of a relay that have a stream, and the rate at which a drain closes them.

    Args:
        reactor: Twisted's reactor or a ``Clock``.

    Attributes:
        on_empty: Called when no client is left and no action is queued.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._clients: dict[object, dict[Departing, None]] = {}
        self._queue: deque[tuple[Departing | None, Callable[[], None]]] = deque()
        self._queued: set[Departing] = set()
        self._per_second: float | None = None
        self._by_seconds = 0.0
        self._tokens = 0.0
        self._ticked_at = 0.0
        self._ticking: IDelayedCall | None = None
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """The number of clients with an open connection."""
        return sum(map(len, self._clients.values()))

    @property
    def is_empty(self) -> bool:
        """Whether every client is gone and no action is queued."""
        return not self._clients and not self._queue

    def add(self, client: Departing, link: object) -> None:
        """Add a client of a link."""
        self._clients.setdefault(link, {})[client] = None

    def remove(self, client: Departing, link: object) -> None:
        """Remove a client after its connection is gone."""
        of_link = self._clients.get(link, {})
        of_link.pop(client, None)
        if not of_link:
            self._clients.pop(link, None)
        self._queued.discard(client)
        if self.is_empty:
            self.on_empty()

    def lost_agent(self, client: Departing) -> None:
        """Close a client that has lost its agent: immediately, or in its turn during a drain."""
        if self._per_second is None:
            client.close_gracefully()
        elif client not in self._queued:
            self._queued.add(client)
            self._enqueue(client, client.close_gracefully)

    def close_clients(self, link: object, then: Callable[[], None]) -> None:
        """Close all clients of a link in their turn, and call ``then`` after the last."""
        for client in self._clients.get(link, ()):
            self.lost_agent(client)
        self._enqueue(None, then)

    def limit_rate(self, per_second: float, by_seconds: float) -> None:
        """Close ``per_second`` clients a second; more if the last would be later than ``by_seconds``."""
        self._per_second = per_second
        self._by_seconds = by_seconds

    def stop(self) -> None:
        """Cut the remaining clients and remove the rate limit."""
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
            self._tokens = 0.0
            self._ticking = self._reactor.callLater(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now = self._reactor.seconds()
        left_seconds = max(self._by_seconds - now, TICK_SECONDS)
        per_second = max(self._per_second or 0.0, len(self._queued) / left_seconds)
        # After a long busy turn the missed clients are not closed in one burst.
        self._tokens += per_second * min(now - self._ticked_at, MAX_TICK_SECONDS)
        self._ticked_at = now
        while self._queue:
            client, act = self._queue[0]
            if client in self._queued:
                if self._tokens < 1.0:
                    break
                self._tokens -= 1.0
                self._queued.discard(client)
            elif client is not None:
                self._queue.popleft()  # it has left already
                continue
            self._queue.popleft()
            act()
        if self._queue:
            self._ticking = self._reactor.callLater(TICK_SECONDS, self._tick)
        elif self.is_empty:
            self.on_empty()


class Drain:
    """One drain: ``begin``, then wait for ``when_over``.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        settings: The settings of the relay; ``drain_seconds`` limits the whole drain.
        departures: The clients of the relay.
        random: Returns a number in [0, 1), for the slots.
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
        self._leaving: set[DrainedLink] = set()
        self._calls: list[IDelayedCall] = []
        self._over: OneShotEvent[None] = OneShotEvent()

    def when_over(self) -> Deferred[None]:
        """Wait until all agents and clients are gone."""
        return self._over.when()

    def begin(self, links: Iterable[DrainedLink]) -> None:
        """Start: disconnect all agents, then their clients."""
        settings, departures = self._settings, self._departures
        total = settings.drain_seconds
        self._links = dict.fromkeys(links)
        count = len(self._links)
        if count or len(departures):
            self._log.info(
                "Draining {agents} agents and {clients} clients, within {seconds:g} s; "
                "a second signal stops immediately",
                agents=count,
                clients=len(departures),
                seconds=total,
                event="drain.begun",
            )
        departures.on_empty = self._check
        departures.limit_rate(
            settings.drain_clients_per_second, self._reactor.seconds() + total * LAST_CLIENT
        )
        spread = min(settings.drain_spread_seconds, total * LAST_SLOT, count / AGENTS_PER_SECOND)
        for link, slot in zip(list(self._links), slots(count, spread, self._random), strict=True):
            link.when_lost().addCallback(lambda _, link: self._note_lost(link), link)
            self._plan(slot, self._drain_link, link)
        self._plan(total * ALL_LEAVE, self._disconnect_all)
        self._plan(total, self._end)
        self._check()

    # -- inside ----------------------------------------------------------------------------

    def _plan(self, seconds: float, act: Callable[..., None], *arguments: object) -> None:
        self._calls.append(self._reactor.callLater(seconds, act, *arguments))

    def _drain_link(self, link: DrainedLink) -> None:
        if link not in self._links:
            return
        try_seconds = min(self._settings.drain_try_seconds, self._settings.drain_seconds * MAX_TRY)
        if not link.is_attached:
            self._disconnect(link)  # it cannot resume: the relay does not listen any more
        elif link.notice_drain(0.0, try_seconds, lambda: self._disconnect(link)):
            self._plan(try_seconds + GRACE_SECONDS, self._disconnect, link)
        else:
            link.leave(REASON, CloseCode.SERVICE_RESTART)

    def _disconnect_all(self) -> None:
        for link in list(self._links):
            self._disconnect(link)

    def _disconnect(self, link: DrainedLink) -> None:
        if link in self._links and link not in self._leaving:
            self._leaving.add(link)
            self._departures.close_clients(link, lambda: link.leave(REASON, CloseCode.SERVICE_RESTART))

    def _note_lost(self, link: DrainedLink) -> None:
        self._links.pop(link, None)
        self._check()

    def _check(self) -> None:
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
                "The drain time is over: {agents} agents and {clients} clients are cut",
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
    """Return the slots in seconds: a random moment in each of ``count`` equal parts of the time."""
    return [(number + random()) * spread_seconds / count for number in range(count)]
