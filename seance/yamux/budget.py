"""How far the windows of a whole process may grow beyond what they start with. A number, and who may have it.

Made once by whoever makes the sessions, and passed to all of them in ``Limits.window_budget``; asked by
:mod:`seance.yamux.windows` before a window grows. What is counted is the promise, not the memory: a peer
may use up a window that was granted to it, and if then our application does not read, that many bytes wait.
"""

from __future__ import annotations

from typing import Final

from seance.yamux.constants import MIB

__all__ = ["WINDOW_BUDGET_BYTES", "WindowBudget"]

WINDOW_BUDGET_BYTES: Final = 64 * MIB
"""An eighth of the smallest machine that people rent. It is four paths of 100 Mbit/s and 300 ms at full
speed with room to spare, and if every byte of it is ever used, the relay still stands."""


class WindowBudget:
    """A number of bytes that all windows together may have on top of their starts.

    A window may grow as long as it leaves as much as it has on top: the first takes at most half, the next
    half of the rest. So a few cannot take everything, and whoever comes late still gets something.

    Attributes:
        total_bytes: What there is.
        claimed_bytes: What is granted at the moment.
    """

    __slots__ = ("claimed_bytes", "total_bytes")

    def __init__(self, total_bytes: int = WINDOW_BUDGET_BYTES) -> None:
        self.total_bytes = total_bytes
        self.claimed_bytes = 0

    def claim(self, held_bytes: int, more_bytes: int) -> bool:
        """Take ``more_bytes`` for a window that has ``held_bytes`` already.

        Returns:
            Whether they were there. Next, some day: ``release``.
        """
        claimed_bytes = self.claimed_bytes + more_bytes
        if held_bytes + more_bytes > self.total_bytes - claimed_bytes:
            return False
        self.claimed_bytes = claimed_bytes
        return True

    def release(self, count: int) -> None:
        """Give back what was claimed."""
        self.claimed_bytes -= count
        assert self.claimed_bytes >= 0, "only what was claimed is released"

    def __repr__(self) -> str:
        return f"<WindowBudget {self.claimed_bytes} of {self.total_bytes} claimed>"
