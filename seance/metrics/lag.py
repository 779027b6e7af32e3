"""The delay of the reactor: how late a call is that is due every second."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ReactorLag"]

SAMPLE_SECONDS = 1.0
MAX_SAMPLES = 60


class ReactorLag(Service):
    """A service that measures the delay of ``reactor``."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._late: deque[float] = deque(maxlen=MAX_SAMPLES)
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
        """Start to measure."""
        super().startService()
        self._schedule()

    def stopService(self) -> None:
        """Stop."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._call = self._reactor.callLater(
            SAMPLE_SECONDS, self._measure, self._reactor.seconds() + SAMPLE_SECONDS
        )

    def _measure(self, due_seconds: float) -> None:
        self._late.append(max(0.0, self._reactor.seconds() - due_seconds))
        self._schedule()
