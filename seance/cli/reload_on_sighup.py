"""Handles SIGHUP: a relay or an agent reads its files again, or stops if its terminal was closed.

Twisted does not handle this signal, and the system's default ends the process without closing its
connections. A process has one handler per signal, so only the programs use this; a program that embeds Seance
calls ``Relay.reread`` itself.

Closing a terminal sends the same signal as ``kill -HUP``. The *controlling terminal* tells them apart
(``man 7 pty``, ``setsid(2)``): after a hangup the kernel has removed it from every process of the session,
and ``/dev/tty`` cannot be opened any more. Standard input is no indication, because IDEs, ``concurrently``
and foreman connect it to something else. A systemd service and a daemon have no terminal from the start.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

__all__ = ["CHECK_SECONDS", "ReloadOnSighup", "has_terminal", "stop_on_hangup"]

CHECK_SECONDS = 2.0
"""Interval between checks for the terminal. A hangup sends its SIGHUP within milliseconds."""


class ReloadOnSighup(Service):
    """Calls functions in the reactor's thread when the process receives SIGHUP.

    * If the process had a controlling terminal and the terminal is gone, the reactor is stopped.
    * If the terminal disappeared earlier without a signal (``disown``, a shell that has ended), the process
      counts as detached, and SIGHUP makes it read its files again.
    * If SIGHUP is ignored from the start (``nohup``), it stays ignored.

    Args:
        reactor: Twisted's reactor.
        rereads: Functions that read files again.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *rereads: Callable[[], None]) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._rereads = list(rereads)
        self._had_terminal = False
        self._was_missing = False
        self._checks = LoopingCall(self._check_terminal)
        self._checks.clock = reactor
        self._restore: Callable[[], object] | None = None

    def add(self, reread: Callable[[], None]) -> None:
        """Add a function to call."""
        self._rereads.append(reread)

    def startService(self) -> None:
        """Install the handler if the system has SIGHUP, it is not ignored, and this is the main thread."""
        super().startService()
        if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            return
        self._had_terminal, self._was_missing = has_terminal(), False
        previous = signal.signal(signal.SIGHUP, self._on_signal)
        self._restore = lambda: signal.signal(signal.SIGHUP, previous)
        if self._had_terminal:
            checking = self._checks.start(CHECK_SECONDS, now=False)
            checking.addErrback(
                lambda failure: self._log.failure(
                    "The terminal could not be checked", failure, event="hangup.mistake"
                )
            )

    def stopService(self) -> None:
        """Restore the previous handler. By default the next SIGHUP then ends the process immediately."""
        super().stopService()
        if self._checks.running:
            self._checks.stop()
        if self._restore is not None:
            self._restore()
            self._restore = None

    def _check_terminal(self) -> None:
        """Count the process as detached after two checks that found no terminal."""
        if has_terminal():
            self._was_missing = False
        elif not self._was_missing:
            self._was_missing = True
        else:
            self._had_terminal = False
            self._checks.stop()

    def _on_signal(self, *_: object) -> None:
        # Not in the reactor's next turn: a check in between could count the process as detached.
        is_closed = self._had_terminal and not has_terminal()
        self._reactor.callFromThread(self._stop if is_closed else self._reread)

    def _stop(self) -> None:
        if self.running:
            # The kernel and the shell each send a SIGHUP; the second must not end the process.
            self._restore = None
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._log.info("SIGHUP: the terminal is closed; stopping", event="process.terminal_closed")
            with suppress(ReactorNotRunning):  # another signal has stopped it already
                self._reactor.stop()

    def _reread(self) -> None:
        self._log.info("SIGHUP: files are read again", event="hangup.reread")
        for reread in self._rereads:
            try:
                reread()
            except Exception:  # noqa: BLE001  # the other functions must run too
                self._log.failure("Files could not be read again", event="hangup.mistake")


def stop_on_hangup(reactor: Any) -> None:  # noqa: ANN401  # no common type
    """Make SIGHUP stop the reactor unless it is ignored; for commands that have no files to read again."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) != signal.SIG_DFL:
        return

    def stop() -> None:
        with suppress(ReactorNotRunning):  # a signal has stopped it already
            reactor.stop()

    def on_signal(*_: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # the shell sends a second one
        reactor.callFromThread(stop)

    signal.signal(number, on_signal)


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0))
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EIO):
            return False
        # The container has no /dev/tty, or the process has no free descriptor: check the standard streams.
        return any(map(_is_controlling, range(3)))
    os.close(descriptor)
    return True


def _is_controlling(descriptor: int) -> bool:
    try:
        os.tcgetpgrp(descriptor)
    except (OSError, AttributeError):
        return False
    return True
