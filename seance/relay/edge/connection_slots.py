"""A slot for each connection that was accepted, until the connection is gone.

``Admission`` has the limits. The connection that takes the last slot pauses accepting; the first slot that is
released afterwards resumes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from seance.core.events import LimitHit

if TYPE_CHECKING:
    from seance.core.interfaces import Observer
    from seance.relay.edge.admission import Admission

__all__ = ["Accepting", "ConnectionSlot", "ConnectionSlots"]


class Accepting(Protocol):
    """The listening ports of a relay."""

    def pause(self) -> None:
        """Accept no connection until ``resume``; the kernel holds some."""

    def resume(self) -> None:
        """Accept connections again."""


class ConnectionSlot:
    """The slot of one connection. Its owner releases it.

    Attributes:
        holder: The key under which the connection is counted; see ``seance.relay.edge.admission.holder_of``.
    """

    __slots__ = ("_slots", "holder")

    def __init__(self, slots: ConnectionSlots, holder: str) -> None:
        self._slots: ConnectionSlots | None = slots
        self.holder = holder

    def release(self) -> None:
        """Count the connection out; a second call does nothing."""
        if self._slots is not None:
            slots, self._slots = self._slots, None
            slots.released(self.holder)


class ConnectionSlots:
    """The slots of one relay.

    Args:
        admission: Has the counts and limits.
        accepting: Paused while there is no slot.
        observer: Receives ``LimitHit("connections")``.
        free_slot: Called for each connection that takes the last slot.
    """

    def __init__(
        self,
        admission: Admission,
        accepting: Accepting,
        observer: Callable[[], Observer],
        free_slot: Callable[[], None],
    ) -> None:
        self._admission = admission
        self._accepting = accepting
        self._observer = observer
        self._free_slot = free_slot
        self._is_paused = False

    def take(self, address: str) -> ConnectionSlot:
        """Count a connection in, and pause accepting if it has the last slot.

        ``free_slot`` then closes a connection, because the last slots are for agents.

        Raises:
            Refusal: 429, the address has too many connections.
        """
        slot = ConnectionSlot(self, self._admission.enter(address))
        if self._admission.is_full:
            if not self._is_paused:
                self._is_paused = True
                self._observer().notify(LimitHit("connections"))
                self._accepting.pause()
            self._free_slot()
        return slot

    def released(self, holder: str) -> None:
        """Count a connection out, and accept again if there is a slot; only ``ConnectionSlot`` calls this."""
        self._admission.leave(holder)
        if self._is_paused and not self._admission.is_full:
            self._is_paused = False
            self._accepting.resume()
