"""The log file of ``twistd --logfile``, and what SIGUSR1 does to it.

logrotate moves a file away and sends SIGUSR1. Twisted's ``LogFile`` then looks for the file at its path. With
``nocreate`` it finds none and keeps writing to the old one; with ``create`` it finds the new, empty one and
moves that away as well. ``AppendedLogFile`` opens its path again in both cases, and rotates by itself only if
its own file is still there. It appends, so that a file cut short by ``copytruncate`` gets no hole of zeros.

``ReopenLogsOnSignal`` takes SIGUSR1 in a program that has no log file: the system's default ends the process.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.logfile import LogFile

__all__ = ["AppendedLogFile", "ReopenLogsOnSignal"]


class AppendedLogFile(LogFile):
    """A log file that another program may move, remove or cut short."""

    def _openFile(self) -> None:  # noqa: N802  # Twisted's name
        before = getattr(self, "_file", None)
        super()._openFile()
        self._file.close()
        self._file: Any = open(self.path, "ab", 0)  # noqa: SIM115  # closed by the next one
        if before is not None:
            before.close()

    def shouldRotate(self) -> bool:  # noqa: N802  # Twisted's name
        """Whether the file is as long as it may be; its real length, for ``copytruncate`` changes it."""
        self.size = os.fstat(self._file.fileno()).st_size
        return bool(super().shouldRotate())

    def rotate(self) -> None:
        """Move the file away and begin a new one; keep the present one if that fails."""
        try:
            # The present file under another descriptor, for the case that the new one cannot be opened.
            kept = os.fdopen(os.dup(self._file.fileno()), "ab", 0)
        except OSError:
            return
        try:
            super().rotate()
        except OSError:
            if self._file.closed:
                self._file = kept
                return
        kept.close()

    def reopen_or_rotate(self) -> None:
        """Open the path again if another program has moved the file; else rotate, as Twisted does."""
        with suppress(OSError):
            if self._is_moved():
                # If the new file cannot be opened, the log stays in the old one.
                self._openFile()
            else:
                self.rotate()

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True


class ReopenLogsOnSignal(Service):
    """Ignores SIGUSR1 with a line in the log, unless a log file has taken the signal.

    Args:
        reactor: Twisted's reactor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._is_taken = False

    def startService(self) -> None:
        """Take the signal, if the system has it, no handler is set, and this is the main thread."""
        super().startService()
        number = getattr(signal, "SIGUSR1", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, self._on_signal)
            self._is_taken = True

    def stopService(self) -> None:
        """Ignore the signal from now on: the default would end the process before it has stopped."""
        super().stopService()
        if self._is_taken:
            self._is_taken = False
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _on_signal(self, *_: object) -> None:
        self._reactor.callFromThread(self._say_why_not)

    def _say_why_not(self) -> None:
        self._log.info(
            "SIGUSR1 opens a log file again, and there is none: twistd --logfile FILE writes one",
            event="log.no_file",
        )
