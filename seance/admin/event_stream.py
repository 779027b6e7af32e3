"""Server-sent events of a relay, for the dashboard and other programs.

An observer that writes each event to the subscribers with permission for its room. Without subscribers it
does nothing. Every second, each subscriber receives the figures and its rooms with the most clients, and is
disconnected if its token has become invalid. The number of subscribers is limited, and one that does not read
is disconnected.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from seance.admin.room_registry import RoomRegistry
from seance.core.events import Client, ClientEnded, ClientJoined, Event, LimitHit, LinkChange, LinkChanged
from seance.core.interfaces import Grant
from seance.heads.refusals import refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.http import Request

    from seance.relay.edge.client_connection import ClientConnection

__all__ = ["EVENTS", "MAX_SUBSCRIBERS", "EventStream"]

EVENTS = ("room", "client", "limit", "figures", "rooms")
"""The names of the events."""

MAX_SUBSCRIBERS = 32
UPDATE_SECONDS = 1.0
MAX_ROOMS = 50
"""Rooms in a ``rooms`` event."""

MAX_AWAY_ROOMS = 4096
"""Limit of rooms that have lost their agent and will get the state "gone" later."""

RETRY_MILLISECONDS = 2000


class EventStream:
    """An observer of a relay. Call ``add`` for each subscriber and ``close`` at the end.

    Args:
        reactor: The relay's reactor.
        registry: Describes the rooms.
        figures: Returns the current figures.
        is_still_good: Whether a subscriber's grant is still valid.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: RoomRegistry,
        figures: Callable[[], dict[str, object]],
        is_still_good: Callable[[Grant], bool],
    ) -> None:
        self._reactor = reactor
        self._registry = registry
        self._figures = figures
        self._is_still_good = is_still_good
        self._subscribers: dict[_Subscriber, None] = {}
        self._away: OrderedDict[str, None] = OrderedDict()
        self._limits: dict[str, int] = {}
        self._call: IDelayedCall | None = None

    @property
    def subscriber_count(self) -> int:
        """The number of subscribers."""
        return len(self._subscribers)

    def add(self, request: Request, grant: Grant) -> None:
        """Add a subscriber. The response to ``request`` is written here until it ends.

        Raises:
            Refusal: 429 if there are ``MAX_SUBSCRIBERS`` already.
        """
        if not self._subscribers:
            self._pop_unknown()  # rooms that have gone before this subscriber are not reported
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise refusal("admin_watchers")
        subscriber = _Subscriber(self, request, grant)
        self._subscribers[subscriber] = None
        subscriber.start()
        self._send_figures([subscriber])
        if self._call is None:
            self._call = self._reactor.callLater(UPDATE_SECONDS, self._update)

    def remove(self, subscriber: _Subscriber) -> None:
        """Remove a subscriber; it calls this itself."""
        self._subscribers.pop(subscriber, None)
        if not self._subscribers and self._call is not None:
            self._call.cancel()
            self._call = None

    def close(self) -> None:
        """End all streams."""
        for subscriber in list(self._subscribers):
            subscriber.end()

    def notify(self, event: Event) -> None:
        """Send an event to the subscribers.

        Refusals are not sent: the figures count them, and an attack would cause one event for each.
        """
        match event:
            case LimitHit(limit) if self._subscribers:
                self._send_limit(limit)
            case ClientJoined(client, seconds):
                self._send_client(client, {"state": "in", "upgrade_seconds": round(seconds, 6)})
            case ClientEnded(client, reason, seconds):
                if cast("ClientConnection", client).upgrade_seconds is not None:
                    content = {
                        "state": "out",
                        "reason": reason,
                        "seconds": round(seconds, 3),
                        "received_bytes": client.received_bytes,
                        "sent_bytes": client.sent_bytes,
                    }
                    self._send_client(client, content)
            case LinkChanged(room, change, reason):
                self._send_room(room, change, reason)

    # -- internal ----------------------------------------------------------------------------

    def _send_limit(self, limit: str) -> None:
        """Send the first hit of a limit immediately; further ones are counted and sent once a second."""
        if limit in self._limits:
            self._limits[limit] += 1
        else:
            self._limits[limit] = 0
            self._send("limit", None, {"limit": limit, "count": 1})

    def _send_room(self, room: str, change: LinkChange, reason: str) -> None:
        if change is LinkChange.LOST:
            if reason != "replaced":
                self._away[room] = None
                self._away.move_to_end(room)
                if len(self._away) > MAX_AWAY_ROOMS:
                    self._away.popitem(last=False)
                self._send("room", room, {"room": room, "state": "away", "reason": reason})
            return
        self._away.pop(room, None)
        state = "resuming" if change is LinkChange.DETACHED else "online"
        self._send("room", room, {"room": room, "state": state, "reason": change.value})

    def _send_client(self, client: Client, content: dict[str, object]) -> None:
        number = cast("ClientConnection", client).number
        self._send("client", client.room, {"room": client.room, "client": number, **content})

    def _send(self, event: str, room: str | None, content: dict[str, object]) -> None:
        if not self._subscribers:
            return
        message = _event(event, content)
        for subscriber in list(self._subscribers):
            if room is None or subscriber.grant.allows_room(room):
                subscriber.write(message)

    def _update(self) -> None:
        self._call = self._reactor.callLater(UPDATE_SECONDS, self._update)
        for room in self._pop_unknown():
            self._send("room", room, {"room": room, "state": "gone", "reason": ""})
        limits, self._limits = self._limits, {}
        for limit, count in limits.items():
            if count:
                self._limits[limit] = 0
                self._send("limit", None, {"limit": limit, "count": count})
        for subscriber in list(self._subscribers):
            if not self._is_still_good(subscriber.grant):
                subscriber.end()
        self._send_figures(list(self._subscribers))

    def _pop_unknown(self) -> list[str]:
        """Remove and return the rooms without an agent that the relay no longer remembers."""
        gone = []
        # The relay remembers each room equally long, so the oldest is the first to become unknown.
        while self._away and not self._registry.is_known(room := next(iter(self._away))):
            del self._away[room]
            gone.append(room)
        return gone

    def _send_figures(self, subscribers: list[_Subscriber]) -> None:
        figures = _event("figures", self._figures())
        rooms: dict[tuple[str, ...], bytes] = {}
        for subscriber in subscribers:
            allowed = subscriber.grant.rooms
            if allowed not in rooms:
                busiest = self._registry.busiest(subscriber.grant, MAX_ROOMS)
                rooms[allowed] = _event("rooms", {"rooms": busiest})
            subscriber.write((figures if "*" in allowed else b"") + rooms[allowed])


def _event(name: str, content: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


@implementer(IPushProducer)
class _Subscriber:
    """One open response."""

    def __init__(self, events: EventStream, request: Request, grant: Grant) -> None:
        self.grant = grant
        self._events = events
        self._request: Any = request
        self._has_ended = False

    def start(self) -> None:
        request = self._request
        request.notifyFinish().addBoth(lambda _: self._stop())
        request.setHeader(b"content-type", b"text/event-stream")
        request.registerProducer(self, True)
        request.write(b"retry: %d\n\n" % RETRY_MILLISECONDS)

    def write(self, message: bytes) -> None:
        if not self._has_ended and message:
            self._request.write(message)

    def end(self) -> None:
        """End the response; a browser sends a new request and gets the reason."""
        if not self._has_ended:
            self._stop()
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        """Close the connection: the buffers are full because the subscriber does not read."""
        if not self._has_ended:
            self._stop()
            self._request.channel.cut()

    def resumeProducing(self) -> None:
        """Not called: a paused subscriber is disconnected."""

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._stop()

    def _stop(self) -> None:
        self._has_ended = True
        self._events.remove(self)
