"""The table of rooms: which link serves each room. No transport; the time is an argument.

A room belongs to the agent identity that claimed it, while its link exists and for a grace time after that.
Without the grace time another agent could take the room while the host's Wi-Fi is down for a moment, and
would receive the documents of every client that reconnects. A new link of the same identity replaces the
stale link immediately. An agent without an identity (any program around a yamux library) holds its room only
while it is attached, because it cannot be recognised when it returns.

A room is *known* for some time after its agent has left: its clients may wait for an agent, while clients of
an unknown room get 404 immediately. A known room is not reserved for any agent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from seance.relay.refusals import refusal

__all__ = ["RoomTable"]

MAX_RESERVED = 65536
"""Rooms reserved for absent owners at a time; the oldest reservation is dropped first."""

MAX_KNOWN = 65536
"""Known rooms without an agent at a time; the oldest is forgotten first."""

LinkT = TypeVar("LinkT")


@dataclass(slots=True)
class _ServedRoom(Generic[LinkT]):
    link: LinkT
    identity: str | None
    since_seconds: float


@dataclass(frozen=True, slots=True)
class _Reservation:
    identity: str
    until_seconds: float


class RoomTable(Generic[LinkT]):
    """The table of rooms. Generic, because it uses no attribute of a link.

    Args:
        grace_seconds: How long a room is reserved for its identity after the link is gone.
        known_seconds: How long a room is known after its agent has left.
    """

    def __init__(self, grace_seconds: float = 60.0, known_seconds: float = 600.0) -> None:
        self._grace_seconds = grace_seconds
        self._known_seconds = known_seconds
        self._served: dict[str, _ServedRoom[LinkT]] = {}
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()
        self._gone_at: OrderedDict[str, float] = OrderedDict()
        self._listeners: dict[Callable[[str], None], None] = {}

    def __len__(self) -> int:
        """The number of rooms that are served now."""
        return len(self._served)

    def __iter__(self) -> Iterator[LinkT]:
        """Iterate over a copy of the links, in the order in which they claimed their rooms."""
        return iter([served.link for served in self._served.values()])

    def claim(
        self,
        room: str,
        link: LinkT,
        *,
        identity: str | None = None,
        now: float = 0.0,
        may_replace: bool = True,
    ) -> LinkT | None:
        """Give a room to a link. ``release`` it when the link is gone.

        Args:
            room: The room.
            link: The link that serves it from now on.
            identity: The proven identity of the agent, or None.
            now: Seconds, monotonic.
            may_replace: Whether the link may replace an earlier link of the same agent.

        Returns:
            The earlier link of the same agent, which the caller closes, or None.

        Raises:
            Refusal: 409, another agent serves the room, or it is reserved for another agent.
        """
        served = self._served.get(room)
        if served is not None:
            if identity is None or identity != served.identity or not may_replace:
                raise refusal("room_taken")
            stale, served.link = served.link, link
            self.note_change(room, link, now)
            return stale
        reservation = self._reserved.get(room)
        if reservation is not None and reservation.until_seconds > now and reservation.identity != identity:
            seconds = round(reservation.until_seconds - now)
            raise refusal("room_reserved.left", seconds=seconds)
        self._reserved.pop(room, None)
        self._served[room] = _ServedRoom(link, identity, now)
        self._notify(room)
        return None

    def release(self, room: str, link: LinkT, now: float = 0.0, *, was_served: bool = True) -> None:
        """Free a room if ``link`` still holds it, and reserve it for the identity of the link.

        Args:
            room: The room.
            link: The link that is gone.
            now: Seconds, monotonic.
            was_served: Whether the link was ever attached; if not, the room does not become known.
        """
        served = self._served.get(room)
        if served is None or served.link is not link:
            return
        del self._served[room]
        if served.identity is not None and self._grace_seconds > 0:
            self._reserved[room] = _Reservation(served.identity, now + self._grace_seconds)
            self._reserved.move_to_end(room)
        if was_served:
            self._gone_at[room] = now
            self._gone_at.move_to_end(room)
        self._forget_old(now)
        self._notify(room)

    def note_change(self, room: str, link: LinkT, now: float) -> None:
        """Note that a link has lost or regained its carrier; does nothing if it does not hold the room."""
        served = self._served.get(room)
        if served is not None and served.link is link:
            served.since_seconds = now
            self._notify(room)

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with each room that is claimed, released or changed.

        Returns:
            A function that removes the listener.
        """
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    def get(self, room: str) -> LinkT | None:
        """Return the link that serves a room, or None."""
        served = self._served.get(room)
        return None if served is None else served.link

    def find(self, room: str) -> LinkT:
        """Return the link that serves a room.

        Raises:
            Refusal: 404, no link serves it.
        """
        served = self._served.get(room)
        if served is None:
            raise refusal("room_not_found")
        return served.link

    def since(self, room: str, now: float) -> float | None:
        """Return when the link of a room came, changed or left; None if the room is not known."""
        served = self._served.get(room)
        if served is not None:
            return served.since_seconds
        gone_at = self._gone_at.get(room)
        return None if gone_at is None or gone_at + self._known_seconds <= now else gone_at

    def _forget_old(self, now: float) -> None:
        # All entries are kept equally long, so the first is always the oldest.
        reserved = self._reserved
        while reserved and (
            len(reserved) > MAX_RESERVED or next(iter(reserved.values())).until_seconds <= now
        ):
            reserved.popitem(last=False)
        gone = self._gone_at
        while gone and (len(gone) > MAX_KNOWN or next(iter(gone.values())) + self._known_seconds <= now):
            gone.popitem(last=False)

    def _notify(self, room: str) -> None:
        for listener in list(self._listeners):
            listener(room)
