"""Lists the rooms and clients that a grant permits, and disconnects them.

It is an observer of the relay, so that the byte counts of a room survive the reconnection of its agent. A
room without agent and clients is removed, so the size is limited by the relay's own limits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IReactorTime

from seance.core.events import Client, ClientBegan, ClientEnded, Event, LinkChange, LinkChanged
from seance.core.interfaces import Grant

if TYPE_CHECKING:
    from seance.relay.edge.client_connection import ClientConnection
    from seance.relay.service import Relay

__all__ = ["RoomRegistry"]

ROOM_CLOSED = "An operator has closed this room."
CLIENT_CLOSED = "An operator has disconnected this client."


@dataclass(slots=True)
class _RoomEntry:
    clients: dict[int, Client] = field(default_factory=dict)
    received_bytes: int = 0
    sent_bytes: int = 0
    is_served: bool = False


class RoomRegistry:
    """An observer of a relay; pass it to the relay's constructor, then call ``watch``.

    Args:
        reactor: The relay's reactor.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._relay: Relay | None = None
        self._rooms: dict[str, _RoomEntry] = {}

    def watch(self, relay: Relay) -> None:
        """Set the relay to read from."""
        self._relay = relay

    def notify(self, event: Event) -> None:
        """Update the rooms and clients."""
        match event:
            case ClientBegan(client):
                room = self._rooms.setdefault(client.room, _RoomEntry())
                room.clients[cast("ClientConnection", client).number] = client
            case ClientEnded(client):
                room = self._rooms[client.room]
                del room.clients[cast("ClientConnection", client).number]
                room.received_bytes += client.received_bytes
                room.sent_bytes += client.sent_bytes
                self._forget(client.room, room)
            case LinkChanged(name, LinkChange.ATTACHED):
                self._rooms.setdefault(name, _RoomEntry()).is_served = True
            case LinkChanged(name, LinkChange.LOST) if known := self._rooms.get(name):
                # LOST of a replaced link precedes ATTACHED of its successor, which may fail to attach.
                link = None if self._relay is None else self._relay.rooms.link_of(name)
                known.is_served = link is not None and link.is_alive
                self._forget(name, known)

    # -- reading -----------------------------------------------------------------------------

    def names(self, grant: Grant, after: str = "") -> list[str]:
        """Return the permitted rooms with an agent, sorted, that follow the name ``after``."""
        served = (name for name, room in self._rooms.items() if room.is_served and name > after)
        return sorted(name for name in served if grant.allows_room(name))

    def busiest(self, grant: Grant, limit: int) -> list[dict[str, object]]:
        """Describe the ``limit`` rooms with the most clients."""
        names = self.names(grant)
        names.sort(key=lambda name: -len(self._rooms[name].clients))
        return self.rooms(names[:limit])

    def rooms(self, names: Iterable[str]) -> list[dict[str, object]]:
        """Describe rooms that ``names`` returned."""
        return [self._describe(name) for name in names if name in self._rooms]

    def room(self, name: str, grant: Grant, limit: int) -> dict[str, object] | None:
        """Describe a room with at most ``limit`` clients; None if it has no agent or is not permitted."""
        room = self._rooms.get(name)
        if room is None or not room.is_served or not grant.allows_room(name):
            return None
        clients = list(room.clients.values())[:limit]
        return {**self._describe(name), "list": [self._describe_client(client) for client in clients]}

    def is_known(self, room: str) -> bool:
        """Whether a room has an agent or had one recently."""
        return self._relay is not None and self._relay.rooms.is_known(room)

    # -- disconnecting -----------------------------------------------------------------------

    def close_room(self, name: str, grant: Grant) -> bool:
        """Disconnect the agent and clients of a room; False if it has no agent or is not permitted."""
        if self._relay is None or not grant.allows_room(name):
            return False
        return self._relay.rooms.close_room(name, ROOM_CLOSED)

    def close_client(self, name: str, number: int, grant: Grant) -> bool:
        """Disconnect a client; False if it does not exist or is not permitted."""
        room = self._rooms.get(name)
        client = None if room is None or not grant.allows_room(name) else room.clients.get(number)
        if client is None:
            return False
        cast("ClientConnection", client).end(CLIENT_CLOSED)
        return True

    # -- internal ----------------------------------------------------------------------------

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
        connection = cast("ClientConnection", client)
        return {
            "client": connection.number,
            "address": connection.address,
            "state": "pending" if connection.upgrade_seconds is None else "joined",
            "seconds": round(self._reactor.seconds() - connection.began_seconds, 1),
            "received_bytes": connection.received_bytes,
            "sent_bytes": connection.sent_bytes,
        }

    def _forget(self, name: str, room: _RoomEntry) -> None:
        if not room.is_served and not room.clients:
            self._rooms.pop(name, None)
