"""A limit on the growth of all receive windows of a process.

One ``WindowBudget`` is passed to all sessions in ``Limits.window_budget``. :mod:`seance.yamux.windows`
charges it before a window grows beyond its initial size. It counts the bytes that the peers may send, not
memory in use: if the application does not read, a peer can fill its whole window.

A client that has loaded its document sends little for hours but keeps its large window, because yamux cannot
reduce a window that was granted. So when the budget is used up, windows that were idle for half a minute are
released: they keep their size, but their growth is *uncharged*. If the application then stops reading such a
stream, and the stream holds more than 256 KiB beyond its initial window, the excess is charged again. If the
budget is used up, the stream is reset, because the memory of a process must stay bounded. A stream that its
application reads is never reset for this. After the peer's end of data, a stream stays charged for the bytes
that it still holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from seance.yamux.constants import MIB

__all__ = ["WINDOW_BUDGET_BYTES", "BudgetUser", "WindowBudget"]

WINDOW_BUDGET_BYTES: Final = 64 * MIB
"""An eighth of the memory of the smallest common server (512 MiB). It is enough for four paths of 100 Mbit/s
and 300 ms at full speed, and if all of it is used, the relay still runs."""


class BudgetUser(Protocol):
    """A receive window, as the budget sees it."""

    charged_bytes: int
    """Bytes charged to the budget."""

    def is_idle(self, now: float) -> bool:
        """Return whether the window has needed little for a while."""

    def release_idle(self) -> int:
        """Set ``charged_bytes`` to 0, keep the size, and return what was charged."""


class WindowBudget:
    """A number of bytes by which all windows together may exceed their initial sizes.

    A window may grow only while the free rest is at least what the window is then charged: the first gets at
    most half, the next one half of the rest. So a few windows cannot use all of it.

    Attributes:
        total_bytes: The size of the budget; 64 MiB by default.
        charged_bytes: Bytes in use.
        on_exhausted: Called when a stream is reset because an uncharged window cannot be charged again.
    """

    __slots__ = ("_users", "charged_bytes", "on_exhausted", "total_bytes")

    def __init__(self, total_bytes: int = WINDOW_BUDGET_BYTES) -> None:
        self.total_bytes = total_bytes
        self.charged_bytes = 0
        self.on_exhausted: Callable[[], None] = lambda: None
        self._users: dict[BudgetUser, None] = {}

    def charge(self, user: BudgetUser, more_bytes: int, now: float) -> bool:
        """Charge ``more_bytes`` for a window that grows.

        Returns:
            Whether they were available. Next: add them to ``charged_bytes`` of the window; later,
            ``release``.
        """
        reserve_bytes = user.charged_bytes + more_bytes
        return self._take(user, more_bytes, reserve_bytes, now)

    def recharge(self, user: BudgetUser, count: int, now: float) -> bool:
        """Charge ``count`` bytes that an uncharged window holds. As ``charge``, but may use the last byte."""
        if self._take(user, count, 0, now):
            return True
        self.on_exhausted()
        return False

    def _take(self, user: BudgetUser, count: int, reserve_bytes: int, now: float) -> bool:
        if self.charged_bytes + count + reserve_bytes > self.total_bytes:
            for other in list(self._users):
                if other is not user and other.is_idle(now):
                    self.release(other, other.release_idle())
            if self.charged_bytes + count + reserve_bytes > self.total_bytes:
                return False
        self.charged_bytes += count
        self._users[user] = None
        return True

    def release(self, user: BudgetUser, count: int) -> None:
        """Return ``count`` bytes to the budget. They are already subtracted from ``user.charged_bytes``."""
        self.charged_bytes -= count
        assert self.charged_bytes >= 0, "only charged bytes are released"
        if not user.charged_bytes:
            self._users.pop(user, None)

    def __repr__(self) -> str:
        return f"<WindowBudget {self.charged_bytes} of {self.total_bytes} charged>"
