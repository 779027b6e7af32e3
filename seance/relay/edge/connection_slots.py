"""Who has a place on the relay: every connection that was accepted, until it is gone.

How many there may be is ``Admission``'s to say. Whoever takes the last place pauses accepting, and whoever
gives one back then resumes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seance.relay.service import Relay

__all__ = ["Place", "Places"]


class Place:
    """One connection's place. Whoever has the connection gives it back.

    Attributes:
        holder: Whose it is; see ``seance.relay.edge.admission.holder_of``.
    """

    __slots__ = ("_places", "holder")

    def __init__(self, places: Places, holder: str) -> None:
        self._places: Places | None = places
        self.holder = holder

    def give_back(self) -> None:
        """Count the connection out; once is enough, twice is harmless."""
        if self._places is not None:
            places, self._places = self._places, None
            places.left(self.holder)


class Places:
    """The places of one relay.

    Args:
        relay: Whom to pause.
        make_room: Called when the last place was taken.
    """

    def __init__(self, relay: Relay, make_room: Callable[[], None]) -> None:
        self._relay = relay
        self._make_room = make_room
        self._is_paused = False

    def take(self, address: str) -> Place:
        """Count a connection in, and pause accepting if it was the last one there is room for.

        Then the one that has taken longest to say what it wants makes room for whoever comes next:
        the last places are for agents, and silence must not keep them.

        Raises:
            Refusal: 429, its address has as many as it may have.
        """
        place = Place(self, self._relay.admission.enter(address))
        if self._relay.admission.is_full:
            if not self._is_paused:
                self._is_paused = True
                self._relay.observer.limit_hit("connections")
                self._relay.pause_accepting()
            self._make_room()
        return place

    def left(self, holder: str) -> None:
        """Count a connection out, and accept again if there is room now; for ``Place`` alone."""
        self._relay.admission.leave(holder)
        if self._is_paused and not self._relay.admission.is_full:
            self._is_paused = False
            self._relay.resume_accepting()
