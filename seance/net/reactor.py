"""Twisted's epoll reactor with three shortcuts for small messages.

Descriptors, timers, signals and threads are those of Twisted's ``EPollReactor``, and all transports work as
with that reactor. Three operations, each of which a small message needs several times, are faster (figures:
docs/decisions/0017-*.md):

* *A ready descriptor* is processed directly, and a readable one also without Twisted's checks. Twisted sets
  up a logging context in two layers first; log events of this module have a separate namespace.
* *A call for this turn*, ``callLater(0, ...)``, is kept in a list and runs after all ready descriptors. In
  Twisted it is a timer, with a heap and a query of the clock.
* *Timers and calls from threads* are processed only if there is a new or a due one. Twisted does it in each
  turn.

Relay and agent use it on Linux, unless ``twistd --reactor`` or ``SEANCE_REACTOR`` selects another one
(``seance.options.flags``). Nothing else in the project imports this module.
"""

from __future__ import annotations

from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from twisted.internet import main
from twisted.internet.base import DelayedCall
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

__all__ = ["FastReactor", "install"]


class FastReactor(EPollReactor):
    """The reactor; see ``install``."""

    _log = Logger()

    def __init__(self) -> None:
        self._soon: list[Any] = []
        super().__init__()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """Call after ``delay`` seconds; with 0 after all descriptors that are ready now."""
        if delay:
            return super().callLater(delay, callable, *args, **kw)
        call = DelayedCall(self.seconds(), callable, args, kw, _ignore, _ignore, self.seconds)
        self._soon.append(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Return all pending calls."""
        return [*super().getDelayedCalls(), *(call for call in self._soon if not call.cancelled)]

    def mainLoop(self) -> None:
        """Run until the reactor is stopped."""
        while self._started:
            with self._log.failuresHandled("Unhandled error in the main loop", event="reactor.loop_failed"):
                self.runUntilCurrent()
                timeout = self.timeout()
                self.doPoll(timeout if self.running else 0)
                while self.running and not (self._newTimedCalls or self.threadCallQueue or self._justStopped):
                    timeout = self.timeout()
                    if timeout == 0:
                        break
                    self.doPoll(timeout)

    def doPoll(self, timeout: float | None) -> None:
        """Wait for ready descriptors and process them, then the calls for this turn."""
        if self._soon:
            timeout = 0
        elif timeout is None:
            timeout = -1
        selectables = self._selectables
        for descriptor, event in self._poller.poll(timeout, len(selectables)):
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue  # closed by the handler of another descriptor
            if event == EPOLLIN:
                try:
                    why = selectable.doRead()
                except BaseException as error:  # noqa: BLE001  # as in Twisted: only this connection is lost
                    why = error
                    self._log.failure("Unhandled error while reading", event="reactor.read_failed")
                if why:
                    self._disconnectSelectable(selectable, why, True)
            else:
                self._doReadOrWrite(selectable, descriptor, event)
        if self._soon:
            self._run_soon_calls()

    doIteration = doPoll

    def _run_soon_calls(self) -> None:
        # Calls that these calls add run in the next turn, after another poll.
        calls, self._soon = self._soon, []
        for call in calls:
            if call.cancelled:
                continue
            if call.delayed_time > 0:  # It was delayed meanwhile, so it is an ordinary timer from now on.
                call.canceller, call.resetter = self._cancelCallLater, self._moveCallLaterSooner
                self._newTimedCalls.append(call)
            else:
                self._call(call)

    def _call(self, call: Any) -> None:  # noqa: ANN401  # Twisted's, whose types are incomplete
        call.called = 1
        try:
            call.func(*call.args, **call.kw)
        except BaseException:  # noqa: BLE001  # as Twisted
            self._log.failure("Unhandled error in a delayed call", event="reactor.call_failed")


def install() -> None:
    """Make it the reactor of this process. ``twistd`` requires a function of this name."""
    main.installReactor(FastReactor())


def _ignore(call: object) -> None:
    """Do nothing: a cancelled or delayed call is detected when it is due."""
