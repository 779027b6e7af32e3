"""Who serves which room. Plain dictionary logic: no transport; the time is an argument.

A room belongs to the agent identity that claimed it: for as long as its link is there, and for a
grace time after, so that nobody can slip in while the host's Wi-Fi blinks. The reason is what a
room is worth: whoever takes it over receives the documents of every client that redials (yjs.md,
section 0). The same identity arriving again replaces its own stale link at once. An agent without
an identity (any program around a yamux library) holds its room while it is attached and no longer,
because it could not be told from a stranger when it comes back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from seance.errors import Refusal

__all__ = ["Rooms"]

MOST_RESERVED = 65536
"""Rooms that are kept for an absent owner at a time; the one that has waited longest goes first."""

Link = TypeVar("Link")


@dataclass(slots=True)
class _Seat(Generic[Link]):
    link: Link
    identity: str | None


@dataclass(frozen=True, slots=True)
class _Reservation:
    identity: str
    until_seconds: float


class Rooms(Generic[Link]):
    """The table of rooms. Generic, because it never asks a link for anything.

    Args:
        grace_seconds: How long a room is kept for an owner that has gone.
    """

    def __init__(self, grace_seconds: float = 60.0) -> None:
        self._grace_seconds = grace_seconds
        self._seats: dict[str, _Seat[Link]] = {}
        self._reserved: OrderedDict[str, _Reservation] = OrderedDict()

    def __len__(self) -> int:
        """The number of rooms that are served now."""
        return len(self._seats)

    def __iter__(self) -> Iterator[Link]:
        """The links, in the order in which they came; safe against changes meanwhile."""
        return iter([seat.link for seat in self._seats.values()])

    def claim(
        self,
        room: str,
        link: Link,
        *,
        identity: str | None = None,
        now: float = 0.0,
        may_replace: bool = True,
    ) -> Link | None:
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
            return stale
        reservation = self._reserved.get(room)
        if reservation is not None and reservation.until_seconds > now and reservation.identity != identity:
            seconds = reservation.until_seconds - now
            sentence = f"This room is kept for its agent, which has just gone, for another {seconds:.0f} s."
            raise Refusal(409, sentence, code="room_reserved")
        self._reserved.pop(room, None)
        self._seats[room] = _Seat(link, identity)
        return None

    def release(self, room: str, link: Link, now: float = 0.0) -> None:
        """Free a room, if ``link`` still holds it; an owner with an identity may come back to it."""
        seat = self._seats.get(room)
        if seat is None or seat.link is not link:
            return
        del self._seats[room]
        if seat.identity is not None and self._grace_seconds > 0:
            self._reserved[room] = _Reservation(seat.identity, now + self._grace_seconds)
            self._reserved.move_to_end(room)
        self._forget_old(now)

    def find(self, room: str) -> Link:
        """Return the link that serves a room.

        Raises:
            Refusal: 404, nobody serves it.
        """
        try:
            return self._seats[room].link
        except KeyError:
            sentence = "Room not found (agent not connected)"
            raise Refusal(404, sentence, code="room_not_found") from None

    def _forget_old(self, now: float) -> None:
        # All are kept equally long, so the first is always the oldest.
        reserved = self._reserved
        while reserved and (
            len(reserved) > MOST_RESERVED or next(iter(reserved.values())).until_seconds <= now
        ):
            reserved.popitem(last=False)
