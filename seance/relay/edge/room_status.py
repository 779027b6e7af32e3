"""Is the host of a room there? What a web page may ask, once or as a stream of events.

A browser hides why a WebSocket could not be opened, and one that stays open while its agent resumes does
not tell that nobody is at the other end. So a page asks ``/c/ID/status`` and gets one JSON object, or with
``Accept: text/event-stream`` one for each change (``new EventSource(url)``), with a comment in between
that keeps proxies from taking the connection for dead. The front decides who may ask, as for a client; an
*upgrade* to that address is an app's own and goes through the tunnel.

Watchers are bounded in number. What is written to one that does not read is bounded, too: it is cut when
its transport is full.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import randint
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.core.lingering_close import LingeringClose
from seance.core.settings import RelaySettings
from seance.errors import Refusal
from seance.heads import (
    Request,
    Route,
    RouteKind,
    check_origin,
    cors_fields,
    event_stream_head,
    is_upgrade,
    plain_response,
    preflight_response,
)
from seance.net import Leg, ProtocolSwitch

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.core.interfaces import Grant
    from seance.heads.fields import Fields
    from seance.relay.rooms.active_grants import ActiveGrants
    from seance.relay.rooms.agent_link import AgentLink
    from seance.relay.rooms.room_table import RoomTable

__all__ = ["Presence", "RoomState", "RoomStatus", "Watcher", "is_status", "wants_events"]

HEARTBEAT_SECONDS = 15.0
"""Between two comments. Proxies give a silent connection a minute, some of them half of one."""

RETRY_MILLISECONDS = (2000, 5000)
"""How soon a browser asks again when the stream has ended: another time for each, lest a crowd comes at
once."""

RETRY_AFTER = (b"Retry-After", b"5")


class RoomState(enum.Enum):
    """How it stands with the agent of a room."""

    ONLINE = "online"
    RESUMING = "resuming"
    AWAY = "away"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RoomStatus:
    """What may be said about a room.

    Attributes:
        room: Its name.
        state: ``ONLINE``; ``RESUMING``: the carrier is lost, and those who are connected stay so;
            ``AWAY``: the agent has gone lately, and clients are kept waiting for it; ``UNKNOWN``.
        since: For how many seconds it has been so; None for ``UNKNOWN``.
    """

    room: str
    state: RoomState
    since: float | None = None

    def to_json(self) -> bytes:
        """Return it as one line."""
        since = None if self.since is None else round(self.since, 1)
        return json.dumps({"room": self.room, "state": self.state.value, "since": since}).encode()


def is_status(request: Request, route: Route) -> bool:
    """Whether a request asks for the status of its room, and not for a WebSocket at that path."""
    is_there = route.kind is RouteKind.CLIENT and route.local.partition(b"?")[0] == b"/status"
    # An offer that is not taken is ignored (RFC 9110, 7.8): of h2c, say, by Java's client and curl --http2.
    return is_there and not is_upgrade(request.headers)


def wants_events(request: Request) -> bool:
    """Whether a request asks for a stream of events."""
    return any(b"text/event-stream" in value.lower() for value in request.values(b"accept"))


class Presence:
    """Tells who is there, to those who ask and to those who watch.

    Args:
        reactor: Where time comes from.
        settings: The relay's.
        rooms: The relay's.
        most: Watchers in all, if that is less than ``watchers``.
        random: Gives an integer between two, both included; for ``retry``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        rooms: RoomTable[AgentLink],
        *,
        most: int | None = None,
        random: Callable[[int, int], int] = randint,
    ) -> None:
        self.reactor = reactor
        self._settings = settings
        self._most = settings.watchers if most is None else min(most, settings.watchers)
        self._rooms = rooms
        self._random = random
        self._watchers: dict[str, dict[Watcher, None]] = {}
        self._count = 0
        self._is_closed = False
        rooms.on_change(self._tell)

    @property
    def watcher_count(self) -> int:
        """Those who watch now, all rooms together."""
        return self._count

    def status(self, room: str) -> RoomStatus:
        """Return how it stands with a room."""
        now = self.reactor.seconds()
        since = self._rooms.since(room, now)
        if since is None:
            return RoomStatus(room, RoomState.UNKNOWN)
        link = self._rooms.get(room)
        state = RoomState.AWAY
        if link is not None and link.is_attached:
            state = RoomState.ONLINE
        elif link is not None and link.is_resuming:
            state = RoomState.RESUMING
        return RoomStatus(room, state, now - since)

    async def answer(
        self,
        request: Request,
        route: Route,
        door: ProtocolSwitch,
        admit: Callable[[Request, Route], Awaitable[Grant | None]],
        grants: ActiveGrants | None,
    ) -> bytes | None:
        """Answer one request for a status, or take its connection over to watch the room.

        Args:
            request: What `is_status` said yes to; of any method.
            route: Where it leads.
            door: The connection.
            admit: Makes the checks that a client of the room has to pass, and returns its grant.
            grants: Where a watcher is noted that came in on a token.

        Returns:
            The answer, to a GET; None if the connection was handed over.

        Raises:
            Refusal: One of ``admit``; 429, as many watch as may; 503, the relay is stopping.
        """
        check_origin(request, self._settings.origins)
        sharing = cors_fields(request, self._settings.origins)
        if request.method == b"OPTIONS":
            door.hand_over(LingeringClose(self.reactor, preflight_response(sharing)))
            return None
        try:
            grant = await admit(request, route)
            if request.method == b"GET" and wants_events(request):
                self._watch(route.room, door, sharing, grant, grants)
                return None
        except Refusal as refusal:
            # Whoever may ask here may also read why it is told nothing.
            headers = (*sharing, *refusal.headers)
            raise Refusal(refusal.status, refusal.sentence, code=refusal.code, headers=headers) from refusal
        content = self.status(route.room).to_json()
        return plain_response(200, content, content_type=b"application/json", headers=sharing)

    def _watch(
        self,
        room: str,
        door: ProtocolSwitch,
        sharing: Fields,
        grant: Grant | None,
        grants: ActiveGrants | None,
    ) -> None:
        if self._is_closed:
            sentence = "This relay is stopping; try again."
            raise Refusal(503, sentence, code="relay_stopping", headers=(RETRY_AFTER,))
        of_room = len(self._watchers.get(room, ()))
        if self._count >= self._most or of_room >= self._settings.watchers_per_room:
            sentence = "As many watch this room, or this relay, as may; ask again later."
            raise Refusal(429, sentence, code="watchers_full", headers=(RETRY_AFTER,))
        head = event_stream_head(sharing) + b"retry: %d\n\n" % self._random(*RETRY_MILLISECONDS)
        watcher = Watcher(self, room, door, head)
        if grant is not None and grants is not None:
            # Not one of the connections that the token bounds: a page has one of each kind.
            handle = grants.add(grant, watcher.end, is_counted=False)
            watcher.on_end = lambda: grants.remove(handle)
        door.hand_over(watcher)

    def open(self) -> None:
        """Take watchers, also after ``close``; it begins open."""
        self._is_closed = False

    def close(self) -> None:
        """End every watcher, and take no other: the relay is stopping."""
        self._is_closed = True
        for of_room in list(self._watchers.values()):
            for watcher in list(of_room):
                watcher.end("")

    def add(self, watcher: Watcher) -> None:
        """Count a watcher in; it calls this itself."""
        self._watchers.setdefault(watcher.room, {})[watcher] = None
        self._count += 1

    def remove(self, watcher: Watcher) -> None:
        """Count a watcher out; it calls this itself, once."""
        of_room = self._watchers[watcher.room]
        del of_room[watcher]
        if not of_room:
            del self._watchers[watcher.room]
        self._count -= 1

    def _tell(self, room: str) -> None:
        for watcher in list(self._watchers.get(room, ())):
            watcher.look()


