"""What SIGHUP means to a relay or an agent: read your files again.

Twisted leaves this signal alone, and the system's answer to it is to end the process without taking
leave. Only one thing in a process can have it, so this belongs to the doors; a program that
embeds Seance calls ``Relay.reread`` from a place of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

__all__ = ["OnHangUp"]

STDIN = 0


class OnHangUp(Service):
    """Calls functions when SIGHUP comes, in the reactor's thread.

    A terminal that is closed sends the same signal and means the opposite: nobody is there any
    more. Then the reactor is stopped, as the person expects who closes a window.

    Args:
        reactor: Twisted's reactor.
        rereads: What reads files again.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *rereads: Callable[[], None]) -> None:  # noqa: ANN401  # no common type
        self._reactor = reactor
        self._rereads = rereads
        self._had_terminal = False
        self._restore: Callable[[], object] | None = None

    def startService(self) -> None:
        """Take the signal, where there is one and this is the thread that may."""
        super().startService()
        if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
            return
        self._had_terminal = os.isatty(STDIN)
        before = signal.signal(signal.SIGHUP, self._heard)
        self._restore = lambda: signal.signal(signal.SIGHUP, before)

    def stopService(self) -> None:
        """Give the signal back: whoever sends it while we take leave does not want to wait."""
        super().stopService()
        if self._restore is not None:
            self._restore()
            self._restore = None

    def _heard(self, *_: object) -> None:
        self._reactor.callFromThread(self._obey)

    def _obey(self) -> None:
        if self._had_terminal and not _has_terminal():
            self._reactor.stop()
            return
        self._log.info("SIGHUP: files are read again", event="hangup.reread")
        for reread in self._rereads:
            try:
                reread()
            except Exception:  # noqa: BLE001  # one that fails must not keep the others from theirs
                self._log.failure("Files could not be read again", event="hangup.mistake")


def _has_terminal() -> bool:
    try:
        os.tcgetpgrp(STDIN)
    except OSError:
        return False
    return True
