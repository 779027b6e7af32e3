"""How late the reactor is: a call that is due every second, and when it comes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ReactorLag"]

LOOK_SECONDS = 1.0
KEPT_LOOKS = 60


class ReactorLag(Service):
    """Measures while it runs.

    Args:
        reactor: Whose lag it is.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._late: deque[float] = deque(maxlen=KEPT_LOOKS)
        self._call: IDelayedCall | None = None

    @property
    def worst_seconds(self) -> float:
        """The longest delay of the last minute."""
        return max(self._late, default=0.0)

    @property
    def latest_seconds(self) -> float:
        """The latest delay."""
        return self._late[-1] if self._late else 0.0

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._look_later()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look_later(self) -> None:
        self._call = self._reactor.callLater(LOOK_SECONDS, self._look, self._reactor.seconds() + LOOK_SECONDS)

    def _look(self, due_seconds: float) -> None:
        self._late.append(max(0.0, self._reactor.seconds() - due_seconds))
        self._look_later()
