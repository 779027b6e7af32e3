"""The status of a room for web pages: one response, or a stream of events.

A browser hides why a WebSocket could not be opened, and an open WebSocket does not show that its agent is
away. So a page requests ``/c/ID/status`` and gets one JSON object, or with ``Accept: text/event-stream`` one
for each change (``new EventSource(url)``), with comments in between so that proxies do not close an idle
connection. A status request has to pass the checks of a client. An *upgrade* to that address belongs to the
app and goes through the tunnel.

The number of watchers is limited. A watcher that does not read is cut when its transport is full.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import randint
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.core.lingering_close import LingeringClose
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
from seance.relay.refusals import refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.core.interfaces import Grant
    from seance.heads.fields import Fields
    from seance.relay.context import RelayContext
    from seance.relay.rooms.directory import RoomDirectory, RoomState

__all__ = ["Presence", "Watcher", "is_status", "wants_events"]

HEARTBEAT_SECONDS = 15.0
"""Interval of comments. Proxies close an idle connection after a minute, some after half a minute."""

RETRY_MILLISECONDS = (2000, 5000)
"""Bounds of the delay after which a browser asks again; random for each, so that a crowd does not ask at the
same moment."""


def is_status(request: Request, route: Route) -> bool:
    """Whether a request is for the status of its room and not for a WebSocket at that path."""
    is_there = route.kind is RouteKind.CLIENT and route.local.partition(b"?")[0] == b"/status"
    # Other upgrade offers are ignored (RFC 9110, 7.8), for example h2c by Java's client and curl --http2.
    return is_there and not is_upgrade(request.headers)


def wants_events(request: Request) -> bool:
    """Whether a request accepts a stream of events."""
    return any(b"text/event-stream" in value.lower() for value in request.values(b"accept"))


class Presence:
    """Answers status requests, and notifies watchers.

    Args:
        context: The context of the relay.
        rooms: Which agent serves which room.
        max_watchers: Limit of watchers, if that is less than ``watchers``.
        random: Returns an integer between two bounds, both included; for ``retry``.
    """

    def __init__(
        self,
        context: RelayContext,
        rooms: RoomDirectory,
        *,
        max_watchers: int | None = None,
        random: Callable[[int, int], int] = randint,
    ) -> None:
        self.reactor = context.reactor
        self._context = context
        self._settings = settings = context.settings
        self._max_watchers = min(
            settings.watchers, settings.watchers if max_watchers is None else max_watchers
        )
        self._rooms = rooms
        self.status = rooms.status
        self._random = random
        self._watchers: dict[str, dict[Watcher, None]] = {}
        self._count = 0
        self._is_closed = False
        rooms.on_change(self._notify)

    @property
    def watcher_count(self) -> int:
        """The number of watchers of all rooms."""
        return self._count

    async def answer(
        self,
        request: Request,
        route: Route,
        switch: ProtocolSwitch,
        admit: Callable[[Request, Route], Awaitable[Grant | None]],
    ) -> bytes | None:
        """Answer a status request, or hand its connection to a watcher.

        Args:
            request: A request for which ``is_status`` is true; of any method.
            route: Its route.
            switch: The protocol of the connection.
            admit: Makes the checks of a client of the room, and returns its grant.

        Returns:
            The response to a GET; None if the connection was handed over.

        Raises:
            Refusal: Raised by ``admit``; 429, too many watchers; 503, the relay is stopping.
        """
        check_origin(request, self._settings.origins)
        sharing = cors_fields(request, self._settings.origins)
        if request.method == b"OPTIONS":
            switch.hand_over(LingeringClose(self.reactor, preflight_response(sharing)))
            return None
        try:
            grant = await admit(request, route)
            if request.method == b"GET" and wants_events(request):
                self._watch(route.room, switch, sharing, grant)
                return None
        except Refusal as refused:
            # A page that may send this request may also read the reason of its refusal.
            headers = (*sharing, *refused.headers)
            raise Refusal(refused.status, refused.message, code=refused.code, headers=headers) from refused
        content = self._rooms.status(route.room).to_json()
        return plain_response(200, content, content_type=b"application/json", headers=sharing)

    def _watch(
        self,
        room: str,
        switch: ProtocolSwitch,
        sharing: Fields,
        grant: Grant | None,
    ) -> None:
        if self._is_closed:
            raise refusal("relay_stopping")
        of_room = len(self._watchers.get(room, ()))
        if self._count >= self._max_watchers or of_room >= self._settings.watchers_per_room:
            raise refusal("watchers_full")
        head = event_stream_head(sharing) + b"retry: %d\n\n" % self._random(*RETRY_MILLISECONDS)
        watcher = Watcher(self, room, switch, head)
        grants = self._context.grants
        if grant is not None and grants is not None:
            # Not counted towards the limit of the token: a page has a watcher and a client.
            watcher.on_end = grants.add(grant, watcher.end, is_counted=False).release
        switch.hand_over(watcher)

    def open(self) -> None:
        """Accept watchers again after ``close``."""
        self._is_closed = False

    def close(self) -> None:
        """End every watcher and accept no other: the relay is stopping."""
        self._is_closed = True
        for of_room in list(self._watchers.values()):
            for watcher in list(of_room):
                watcher.end("")

    def add(self, watcher: Watcher) -> None:
        """Add a watcher; only ``Watcher`` calls this."""
        self._watchers.setdefault(watcher.room, {})[watcher] = None
        self._count += 1

    def remove(self, watcher: Watcher) -> None:
        """Remove a watcher; only ``Watcher`` calls this, once."""
        of_room = self._watchers[watcher.room]
        del of_room[watcher]
        if not of_room:
            del self._watchers[watcher.room]
        self._count -= 1

    def _notify(self, room: str) -> None:
        for watcher in list(self._watchers.get(room, ())):
            watcher.send_status()


@implementer(IHalfCloseableProtocol, IPushProducer)
class Watcher(Protocol):
    """One stream of events. Made by ``Presence.answer``."""

    def __init__(self, presence: Presence, room: str, switch: ProtocolSwitch, head: bytes) -> None:
        self.room = room
        self._presence = presence
        self._switch = switch
        self._head = head
        self.on_end: Callable[[], None] = lambda: None
        self._sent_state: RoomState | None = None
        self._timer: IDelayedCall | None = None
        self._is_over = False

    def send_status(self) -> None:
        """Send the status, if its state differs from the last one sent."""
        status = self._presence.status(self.room)
        if status.state is not self._sent_state and not self._is_over:
            self._sent_state = status.state
            self._leg.write(b"data: " + status.to_json() + b"\n\n")

    def end(self, message: str) -> None:
        """End the stream: the token is invalid now, or the relay stops. A page may ask again."""
        if not self._is_over:
            self._stop()
            self._leg.unregisterProducer()
            self._switch.hand_over(LingeringClose(self._presence.reactor, b""))

    # -- IProtocol -------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Send the head and the first status."""
        self._presence.add(self)
        self._leg.registerProducer(self, True)
        self._leg.write(self._head)
        self.send_status()
        self._schedule_heartbeat()

    def dataReceived(self, data: bytes) -> None:
        """Cut a watcher that sends data."""
        # Here and below the relay is the server, and EventSource requests the stream again after a cut.
        self._leg.abortConnection()

    def readConnectionLost(self) -> None:
        """Cut: no browser closes half of a connection."""
        self._leg.abortConnection()

    def writeConnectionLost(self) -> None:
        """Not used: the relay ends both directions together."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remove the watcher."""
        self._stop()

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Cut a watcher that has not read for a long time: all buffers are full."""
        self._leg.abortConnection()

    def resumeProducing(self) -> None:
        """Not used: a full watcher is cut."""

    def stopProducing(self) -> None:
        """Not used: ``connectionLost`` follows."""

    # -- inside ----------------------------------------------------------------------------

    @property
    def _leg(self) -> Leg:
        return cast(Leg, self._switch.transport)

    def _schedule_heartbeat(self) -> None:
        self._timer = self._presence.reactor.callLater(HEARTBEAT_SECONDS, self._send_heartbeat)

    def _send_heartbeat(self) -> None:
        self._schedule_heartbeat()
        self._leg.write(b":\n\n")
        self.send_status()  # a room becomes unknown after a time, without an event

    def _stop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._presence.remove(self)
        self.on_end()
