"""The connections that have not sent a whole head yet: how many there may be, and who makes room.

Plain bookkeeping: no transport, no timer. The front counts every connection in at accept and out when
its head is whole. Whoever comes is let in; over a bound it is the one that has taken longest that is
cut, so that those who are slow on purpose stand in each other's way and in nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Cuttable", "PendingConnections"]


class Cuttable(Protocol):
    """What is counted here."""

    def cut(self) -> None:
        """End it now; it is counted out by then."""


class PendingConnections:
    """Who has not said yet what it wants.

    Args:
        most: In all.
        most_of_one: Of one holder; see ``seance.relay.edge.admission.holder_of``.
        on_full: Called with the bound's name, of ``seance.core.observers.LIMITS``, when somebody is cut.
    """

    def __init__(
        self, most: int, most_of_one: int, on_full: Callable[[str], None] = lambda limit: None
    ) -> None:
        self._on_full = on_full
        self._most = most
        self._most_of_one = most_of_one
        self._all: dict[Cuttable, str | None] = {}
        self._of_one: dict[str, dict[Cuttable, None]] = {}

    def __len__(self) -> int:
        """The number of them."""
        return len(self._all)

    def add(self, one: Cuttable, holder: str | None) -> None:
        """Count one in; over a bound the oldest is cut.

        Args:
            one: The connection.
            holder: Whose it is; None for a place that many share, such as a proxy.
        """
        self._all[one] = holder
        own = {} if holder is None else self._of_one.setdefault(holder, {})
        own[one] = None
        if len(own) > self._most_of_one:
            self._on_full("unanswered_of_address")
            next(iter(own)).cut()
        if len(self._all) > self._most:
            self._on_full("unanswered")
            self.cut_oldest()

    def remove(self, one: Cuttable) -> None:
        """Count one out; once is enough, twice is harmless."""
        holder = self._all.pop(one, None)
        if holder is not None:
            own = self._of_one[holder]
            del own[one]
            if not own:
                del self._of_one[holder]

    def cut_oldest(self) -> None:
        """Cut the one that has taken longest, if there is any."""
        if self._all:
            next(iter(self._all)).cut()

    def cut_all(self) -> None:
        """Cut all of them; for stopping."""
        for one in list(self._all):
            one.cut()
