"""What SIGTERM and SIGINT mean to a relay or an agent: take leave; and a second one: end now.

Twisted stops the reactor at each of them. The second one then finds a reactor that is stopping already,
which it logs with a traceback, and goes on waiting; and twistd ends with the signal's status although
everything went in order. Here the first signal stops the reactor and gives both signals back to the
system, so that the next one ends the process whatever that is doing, a loop that hangs included. The
kernel then cuts its connections.

Signals belong to the process, so this belongs to the doors; a program that embeds Seance calls
``stopService`` when it thinks fit.
"""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

__all__ = ["StopOnSignal"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(Service):
    """Stops the reactor at the first signal; its exit status is then 0.

    Args:
        reactor: Twisted's reactor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._before: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        """Take both signals, if this is the thread that may."""
        super().startService()
        if threading.current_thread() is not threading.main_thread():
            return
        self._take()
        # Twisted puts its own in place when it begins to run; twistd starts services before.
        self._reactor.callWhenRunning(self._take)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._give_to_system)

    def stopService(self) -> None:
        """Give them back to whoever had them, unless the process is about to end anyway."""
        super().stopService()
        for number, before in self._before.items():
            if signal.getsignal(number) == self._heard:
                signal.signal(number, before)
        self._before.clear()

    def _take(self) -> None:
        if not self.running:
            return
        for number in SIGNALS:
            present = signal.getsignal(number)
            if present not in (self._heard, signal.SIG_DFL) or number not in self._before:
                self._before[number] = present
                signal.signal(number, self._heard)

    def _give_to_system(self) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._give_to_system()
        self._reactor.callFromThread(self._stop, signal.Signals(number).name)

    def _stop(self, name: str) -> None:
        self._log.info("{name}: stopping; a second signal ends at once", name=name, event="process.stopping")
        with suppress(ReactorNotRunning):  # it may be stopping for another reason
            self._reactor.stop()
