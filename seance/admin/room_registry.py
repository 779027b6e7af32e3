"""Who is there: rooms and their clients, for those who may see them; and the hand that sends them away.

A witness, because links come and go beneath a room while its figures go on. Forgets a room when neither its
agent nor a client of it is there, so it is as large as the relay is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IReactorTime

from seance.core.interfaces import Client, ClientReport, Grant, LinkChange
from seance.core.observers import NullObserver

if TYPE_CHECKING:
    from seance.relay.edge.client_connection import ClientConnection
    from seance.relay.service import Relay

__all__ = ["RoomRegistry"]

CLOSED = "An operator has closed this room."
SENT_AWAY = "An operator has sent this client away."


@dataclass(slots=True)
class _Room:
    clients: dict[int, Client] = field(default_factory=dict)
    received_bytes: int = 0
    sent_bytes: int = 0
    is_served: bool = False


class RoomRegistry(NullObserver):
    """A ``Observer``. Make it, give it to the relay, then ``watch`` that.

    Args:
        reactor: The relay's.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._relay: Relay | None = None
        self._rooms: dict[str, _Room] = {}

    def watch(self, relay: Relay) -> None:
        """Ask this relay from now on."""
        self._relay = relay

    # -- Observer ---------------------------------------------------------------------------

    def client_began(self, client: Client) -> None:
        """See ``Observer``."""
        room = self._rooms.setdefault(client.room, _Room())
        room.clients[cast("ClientConnection", client).number] = client

    def client_ended(self, client: Client, report: ClientReport) -> None:
        """See ``Observer``."""
        room = self._rooms[client.room]
        del room.clients[cast("ClientConnection", client).number]
        room.received_bytes += report.received_bytes
        room.sent_bytes += report.sent_bytes
        self._forget(client.room, room)

    def link_changed(self, room: str, change: LinkChange, reason: str = "") -> None:
        """See ``Observer``."""
        if change is LinkChange.ATTACHED:
            self._rooms.setdefault(room, _Room()).is_served = True
        elif change is LinkChange.LOST and (known := self._rooms.get(room)):
            # One that is replaced goes before the one that comes, and that one might never come up.
            link = None if self._relay is None else self._relay.rooms.link_of(room)
            known.is_served = link is not None and link.is_alive
            self._forget(room, known)

    # -- what there is ---------------------------------------------------------------------

    def names(self, grant: Grant, after: str = "") -> list[str]:
        """Return the rooms that are served and may be seen, in order, from behind ``after`` on."""
        served = (name for name, room in self._rooms.items() if room.is_served and name > after)
        return sorted(name for name in served if grant.allows_room(name))

    def busiest(self, grant: Grant, most: int) -> list[dict[str, object]]:
        """Return the rooms with the most clients, at most so many."""
        names = self.names(grant)
        names.sort(key=lambda name: -len(self._rooms[name].clients))
        return self.rooms(names[:most])

    def rooms(self, names: Iterable[str]) -> list[dict[str, object]]:
        """Return what may be said about rooms that ``names`` gave."""
        return [self._describe(name) for name in names if name in self._rooms]

    def room(self, name: str, grant: Grant, most: int) -> dict[str, object] | None:
        """Return a room with its clients, at most so many; None if it is not served, or not to be seen."""
        room = self._rooms.get(name)
        if room is None or not room.is_served or not grant.allows_room(name):
            return None
        clients = list(room.clients.values())[:most]
        return {**self._describe(name), "list": [self._describe_client(client) for client in clients]}

    def is_known(self, room: str) -> bool:
        """Whether a room is served, or has been lately."""
        return self._relay is not None and self._relay.rooms.is_known(room)

    # -- sending away ----------------------------------------------------------------------

    def close_room(self, name: str, grant: Grant) -> bool:
        """Send the agent of a room away, and its clients; False if there is none to be seen."""
        if self._relay is None or not grant.allows_room(name):
            return False
        return self._relay.rooms.close_room(name, CLOSED)

    def close_client(self, name: str, number: int, grant: Grant) -> bool:
        """Send a client away; False if there is none to be seen."""
        room = self._rooms.get(name)
        client = None if room is None or not grant.allows_room(name) else room.clients.get(number)
        if client is None:
            return False
        cast("ClientConnection", client).end(SENT_AWAY)
        return True

    # -- inside ----------------------------------------------------------------------------

    def _describe(self, name: str) -> dict[str, object]:
        room = self._rooms[name]
        relay = cast("Relay", self._relay)
        status = relay.rooms.status(name)
        link = relay.rooms.link_of(name)
        trip = None if link is None else link.round_trip_seconds
        clients = room.clients.values()
        return {
            "room": name,
            "state": status.state.value,
            "since_seconds": round(status.since or 0.0, 1),
            "clients": len(clients),
            "received_bytes": room.received_bytes + sum(client.received_bytes for client in clients),
            "sent_bytes": room.sent_bytes + sum(client.sent_bytes for client in clients),
            "kept_bytes": 0 if link is None else link.kept_bytes,
            "round_trip_seconds": None if trip is None else round(trip, 6),
            "agent_address": "" if link is None else link.address,
        }

    def _describe_client(self, client: Client) -> dict[str, object]:
        leg = cast("ClientConnection", client)
        return {
            "client": leg.number,
            "address": leg.address,
            "state": "pending" if leg.upgrade_seconds is None else "joined",
            "seconds": round(self._reactor.seconds() - leg.began_seconds, 1),
            "received_bytes": leg.received_bytes,
            "sent_bytes": leg.sent_bytes,
        }

    def _forget(self, name: str, room: _Room) -> None:
        if not room.is_served and not room.clients:
            self._rooms.pop(name, None)