@implementer(IHalfCloseableProtocol, IPushProducer)
class Watcher(Protocol):
    """One stream of events. Made by ``Presence.answer``."""

    def __init__(self, presence: Presence, room: str, door: ProtocolSwitch, head: bytes) -> None:
        self.room = room
        self._presence = presence
        self._door = door
        self._head = head
        self.on_end: Callable[[], None] = lambda: None
        self._told: RoomState | None = None
        self._timer: IDelayedCall | None = None
        self._is_over = False

    def look(self) -> None:
        """Tell how it stands, if that is another state than was told last."""
        status = self._presence.status(self.room)
        if status.state is not self._told and not self._is_over:
            self._told = status.state
            self._leg.write(b"data: " + status.to_json() + b"\n\n")

    def end(self, sentence: str) -> None:
        """It is over: the token is no longer good, or the relay is stopping. The page may ask again."""
        if not self._is_over:
            self._stop()
            self._leg.unregisterProducer()
            self._door.hand_over(LingeringClose(self._presence.reactor, b""))

    # -- IProtocol -------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Say hello and tell how it stands."""
        self._presence.add(self)
        self._leg.registerProducer(self, True)
        self._leg.write(self._head)
        self.look()
        self._beat_later()

    def dataReceived(self, data: bytes) -> None:
        """Whoever watches has nothing to say."""
        # Here and below the relay itself is the server, and what is cut off is a stream of status objects
        # that EventSource asks for again.
        self._leg.abortConnection()

    def readConnectionLost(self) -> None:
        """It does not listen any more, either: no browser closes half of a connection."""
        self._leg.abortConnection()

    def writeConnectionLost(self) -> None:
        """We never end our side alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has gone."""
        self._stop()

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """It does not read what it is told, for a long time now: the kernel's buffers are full, and ours."""
        self._leg.abortConnection()

    def resumeProducing(self) -> None:
        """Never called: it is cut when it is full."""

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""

    # -- inside ----------------------------------------------------------------------------

    @property
    def _leg(self) -> Leg:
        return cast(Leg, self._door.transport)

    def _beat_later(self) -> None:
        self._timer = self._presence.reactor.callLater(HEARTBEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        self._beat_later()
        self._leg.write(b":\n\n")
        self.look()  # a room that is known no more changes without anybody's doing

    def _stop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._presence.remove(self)
        self.on_end()
