"""The log file of ``twistd --logfile``, and its rotation with SIGUSR1.

logrotate renames the file and sends SIGUSR1. Twisted's ``LogFile`` handles both settings of logrotate
wrongly: with ``nocreate`` it continues to write to the renamed file; with ``create`` it renames the new,
empty file as well. ``AppendedLogFile`` opens its path again in both cases, and rotates only if its own file
is still at the path. It opens files for appending, so that a file truncated by ``copytruncate`` gets no gap
of zeros.

``ReopenLogsOnSignal`` handles SIGUSR1 in a program without a log file; the system's default would end it.
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
    """A log file that another program may rename, remove or truncate."""

    def _openFile(self) -> None:  # noqa: N802  # Twisted's name
        previous = getattr(self, "_file", None)
        super()._openFile()
        self._file.close()
        self._file: Any = open(self.path, "ab", 0)  # noqa: SIM115  # closed by the next call
        if previous is not None:
            previous.close()

    def shouldRotate(self) -> bool:  # noqa: N802  # Twisted's name
        """Return whether the file has its maximum size; ``copytruncate`` changes the size."""
        self.size = os.fstat(self._file.fileno()).st_size
        return bool(super().shouldRotate())

    def rotate(self) -> None:
        """Rename the file and open a new one; keep the current one if that fails."""
        try:
            # A second descriptor of the current file, in case the new one cannot be opened.
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
        """Open the path again if another program has renamed the file; otherwise rotate, as Twisted does."""
        with suppress(OSError):
            if self._is_moved():
                # If this fails, the log continues in the old file.
                self._openFile()
            else:
                self.rotate()

    def _is_moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True


class ReopenLogsOnSignal(Service):
    """Logs that SIGUSR1 has no effect, unless a log file handles the signal.

    Args:
        reactor: Twisted's reactor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._is_installed = False

    def startService(self) -> None:
        """Install the handler if the system has SIGUSR1, no handler is set, and this is the main thread."""
        super().startService()
        number = getattr(signal, "SIGUSR1", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, self._on_signal)
            self._is_installed = True

    def stopService(self) -> None:
        """Ignore the signal: the system's default would end the process before it has stopped."""
        super().stopService()
        if self._is_installed:
            self._is_installed = False
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _on_signal(self, *_: object) -> None:
        self._reactor.callFromThread(self._log_missing_file)

    def _log_missing_file(self) -> None:
        self._log.info(
            "SIGUSR1 has no effect without a log file; twistd --logfile FILE writes one",
            event="log.no_file",
        )
