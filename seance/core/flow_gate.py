"""Pauses one leg of a splice: while its consumer is full, and while a rate limit is exceeded.

A ``FlowGate`` stands between a leg and the transport that consumes its data. It pauses the leg for two
independent reasons: the consumer is full, or the room has used up its bytes per second. It resumes the leg
when neither holds. It also reports a consumer that accepts no bytes for ``stalled_seconds``: the kernel
keeps a dead connection open, so the relay has to close such a client itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from seance.core.token_bucket import TokenBucket
from seance.net import Leg

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["FlowGate", "RateLimit"]


class RateLimit:
    """A limit in bytes per second, for one client or shared by all clients of a room; both directions count.

    Args:
        reactor: Provides the time.
        bytes_per_second: The rate. The burst is the amount of one second.
        within: Another limit to which the same bytes are charged, such as that of the room.
    """

    def __init__(
        self, reactor: IReactorTime, bytes_per_second: int, *, within: RateLimit | None = None
    ) -> None:
        self._reactor = reactor
        self._within = within
        self._bucket = TokenBucket(bytes_per_second, bytes_per_second, reactor.seconds())

    def change(self, bytes_per_second: int) -> None:
        """Set another rate, for all that share this limit."""
        self._bucket = TokenBucket(bytes_per_second, bytes_per_second, self._reactor.seconds())

    def spend(self, count: int) -> float:
        """Charge ``count`` received bytes; return for how many seconds their source has to pause."""
        seconds = self._bucket.charge(count, self._reactor.seconds())
        return seconds if self._within is None else max(seconds, self._within.spend(count))


@implementer(IPushProducer)
class FlowGate:
    """Makes one side of a splice a push producer that can also be paused for a number of seconds.

    Args:
        reactor: Provides the time.
        leg: The transport to pause and resume.
        on_stalled: Called when the consumer has been full for ``stalled_seconds`` without accepting a byte;
            None disables the check.
        stalled_seconds: Interval of that check.
        unsent_bytes: Returns how many bytes the consumer holds now.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        leg: Leg,
        *,
        on_stalled: Callable[[], None] | None = None,
        stalled_seconds: float = 30.0,
        unsent_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self._reactor = reactor
        self._leg = leg
        self._on_stalled = on_stalled
        self._stalled_seconds = stalled_seconds
        self._unsent_bytes = unsent_bytes
        self._unsent_at_last_check = 0
        self._consumer_is_full = False
        self._pause_timer: IDelayedCall | None = None
        self._stall_timer: IDelayedCall | None = None

    def pause_for(self, seconds: float) -> None:
        """Pause the leg for a time. During such a pause a second call does nothing."""
        if self._pause_timer is None:
            self._pause_timer = self._reactor.callLater(seconds, self._pause_is_over)
            self._leg.pauseProducing()

    def pauseProducing(self) -> None:
        """The consumer is full: pause the leg."""
        if not self._consumer_is_full:
            self._consumer_is_full = True
            self._leg.pauseProducing()
            self._start_stall_timer()

    def resumeProducing(self) -> None:
        """The consumer accepts data again: resume the leg, unless it is paused for a time."""
        self._consumer_is_full = False
        self._stop_stall_timer()
        if self._pause_timer is None:
            self._leg.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone. The splice decides what happens to the leg."""
        self.close()

    def close(self) -> None:
        """Cancel all timers: the splice has ended."""
        self._stop_stall_timer()
        self._on_stalled = None
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None

    def _pause_is_over(self) -> None:
        self._pause_timer = None
        if not self._consumer_is_full:
            self._leg.resumeProducing()

    def _start_stall_timer(self) -> None:
        if self._on_stalled is not None:
            self._unsent_at_last_check = self._unsent_bytes()
            self._stall_timer = self._reactor.callLater(self._stalled_seconds, self._check_stalled)

    def _check_stalled(self) -> None:
        self._stall_timer = None
        if self._unsent_bytes() != self._unsent_at_last_check:
            self._start_stall_timer()
        elif self._on_stalled is not None:
            self._on_stalled()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
