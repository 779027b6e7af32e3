"""An observer that ignores all events, one that forwards them to several others, and the hash of a room."""

from __future__ import annotations

import hashlib

from seance.core.events import Event
from seance.core.interfaces import Observer

__all__ = ["MultiObserver", "NullObserver", "room_hash"]

HASH_BYTES = 4


class NullObserver:
    """An observer that ignores all events."""

    def notify(self, event: Event) -> None:
        """Do nothing."""


class MultiObserver:
    """Passes each event to several observers, in their order.

    Args:
        observers: The observers.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def notify(self, event: Event) -> None:
        """Pass ``event`` to each observer."""
        for observer in self._observers:
            observer.notify(event)


def room_hash(room: str) -> str:
    """Return eight hexadecimal digits that stand for a room's name in the log, so that the log has no names.

    A name has the same hash on every relay and agent, so the lines of a known room can be found.
    """
    return hashlib.blake2b(room.encode(), digest_size=HASH_BYTES).hexdigest()
