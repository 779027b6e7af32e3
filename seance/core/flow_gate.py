"""Between a splice and one of its legs: how fast it may talk, and how long it may refuse to listen.

A ``FlowGate`` stands in for the leg as a producer. It pauses the leg for two reasons that must not be
mixed up: because the consumer is full, and because the room has used up its bytes a second. The
leg is resumed when neither holds. Its other duty is the far side of the first reason: a client that
takes nothing while we hold its bytes is closed after a while, since a kernel that never says no
would keep a dead one for ever.
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

__all__ = ["FlowGate", "Pace"]


class Pace:
    """The bytes a second of a room, shared by all its clients, or of one client; both directions together.

    Args:
        reactor: Where time comes from.
        bytes_per_second: At most, over time; a second's worth may come at once.
        within: A further pace that what is spent here is spent of as well.
    """

    def __init__(self, reactor: IReactorTime, bytes_per_second: int, *, within: Pace | None = None) -> None:
        self._reactor = reactor
        self._within = within
        self._bucket = TokenBucket(bytes_per_second, bytes_per_second, reactor.seconds())

    def change(self, bytes_per_second: int) -> None:
        """Hold whoever shares this pace to another one from now on."""
        self._bucket = TokenBucket(bytes_per_second, bytes_per_second, self._reactor.seconds())

    def spend(self, count: int) -> float:
        """Count bytes that have come; returns for how many seconds their source has to rest."""
        seconds = self._bucket.owe(count, self._reactor.seconds())
        return seconds if self._within is None else max(seconds, self._within.spend(count))


@implementer(IPushProducer)
class FlowGate:
    """A leg as a producer that may rest.

    Args:
        reactor: Where time comes from.
        leg: Whom to pause.
        on_stalled: Called when the consumer has been full, without taking anything, for
            ``stalled_seconds``; None if nobody minds.
        stalled_seconds: How long that may last.
        unsent_bytes: How much the consumer holds now, to see whether it takes anything.
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
        self._unsent_at_look = 0
        self._consumer_is_full = False
        self._resting: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None

    def rest(self, seconds: float) -> None:
        """Pause the leg for a time; a second rest while one lasts is for whoever comes later."""
        if self._resting is None:
            self._resting = self._reactor.callLater(seconds, self._rested)
            self._leg.pauseProducing()

    def pauseProducing(self) -> None:
        """The consumer is full."""
        if not self._consumer_is_full:
            self._consumer_is_full = True
            self._leg.pauseProducing()
            self._look_later()

    def resumeProducing(self) -> None:
        """The consumer takes more."""
        self._consumer_is_full = False
        self._stop_looking()
        if self._resting is None:
            self._leg.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone; what becomes of the leg then is the splice's to say."""
        self.close()

    def close(self) -> None:
        """Cancel what is pending: the splice is over."""
        self._stop_looking()
        self._on_stalled = None
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _rested(self) -> None:
        self._resting = None
        if not self._consumer_is_full:
            self._leg.resumeProducing()

    def _look_later(self) -> None:
        if self._on_stalled is not None:
            self._unsent_at_look = self._unsent_bytes()
            self._looking = self._reactor.callLater(self._stalled_seconds, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._unsent_bytes() != self._unsent_at_look:
            self._look_later()
        elif self._on_stalled is not None:
            self._on_stalled()

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
