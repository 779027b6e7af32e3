"""A bounded queue of clients with an absent agent, released one after the other when it is back.

A Yjs client that is refused connects again within 2.5 s, without jitter: a thousand clients of a host whose
Wi-Fi is down are 400 upgrades a second, in phase. A client whose upgrade is not answered waits: browsers keep
a pending upgrade open without a retry, Firefox for 20 s. A waiting client costs a descriptor and some
kilobytes, and is served as soon as the agent is back.

Clients are not released all together, because each costs the agent a connection and the local server a
handshake. They are released in the order of arrival; rooms that are back at the same time take turns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from seance.core.settings import RelaySettings
from seance.relay.refusals import refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.errors import Refusal

__all__ = ["AgentWaitQueue"]

RELEASE_SECONDS = 0.005
"""Time between two releases, for the whole relay: 200 clients a second. The 256 clients of a plain agent are
connected after 1.3 s; an upgrade takes about a millisecond of each process on the path."""


@dataclass(eq=False, slots=True)
class _WaitingClient:
    room: str
    until_seconds: float
    waiting: Deferred[None]


class AgentWaitQueue:
    """The clients of one relay that wait for an agent.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        settings: The settings of the relay: ``parked``, ``parked_per_room``, ``park_seconds``.
        is_back: Returns whether the clients of a room can be served now.
        max_waiting: Clients that may wait, if that is less than ``parked``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        is_back: Callable[[str], bool],
        *,
        max_waiting: int | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._max_waiting = min(settings.parked, settings.parked if max_waiting is None else max_waiting)
        self._is_back = is_back
        self._waiting: OrderedDict[_WaitingClient, None] = OrderedDict()
        self._rooms: dict[str, OrderedDict[_WaitingClient, None]] = {}
        self._returning: OrderedDict[str, None] = OrderedDict()
        self._deadline: IDelayedCall | None = None
        self._release: IDelayedCall | None = None
        self._is_closed = False

    def __len__(self) -> int:
        """The number of waiting clients."""
        return len(self._waiting)

    def open(self) -> None:
        """Accept clients again after ``close``. A new queue is open."""
        self._is_closed = False

    def close(self) -> None:
        """Refuse all waiting clients and all later ones: the relay is stopping."""
        self._is_closed = True
        while self._waiting:
            self._refuse(next(iter(self._waiting)), refusal("relay_stopping"))

    def has_space_for(self, room: str) -> bool:
        """Whether one more client of a room may wait."""
        of_room = len(self._rooms.get(room, ()))
        return len(self._waiting) < self._max_waiting and of_room < self._settings.parked_per_room

    def when_back(self, room: str, since_seconds: float | None = None) -> Deferred[None]:
        """Wait until a room can be served. Cancelling leaves the queue.

        Args:
            room: The room.
            since_seconds: When the client began to wait, by the reactor's clock; None for now.

        Returns:
            Fires when ``is_back(room)`` and it is this client's turn. Fails with ``Refusal``, 503 with
            ``Retry-After``: ``agent_away`` after ``park_seconds``, ``parking_full`` immediately if the queue
            is full, ``relay_stopping`` when the relay stops.
        """
        if self._is_closed:
            return fail(refusal("relay_stopping"))
        if not self.has_space_for(room):
            return fail(refusal("parking_full"))
        until = self._reactor.seconds() + self._settings.park_seconds
        client = _WaitingClient(room, until, Deferred(lambda _: self._leave(client)))
        self._waiting[client] = None
        self._rooms.setdefault(room, OrderedDict())[client] = None
        self._arm_timeout()
        if since_seconds is not None:
            left_seconds = since_seconds + self._settings.park_seconds - self._reactor.seconds()
            client.waiting.addTimeout(max(0.0, left_seconds), self._reactor, self._timed_out)
        return client.waiting

    def note_back(self, room: str) -> None:
        """Release the clients of a room that has its agent again, in their turn."""
        if room in self._rooms:
            self._returning[room] = None
            if self._release is None:
                self._release = self._reactor.callLater(RELEASE_SECONDS, self._release_next)

    # -- inside ----------------------------------------------------------------------------

    def _release_next(self) -> None:
        self._release = None
        while self._returning:
            room, _ = self._returning.popitem(last=False)
            # If the agent has left again, the remaining clients wait for the rest of their time.
            if room in self._rooms and self._is_back(room):
                break
        else:
            return
        client = next(iter(self._rooms[room]))
        self._leave(client)
        if room in self._rooms:
            self._returning[room] = None
        if self._returning:
            self._release = self._reactor.callLater(RELEASE_SECONDS, self._release_next)
        client.waiting.callback(None)

    def _leave(self, client: _WaitingClient) -> None:
        del self._waiting[client]
        of_room = self._rooms[client.room]
        del of_room[client]
        if not of_room:
            del self._rooms[client.room]
            self._returning.pop(client.room, None)
        if not self._waiting:
            for timer in (self._deadline, self._release):
                if timer is not None:
                    timer.cancel()
            self._deadline = self._release = None

    def _arm_timeout(self) -> None:
        # All clients wait equally long, so the first one always times out next.
        if self._deadline is None and self._waiting:
            seconds = next(iter(self._waiting)).until_seconds - self._reactor.seconds()
            self._deadline = self._reactor.callLater(max(0.0, seconds), self._refuse_overdue)

    def _refuse_overdue(self) -> None:
        self._deadline = None
        now = self._reactor.seconds()
        while self._waiting and (client := next(iter(self._waiting))).until_seconds <= now:
            self._refuse(client, refusal("agent_away"))
        self._arm_timeout()

    def _timed_out(self, result: object, seconds: float) -> object:
        if isinstance(result, Failure):
            raise refusal("agent_away")
        return result

    def _refuse(self, client: _WaitingClient, error: Refusal) -> None:
        self._leave(client)
        client.waiting.errback(error)
