"""Limits the connections that have not sent a whole request head.

No transport, no timer. ``Frontend`` adds every connection at accept and removes it when its head is complete.
A new connection is always accepted; above a limit the oldest one is cut, so that slow attackers displace only
each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Cuttable", "PendingConnections"]


class Cuttable(Protocol):
    """A connection without a whole head."""

    def cut(self) -> None:
        """Reset the connection. It first removes itself from ``PendingConnections``."""


class PendingConnections:
    """The connections without a whole head, of one relay.

    Args:
        max_connections: The limit for all connections.
        max_per_holder: The limit for one holder; see ``seance.relay.edge.admission.holder_of``.
        on_full: Called with the name of the limit, of ``seance.core.events.LIMITS``, when a connection is
            cut.
    """

    def __init__(
        self, max_connections: int, max_per_holder: int, on_full: Callable[[str], None] = lambda limit: None
    ) -> None:
        self._on_full = on_full
        self._max_connections = max_connections
        self._max_per_holder = max_per_holder
        self._all: dict[Cuttable, str | None] = {}
        self._of_holder: dict[str, dict[Cuttable, None]] = {}

    def __len__(self) -> int:
        """The number of these connections."""
        return len(self._all)

    def add(self, one: Cuttable, holder: str | None) -> None:
        """Add a connection; above a limit the oldest is cut.

        Args:
            one: The connection.
            holder: The key under which it is counted; None for an address that many share, such as a proxy's.
        """
        self._all[one] = holder
        own = {} if holder is None else self._of_holder.setdefault(holder, {})
        own[one] = None
        if len(own) > self._max_per_holder:
            self._on_full("unanswered_of_address")
            next(iter(own)).cut()
        if len(self._all) > self._max_connections:
            self._on_full("unanswered")
            self.cut_oldest()

    def remove(self, one: Cuttable) -> None:
        """Remove a connection; a second call does nothing."""
        holder = self._all.pop(one, None)
        if holder is not None:
            own = self._of_holder[holder]
            del own[one]
            if not own:
                del self._of_holder[holder]

    def cut_oldest(self) -> None:
        """Cut the oldest connection, if there is any."""
        if self._all:
            next(iter(self._all)).cut()

    def cut_all(self) -> None:
        """Cut all connections; the relay stops."""
        for one in list(self._all):
            one.cut()
