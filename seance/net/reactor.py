"""Twisted's reactor for Linux, with three short ways for what a tunnel does all day.

Not a reactor of its own: descriptors, timers, signals and threads are Twisted's ``EPollReactor``, and every
transport works on it as it does there. Three things take another way, because each small message goes by
them several times (figures: decision 17):

* *a descriptor that can be read* and nothing else is read at once. Twisted goes through two layers that set
  up a context for the log; what is logged here has a namespace of its own;
* *a call for this turn*, ``callLater(0, ...)``, is kept in a list that is worked off when all that was ready
  has been read. In Twisted it is a timer, with a heap and a look at the clock;
* *timers and calls from threads* are gone through when there is a new one or one to be called. Twisted does
  it in each turn.

Relay and agent run on it on Linux, unless ``twistd --reactor`` or ``SEANCE_REACTOR`` names another
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
from twisted.python import log

__all__ = ["FastReactor", "install"]


class FastReactor(EPollReactor):
    """The reactor. ``install`` makes it the one of the process."""

    _log = Logger()

    def __init__(self) -> None:
        self._soon: list[Any] = []
        super().__init__()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """Call after ``delay`` seconds; with 0 when all that is ready now has been read."""
        if delay:
            return super().callLater(delay, callable, *args, **kw)
        call = DelayedCall(self.seconds(), callable, args, kw, _ignore, _ignore, self.seconds)
        self._soon.append(call)
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Return all that is still to be called."""
        return [*super().getDelayedCalls(), *(call for call in self._soon if not call.cancelled)]

    def mainLoop(self) -> None:
        """Run until somebody stops it."""
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
        """Wait until something is ready, and work it off; then what was asked for in this turn."""
        if self._soon:
            timeout = 0
        elif timeout is None:
            timeout = -1
        selectables = self._selectables
        for descriptor, event in self._poller.poll(timeout, len(selectables)):
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue  # closed by what was ready before it
            if event == EPOLLIN:
                try:
                    why = selectable.doRead()
                except BaseException as error:  # noqa: BLE001  # as Twisted: it costs this connection alone
                    why = error
                    self._log.failure("Unhandled error over what was read", event="reactor.read_failed")
                if why:
                    self._disconnectSelectable(selectable, why, True)
            else:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
        if self._soon:
            self._work_off()

    doIteration = doPoll

    def _work_off(self) -> None:
        # What these calls ask for in turn comes in the next round, after another look at the descriptors.
        calls, self._soon = self._soon, []
        for call in calls:
            if call.cancelled:
                continue
            if call.delayed_time > 0:  # Somebody has put it off since: it is a timer now, and may be again.
                call.canceller, call.resetter = self._cancelCallLater, self._moveCallLaterSooner
                self._newTimedCalls.append(call)
            else:
                self._call(call)

    def _call(self, call: Any) -> None:  # noqa: ANN401  # Twisted's, whose types are incomplete
        call.called = 1
        try:
            call.func(*call.args, **call.kw)
        except BaseException:  # noqa: BLE001  # as Twisted
            self._log.failure("Unhandled error in a call of this turn", event="reactor.call_failed")


def install() -> None:
    """Make it the reactor of this process; for ``twistd``, which looks for this name."""
    main.installReactor(FastReactor())


def _ignore(call: object) -> None:
    """A call that is cancelled or put off is found to be so when its turn comes."""
