"""Who serves which room. Plain dictionary logic: no transport; the time is an argument.

A room belongs to the agent identity that claimed it: for as long as its link is there, and for a
grace time after, so that nobody can slip in while the host's Wi-Fi blinks. The reason is what a
room is worth: whoever takes it over receives the documents of every client that redials (yjs.md,
section 0). The same identity arriving again replaces its own stale link at once. An agent without
an identity (any program around a yamux library) holds its room while it is attached and no longer,
because it could not be told from a stranger when it comes back.

Besides, a room is *known* for a while after its agent has gone, whoever that was: clients may wait
for it then, where those of a name that nobody ever served are told so at once. Being known keeps no
room for anybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from seance.errors import Refusal

__all__ = ["RoomTable"]

MOST_RESERVED = 65536
"""Rooms that are kept for an absent owner at a time; the one that has waited longest goes first."""

MOST_KNOWN = 65536
"""Rooms without an agent that are remembered at a time; the one that has been without longest goes."""

AgentLink = TypeVar("AgentLink")


@dataclass(slots=True)
class _Seat(Generic[AgentLink]):
    link: AgentLink
    identity: str | None
    since_seconds: float


@dataclass(frozen=True, slots=True)
class _Reservation:
    identity: str
    until_seconds: float


class RoomTable(Generic[AgentLink]):
    """The table of rooms. Generic, because it never asks a link for anything.

    Args:
        grace_seconds: How long a room is kept for an owner that has gone.
        known_seconds: How long a room is known after its agent has gone.
    """

    def __init__(self, grace_seconds: float = 60.0, known_seconds: float = 600.0) -> None:
        self._grace_seconds = grace_seconds
        self._known_seconds = known_seconds
        self._seats: dict[str, _Seat[AgentLink]] = {}
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()
        self._gone_at: OrderedDict[str, float] = OrderedDict()
        self._listeners: dict[Callable[[str], None], None] = {}

    def __len__(self) -> int:
        """The number of rooms that are served now."""
        return len(self._seats)

    def __iter__(self) -> Iterator[AgentLink]:
        """The links, in the order in which they came; safe against changes meanwhile."""
        return iter([seat.link for seat in self._seats.values()])

    def claim(
        self,
        room: str,
        link: AgentLink,
        *,
        identity: str | None = None,
        now: float = 0.0,
        may_replace: bool = True,
    ) -> AgentLink | None:
        """Give a room to a link. ``release`` it when the link is gone.

        Args:
            room: The room.
            link: Who serves it from now on.
            identity: Who the agent has proven to be, or None.
            now: Seconds, monotonic.
            may_replace: Whether it wants the room if the same agent serves it already.

        Returns:
            The same agent's earlier link, which is to be cut now, or None.

        Raises:
            Refusal: 409, the room is served by another agent, or kept for it.
        """
        seat = self._seats.get(room)
        if seat is not None:
            if identity is None or identity != seat.identity or not may_replace:
                sentence = (
                    "This room is taken: another agent serves it. Stop that one, or choose another name."
                )
                raise Refusal(409, sentence, code="room_taken")
            stale, seat.link = seat.link, link
            self.note_change(room, link, now)
            return stale
        reservation = self._reserved.get(room)
        if reservation is not None and reservation.until_seconds > now and reservation.identity != identity:
            seconds = reservation.until_seconds - now
            sentence = f"This room is kept for its agent, which has just gone, for another {seconds:.0f} s."
            raise Refusal(409, sentence, code="room_reserved")
        self._reserved.pop(room, None)
        self._seats[room] = _Seat(link, identity, now)
        self._tell(room)
        return None

    def release(self, room: str, link: AgentLink, now: float = 0.0, *, was_served: bool = True) -> None:
        """Free a room, if ``link`` still holds it; an owner with an identity may come back to it.

        Args:
            room: The room.
            link: Who is gone.
            now: Seconds, monotonic.
            was_served: Whether the link ever came up: if not, the room is not known for it.
        """
        seat = self._seats.get(room)
        if seat is None or seat.link is not link:
            return
        del self._seats[room]
        if seat.identity is not None and self._grace_seconds > 0:
            self._reserved[room] = _Reservation(seat.identity, now + self._grace_seconds)
            self._reserved.move_to_end(room)
        if was_served:
            self._gone_at[room] = now
            self._gone_at.move_to_end(room)
        self._forget_old(now)
        self._tell(room)

    def note_change(self, room: str, link: AgentLink, now: float) -> None:
        """The link of a room has lost its carrier, or has one again; nothing if it is not in its seat."""
        seat = self._seats.get(room)
        if seat is not None and seat.link is link:
            seat.since_seconds = now
            self._tell(room)

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Have ``listener`` called with each room that was claimed, released or has changed.

        Returns:
            Its remover.
        """
        self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    def get(self, room: str) -> AgentLink | None:
        """Return the link that serves a room, or None."""
        seat = self._seats.get(room)
        return None if seat is None else seat.link

    def find(self, room: str) -> AgentLink:
        """Return the link that serves a room.

        Raises:
            Refusal: 404, nobody serves it.
        """
        seat = self._seats.get(room)
        if seat is None:
            sentence = "Room not found (agent not connected)"
            raise Refusal(404, sentence, code="room_not_found")
        return seat.link

    def since(self, room: str, now: float) -> float | None:
        """Return when a room's link came, changed or went; None if nobody has served it lately."""
        seat = self._seats.get(room)
        if seat is not None:
            return seat.since_seconds
        gone_at = self._gone_at.get(room)
        return None if gone_at is None or gone_at + self._known_seconds <= now else gone_at

    def _forget_old(self, now: float) -> None:
        # All are kept equally long, so the first is always the oldest.
        reserved = self._reserved
        while reserved and (
            len(reserved) > MOST_RESERVED or next(iter(reserved.values())).until_seconds <= now
        ):
            reserved.popitem(last=False)
        gone = self._gone_at
        while gone and (len(gone) > MOST_KNOWN or next(iter(gone.values())) + self._known_seconds <= now):
            gone.popitem(last=False)

    def _tell(self, room: str) -> None:
        for listener in list(self._listeners):
            listener(room)
