"""How far the windows of a whole process may grow beyond what they start with. A number, and who has it.

Made once by whoever makes the sessions, and passed to all of them in ``Limits.window_budget``; asked by
:mod:`seance.yamux.windows` before a window grows. What is counted is the promise, not the memory: a peer
may use up a window that was granted to it, and if then our application does not read, that many bytes wait.

A client that has loaded its document and then only talks keeps a promise for hours that it does not need, and
yamux has no word to take one back. So when there is nothing left to claim, those who were quiet for half a
minute give up their claims, and keep their windows *on trust*. Should such a stream later hold more than
256 KiB beyond its start, because a lot comes and nobody reads, it claims what it holds beyond that, byte by
byte; when nothing is left it is cut, since what a process holds is bounded. Who reads what comes never gets
there. At the peer's end of data a stream keeps as much of its claim as it still holds, until that is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from seance.yamux.constants import MIB

__all__ = ["WINDOW_BUDGET_BYTES", "BudgetUser", "WindowBudget"]

WINDOW_BUDGET_BYTES: Final = 64 * MIB
"""An eighth of the smallest machine that people rent. It is four paths of 100 Mbit/s and 300 ms at full
speed with room to spare, and if every byte of it is ever used, the relay still stands."""


class BudgetUser(Protocol):
    """A window, as seen from here."""

    charged_bytes: int
    """What it has claimed."""

    def is_idle(self, now: float) -> bool:
        """Whether it has needed little for a while."""

    def release_idle(self) -> int:
        """Give up the claim, which is returned, and keep the size."""


class WindowBudget:
    """A number of bytes that all windows together may have on top of their starts.

    A window may grow as long as it leaves as much as it has on top: the first takes at most half, the next
    half of the rest. So a few cannot take everything.

    Attributes:
        total_bytes: What there is.
        charged_bytes: What is granted at the moment.
        on_exhausted: Called whenever a stream on trust is cut because nothing is left for it.
    """

    __slots__ = ("_users", "charged_bytes", "on_exhausted", "total_bytes")

    def __init__(self, total_bytes: int = WINDOW_BUDGET_BYTES) -> None:
        self.total_bytes = total_bytes
        self.charged_bytes = 0
        self.on_exhausted: Callable[[], None] = lambda: None
        self._users: dict[BudgetUser, None] = {}

    def charge(self, user: BudgetUser, more_bytes: int, now: float) -> bool:
        """Take ``more_bytes`` for a window that grows.

        Returns:
            Whether they were there. Next: add them to ``charged_bytes``; some day, ``release``.
        """
        leaves_bytes = user.charged_bytes + more_bytes
        return self._take(user, more_bytes, leaves_bytes, now)

    def recharge(self, user: BudgetUser, count: int, now: float) -> bool:
        """Take ``count`` bytes for what a window on trust holds. As ``claim``, but to the last byte."""
        if self._take(user, count, 0, now):
            return True
        self.on_exhausted()
        return False

    def _take(self, user: BudgetUser, count: int, leaves_bytes: int, now: float) -> bool:
        if self.charged_bytes + count + leaves_bytes > self.total_bytes:
            for other in list(self._users):
                if other is not user and other.is_idle(now):
                    self.release(other, other.release_idle())
            if self.charged_bytes + count + leaves_bytes > self.total_bytes:
                return False
        self.charged_bytes += count
        self._users[user] = None
        return True

    def release(self, user: BudgetUser, count: int) -> None:
        """Give back what was claimed; ``charged_bytes`` is without it already."""
        self.charged_bytes -= count
        assert self.charged_bytes >= 0, "only what was claimed is released"
        if not user.charged_bytes:
            self._users.pop(user, None)

    def __repr__(self) -> str:
        return f"<WindowBudget {self.charged_bytes} of {self.total_bytes} claimed>"
