"""Timers of the same length that share one timer of the reactor.

Each client starts five timeouts on relay and agent together, and stops nearly all of them in time. With
Twisted's timers that takes a twentieth of the CPU time of a client that comes and goes: each one is an entry
in a heap, which stays there after it was cancelled, and a pass over the heap in the same turn. Calls with the
same delay are due in the order in which they were made, so a dictionary and one timer for the oldest are
enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet.error import AlreadyCalled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

__all__ = ["SharedTimers"]


@implementer(IReactorTime)
class SharedTimers:
    """Replaces a reactor for code that only needs the time. Calls can be cancelled, but not delayed.

    Args:
        reactor: Provides the time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self.seconds = reactor.seconds
        self.call_later = reactor.callLater
        self._reactor = reactor
        self._queues: dict[float, _Queue] = {}
        self._is_started = False

    def start(self) -> None:
        """Keep a timer without calls until it is due: the next connection needs it."""
        self._is_started = True

    def stop(self) -> None:
        """Keep no timer without calls; the service has stopped."""
        self._is_started = False
        for queue in list(self._queues.values()):
            self.drop_if_unused(queue)

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """Call after ``delay`` seconds; see ``IReactorTime``."""
        if not delay:
            return self._reactor.callLater(delay, callable, *args, **kwargs)
        at = self.seconds() + delay
        queue = self._queues.get(delay)
        if queue is None:
            queue = self._queues[delay] = _Queue(self, delay)
        call = _Call(queue, at, callable, args, kwargs)
        queue.calls[call] = None
        return cast(IDelayedCall, call)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Return the timers of the reactor."""
        return self._reactor.getDelayedCalls()

    def drop_if_unused(self, queue: _Queue, *, is_due: bool = False) -> None:
        """Drop a queue without calls, if its timer is due or the service has stopped; only for ``_Queue``."""
        if not queue.calls and (is_due or not self._is_started):
            self._queues.pop(queue.delay, None)
            if queue.timer.active():
                queue.timer.cancel()


class _Queue:
    """The calls with one delay, the oldest first, and the timer of the reactor."""

    __slots__ = ("calls", "delay", "owner", "timer")

    def __init__(self, owner: SharedTimers, delay: float) -> None:
        self.owner = owner
        self.delay = delay
        self.calls: dict[_Call, None] = {}
        self.timer = owner.call_later(delay, self._run_due)

    def _run_due(self) -> None:
        calls, seconds = self.calls, self.owner.seconds
        try:
            while calls and (call := next(iter(calls))).at <= seconds():
                call.take()
                call.function(*call.args, **call.kwargs)
        finally:
            if calls:
                left = next(iter(calls)).at - seconds()
                self.timer = self.owner.call_later(max(0.0, left), self._run_due)
            self.owner.drop_if_unused(self, is_due=True)


class _Call:
    __slots__ = ("_queue", "args", "at", "function", "kwargs")

    def __init__(
        self,
        queue: _Queue,
        at: float,
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> None:
        self._queue: _Queue | None = queue
        self.at = at
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def getTime(self) -> float:  # noqa: N802  # Twisted's name
        return self.at

    def active(self) -> bool:
        return self._queue is not None

    def cancel(self) -> None:
        queue = self.take()
        if not queue.calls and queue.timer.active():
            queue.owner.drop_if_unused(queue)

    def take(self) -> _Queue:
        """Remove the call from its queue, and return the queue."""
        queue, self._queue = self._queue, None
        if queue is None:
            raise AlreadyCalled
        del queue.calls[self]
        return queue
