"""Something that happens at most once, and the people who wait for it.

A public attribute that is a ``Deferred`` can be consumed or cancelled by whoever finds it first;
a ``when_x()`` method gives each caller one of their own (txtorcon learnt it the hard way,
aesthetics.md 1.4).
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

__all__ = ["OneShotEvent"]

T = TypeVar("T")


class OneShotEvent(Generic[T]):
    """Fires once, with a value or a failure; ``reset`` makes it a new one."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[T], None] = {}
        self._outcome: tuple[T] | Failure | None = None

    @property
    def has_fired(self) -> bool:
        """Whether it has fired."""
        return self._outcome is not None

    @property
    def failure(self) -> Failure | None:
        """Why it will not come; None as long as it may, and if it has."""
        return self._outcome if isinstance(self._outcome, Failure) else None

    def when(self) -> Deferred[T]:
        """Return a Deferred of the caller's own. Cancelling it only stops the waiting."""
        if isinstance(self._outcome, Failure):
            return fail(self._outcome)
        if self._outcome is not None:
            return succeed(self._outcome[0])
        waiting: Deferred[T] = Deferred(self._forget)
        self._waiting[waiting] = None
        return waiting

    def fire(self, value: T) -> None:
        """It has come: everyone who waits gets ``value``. A second call does nothing."""
        if self._outcome is None:
            self._outcome = (value,)
            while self._waiting:
                self._next_waiting().callback(value)

    def fail(self, failure: Failure) -> None:
        """It will not come: everyone who waits gets ``failure``. A second call does nothing."""
        if self._outcome is None:
            self._outcome = failure
            while self._waiting:
                self._next_waiting().errback(failure)

    def reset(self) -> None:
        """Wait again; whoever waits already goes on waiting."""
        self._outcome = None

    def _forget(self, waiting: Deferred[T]) -> None:
        self._waiting.pop(waiting, None)

    def _next_waiting(self) -> Deferred[T]:
        # One at a time: who is told first may cancel the waiting of another.
        waiting = next(iter(self._waiting))
        del self._waiting[waiting]
        return waiting
