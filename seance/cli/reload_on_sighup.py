"""What SIGHUP means to a relay or an agent: read your files again, or: your terminal is closed.

Twisted leaves this signal alone, and the system's default ends the process without closing its connections.
Only one handler in a process can have it, so this belongs to the programs; a program that embeds Seance calls
``Relay.reread`` from a place of its own.

A terminal that is closed sends the same signal as ``kill -HUP``. What tells them apart is the *controlling
terminal* (``man 7 pty``, ``setsid(2)``): after a hangup the kernel has taken it from every process of the
session, and ``/dev/tty`` cannot be opened any more. Standard input says nothing: IDEs, ``concurrently`` and
foreman connect it to something else. A service of systemd and a daemon have no terminal from the start.
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

__all__ = ["LOOK_SECONDS", "ReloadOnSighup", "has_terminal", "stop_on_hangup"]

LOOK_SECONDS = 2.0
"""From one look for the terminal to the next; a hangup sends its SIGHUP within milliseconds."""


class ReloadOnSighup(Service):
    """Calls functions when SIGHUP comes, in the reactor's thread.

    * If the process had a controlling terminal and the terminal is gone, the reactor is stopped.
    * If the terminal went a while ago without a signal (``disown``, a shell that has ended), the process
      counts as detached, and SIGHUP means: read your files again.
    * If SIGHUP is ignored from the start (``nohup``), the process leaves it ignored.

    Args:
        reactor: Twisted's reactor.
        rereads: What reads files again.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *rereads: Callable[[], None]) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._rereads = list(rereads)
        self._had_terminal = False
        self._missed_once = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._restore: Callable[[], object] | None = None

    def add(self, reread: Callable[[], None]) -> None:
        """Add a function to call."""
        self._rereads.append(reread)

    def startService(self) -> None:
        """Take the signal, where there is one, nothing ignores it, and this is the main thread."""
        super().startService()
        if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            return
        self._had_terminal, self._missed_once = has_terminal(), False
        before = signal.signal(signal.SIGHUP, self._heard)
        self._restore = lambda: signal.signal(signal.SIGHUP, before)
        if self._had_terminal:
            self._looking.start(LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        """Give the signal back: the next one ends the process without waiting for the rest of the stop."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        if self._restore is not None:
            self._restore()
            self._restore = None

    def _look(self) -> None:
        """Count the process as detached after two looks that found no terminal."""
        if has_terminal():
            self._missed_once = False
        elif not self._missed_once:
            self._missed_once = True
        else:
            self._had_terminal = False
            self._looking.stop()

    def _heard(self, *_: object) -> None:
        # Here, and not in the reactor's next turn: a look in between must not change what the signal means.
        is_closed = self._had_terminal and not has_terminal()
        self._reactor.callFromThread(self._stop if is_closed else self._reread)

    def _stop(self) -> None:
        if self.running:
            # The kernel and the shell each send one; the second must not end the process half way.
            self._restore = None
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._log.info("SIGHUP: the terminal is closed; stopping", event="process.terminal_closed")
            self._reactor.stop()

    def _reread(self) -> None:
        self._log.info("SIGHUP: files are read again", event="hangup.reread")
        for reread in self._rereads:
            try:
                reread()
            except Exception:  # noqa: BLE001  # one that fails must not keep the others from theirs
                self._log.failure("Files could not be read again", event="hangup.mistake")


def stop_on_hangup(reactor: Any) -> None:  # noqa: ANN401  # no common type
    """Have SIGHUP stop the reactor, for commands that have no files to read again; unless it is ignored."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) != signal.SIG_DFL:
        return

    def stop() -> None:
        with suppress(ReactorNotRunning):  # a signal has stopped it already
            reactor.stop()

    def heard(*_: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # the shell sends a second one
        reactor.callFromThread(stop)

    signal.signal(number, heard)


def has_terminal() -> bool:
    """Return whether this process has a controlling terminal."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0))
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EIO):
            return False
        # No such file in this container, or no descriptor left: ask the standard streams.
        return any(map(_is_controlling, range(3)))
    os.close(descriptor)
    return True


def _is_controlling(descriptor: int) -> bool:
    try:
        os.tcgetpgrp(descriptor)
    except (OSError, AttributeError):
        return False
    return True
