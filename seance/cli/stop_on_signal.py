"""Handles SIGTERM and SIGINT: the first one stops a relay or an agent in order, a second one ends it.

Twisted's own handlers stop the reactor at each signal. At a second signal the reactor is already stopping:
Twisted logs a traceback and keeps waiting. twistd also exits with the signal's status after an orderly stop.
Here, the first signal stops the reactor and restores the system's default for both signals. The next signal
then ends the process even if the event loop hangs; the kernel closes the connections.

A process has one handler per signal, so only the programs use this. A program that embeds Seance calls
``stopService`` itself.
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

__all__ = ["StopOnSignal", "end_at_next_signal"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_next_signal() -> None:
    """Restore the system's default, which ends the process, for each signal that is not ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class StopOnSignal(Service):
    """Stops the reactor at the first signal, so that the exit status is 0.

    A SIGINT that is ignored from the start stays ignored: a shell without job control starts background jobs
    that way, so that Ctrl-C ends only the job in the foreground.

    Args:
        reactor: Twisted's reactor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._previous: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        """Install the handlers if this is the main thread."""
        super().startService()
        if threading.current_thread() is not threading.main_thread():
            return
        self._install()
        # Twisted installs its own handlers when it begins to run; twistd starts services before that.
        self._reactor.callWhenRunning(self._install)
        self._reactor.addSystemEventTrigger("before", "shutdown", end_at_next_signal)

    def stopService(self) -> None:
        """Restore the previous handlers, unless a signal has stopped the reactor."""
        super().stopService()
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, previous)
        self._previous.clear()

    def _install(self) -> None:
        if not self.running:
            return
        for number in SIGNALS:
            present = signal.getsignal(number)
            if number == signal.SIGINT and present == signal.SIG_IGN:
                continue
            if present not in (self._on_signal, signal.SIG_DFL) or number not in self._previous:
                self._previous[number] = present
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        end_at_next_signal()
        self._reactor.callFromThread(self._stop, signal.Signals(number).name)

    def _stop(self, name: str) -> None:
        self._log.info(
            "{name}: stopping; a second signal ends the process immediately",
            name=name,
            event="process.stopping",
        )
        with suppress(ReactorNotRunning):  # it may be stopping for another reason
            self._reactor.stop()
