"""What happens, as server-sent events: for the dashboard, and for programs that would rather not poll.

A witness that writes each event to those who watch and may see it; without anybody watching it does nothing.
Once a second they all get the figures, those rooms of theirs that have the most clients, and a look at
whether their token is still good. Watchers are bounded in number, and one that does not read is cut.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from seance.admin.room_registry import RoomRegistry
from seance.core.interfaces import Client, ClientReport, Grant, LinkChange
from seance.core.observers import NullObserver
from seance.errors import Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.web.http import Request

    from seance.relay.edge.client_connection import ClientConnection

__all__ = ["EVENTS", "MOST_WATCHERS", "Feed"]

EVENTS = ("room", "client", "limit", "figures", "rooms")
"""The names of the events."""

MOST_WATCHERS = 32
LOOK_SECONDS = 1.0
ROOMS_SHOWN = 50
MOST_AWAY = 4096
RETRY_MILLISECONDS = 2000


class Feed(NullObserver):
    """A ``Observer``. ``add`` watchers, ``close`` at the end.

    Args:
        reactor: The relay's.
        registry: Who knows the rooms.
        figures: Returns the figures of the moment.
        is_still_good: Whether a watcher may go on.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        registry: RoomRegistry,
        figures: Callable[[], dict[str, object]],
        is_still_good: Callable[[Grant], bool],
    ) -> None:
        self._reactor = reactor
        self._census = registry
        self._figures = figures
        self._is_still_good = is_still_good
        self._watchers: dict[_Watcher, None] = {}
        self._away: OrderedDict[str, None] = OrderedDict()
        self._limits: dict[str, int] = {}
        self._call: IDelayedCall | None = None

    @property
    def watcher_count(self) -> int:
        """Those who watch now."""
        return len(self._watchers)

    def add(self, request: Request, grant: Grant) -> None:
        """Let somebody watch; ``request`` is this feed's from now on.

        Raises:
            Refusal: 429, as many watch as may.
        """
        if not self._watchers:
            self._forget_gone()  # what nobody saw leave, nobody is told of
        if len(self._watchers) >= MOST_WATCHERS:
            sentence = "As many watch this relay as may; close another dashboard first."
            raise Refusal(429, sentence, code="admin_watchers", headers=((b"Retry-After", b"5"),))
        watcher = _Watcher(self, request, grant)
        self._watchers[watcher] = None
        watcher.start()
        self._tell_figures([watcher])
        if self._call is None:
            self._call = self._reactor.callLater(LOOK_SECONDS, self._look)

    def remove(self, watcher: _Watcher) -> None:
        """Forget a watcher; it calls this itself."""
        self._watchers.pop(watcher, None)
        if not self._watchers and self._call is not None:
            self._call.cancel()
            self._call = None

    def close(self) -> None:
        """Send everybody home."""
        for watcher in list(self._watchers):
            watcher.end()

    # -- Observer ---------------------------------------------------------------------------

    def refused(self, code: str) -> None:
        """Refusals are in the figures: a crowd that is refused would be a crowd of events."""

    def limit_hit(self, limit: str) -> None:
        """Tell the first at once, and how many more there were with the next figures: an attack hits many."""
        if not self._watchers:
            return
        if limit in self._limits:
            self._limits[limit] += 1
        else:
            self._limits[limit] = 0
            self._tell("limit", None, {"limit": limit, "count": 1})

    def client_joined(self, client: Client, seconds: float) -> None:
        """See ``Observer``."""
        self._tell_client(client, {"state": "in", "upgrade_seconds": round(seconds, 6)})

    def client_ended(self, client: Client, report: ClientReport) -> None:
        """See ``Observer``."""
        if cast("ClientConnection", client).upgrade_seconds is not None:
            content = {
                "state": "out",
                "reason": report.reason,
                "seconds": round(report.seconds, 3),
                "received_bytes": report.received_bytes,
                "sent_bytes": report.sent_bytes,
            }
            self._tell_client(client, content)

    def link_changed(self, room: str, change: LinkChange, reason: str = "") -> None:
        """See ``Observer``."""
        if change is LinkChange.LOST:
            if reason != "replaced":
                self._away[room] = None
                self._away.move_to_end(room)
                if len(self._away) > MOST_AWAY:
                    self._away.popitem(last=False)
                self._tell("room", room, {"room": room, "state": "away", "reason": reason})
            return
        self._away.pop(room, None)
        state = "resuming" if change is LinkChange.DETACHED else "online"
        self._tell("room", room, {"room": room, "state": state, "reason": change.value})

    # -- inside ----------------------------------------------------------------------------

    def _tell_client(self, client: Client, content: dict[str, object]) -> None:
        number = cast("ClientConnection", client).number
        self._tell("client", client.room, {"room": client.room, "client": number, **content})

    def _tell(self, event: str, room: str | None, content: dict[str, object]) -> None:
        if not self._watchers:
            return
        message = _event(event, content)
        for watcher in list(self._watchers):
            if room is None or watcher.grant.allows_room(room):
                watcher.write(message)

    def _look(self) -> None:
        self._call = self._reactor.callLater(LOOK_SECONDS, self._look)
        for room in self._forget_gone():
            self._tell("room", room, {"room": room, "state": "gone", "reason": ""})
        limits, self._limits = self._limits, {}
        for limit, count in limits.items():
            if count:
                self._limits[limit] = 0
                self._tell("limit", None, {"limit": limit, "count": count})
        for watcher in list(self._watchers):
            if not self._is_still_good(watcher.grant):
                watcher.end()
        self._tell_figures(list(self._watchers))

    def _forget_gone(self) -> list[str]:
        gone = []
        # All are known equally long, so the first is always the next to be forgotten.
        while self._away and not self._census.is_known(room := next(iter(self._away))):
            del self._away[room]
            gone.append(room)
        return gone

    def _tell_figures(self, watchers: list[_Watcher]) -> None:
        figures = _event("figures", self._figures())
        rooms: dict[tuple[str, ...], bytes] = {}
        for watcher in watchers:
            seen = watcher.grant.rooms
            if seen not in rooms:
                rooms[seen] = _event("rooms", {"rooms": self._census.busiest(watcher.grant, ROOMS_SHOWN)})
            watcher.write((figures if "*" in seen else b"") + rooms[seen])


def _event(name: str, content: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()


@implementer(IPushProducer)
class _Watcher:
    """One who watches."""

    def __init__(self, feed: Feed, request: Request, grant: Grant) -> None:
        self.grant = grant
        self._feed = feed
        self._request: Any = request
        self._is_over = False

    def start(self) -> None:
        request = self._request
        request.notifyFinish().addBoth(lambda _: self._stop())
        request.setHeader(b"content-type", b"text/event-stream")
        request.registerProducer(self, True)
        request.write(b"retry: %d\n\n" % RETRY_MILLISECONDS)

    def write(self, message: bytes) -> None:
        if not self._is_over and message:
            self._request.write(message)

    def end(self) -> None:
        """The stream ends; a browser asks again, and is then told why not."""
        if not self._is_over:
            self._stop()
            self._request.unregisterProducer()
            self._request.finish()

    def pauseProducing(self) -> None:
        """It has not read for a long time: the kernel's buffers are full."""
        if not self._is_over:
            self._stop()
            self._request.channel.cut()

    def resumeProducing(self) -> None:
        """Never called: it is cut when it is full."""

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._stop()

    def _stop(self) -> None:
        self._is_over = True
        self._feed.remove(self)
