"""A bound for log lines that the other end of a connection can provoke.

One line may be written, then none for some seconds; the next line says how many were suppressed. So a
stranger does not decide how long the log is.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

__all__ = ["LogLimit"]

SILENT_SECONDS = 10.0


class LogLimit:
    """Says whether a line may be written now.

    Args:
        reactor: Provides the time.
        silent_seconds: The least time between two lines.

    Attributes:
        suppressed: Lines that were not written between the last two that were.
    """

    def __init__(self, reactor: IReactorTime, silent_seconds: float = SILENT_SECONDS) -> None:
        self._reactor = reactor
        self._silent_seconds = silent_seconds
        self._silent_until = 0.0
        self._suppressed = 0
        self.suppressed = 0

    def allows_line(self) -> bool:
        """Return whether to write a line now; count it as suppressed if not."""
        now = self._reactor.seconds()
        if now < self._silent_until:
            self._suppressed += 1
            return False
        self._silent_until = now + self._silent_seconds
        self.suppressed, self._suppressed = self._suppressed, 0
        return True
