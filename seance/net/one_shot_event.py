"""An event that happens at most once, with a Deferred for each waiter.

A public ``Deferred`` attribute is consumed or cancelled by its first user. ``when`` gives each caller a
separate one, as in txtorcon.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

__all__ = ["OneShotEvent"]

T = TypeVar("T")


class OneShotEvent(Generic[T]):
    """Fires once, with a value or a failure; ``reset`` allows it to fire again."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[T], None] = {}
        self._outcome: tuple[T] | Failure | None = None

    @property
    def has_fired(self) -> bool:
        """Whether it has fired."""
        return self._outcome is not None

    @property
    def failure(self) -> Failure | None:
        """The failure if the event has failed, else None."""
        return self._outcome if isinstance(self._outcome, Failure) else None

    def when(self) -> Deferred[T]:
        """Return a new Deferred for the event. Cancelling it does not affect other waiters."""
        if isinstance(self._outcome, Failure):
            return fail(self._outcome)
        if self._outcome is not None:
            return succeed(self._outcome[0])
        waiting: Deferred[T] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def fire(self, value: T) -> None:
        """Fire all waiting Deferreds with ``value``. A second call does nothing."""
        if self._outcome is None:
            self._outcome = (value,)
            while self._waiting:
                self._next_waiting().callback(value)

    def fail(self, failure: Failure) -> None:
        """Fail all waiting Deferreds with ``failure``. A second call does nothing."""
        if self._outcome is None:
            self._outcome = failure
            while self._waiting:
                self._next_waiting().errback(failure)

    def reset(self) -> None:
        """Allow the event to fire again. Waiting Deferreds keep waiting."""
        self._outcome = None

    def _forget(self, waiting: Deferred[T]) -> None:
        self._waiting.pop(waiting, None)

    def _next_waiting(self) -> Deferred[T]:
        # One at a time, because a callback may cancel another waiting Deferred.
        waiting = next(iter(self._waiting))
        del self._waiting[waiting]
        return waiting
