"""The two ends of one carrier below a ``LastingCarrier``: what arrives, and what the carrier pauses.

Each knows its epoch, so that a carrier which another one has followed is told from its successor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.carrier.transport import Carrier

if TYPE_CHECKING:
    from seance.carrier.lasting import LastingCarrier

__all__ = ["Inlet", "Outlet"]


class Inlet(Protocol):
    """What stands at the end of one carrier.

    Args:
        on_open: Called with this inlet when the carrier is open; calls ``LastingCarrier.join``.
    """

    def __init__(self, on_open: Callable[[Inlet], None]) -> None:
        self._on_open = on_open
        self._lasting: LastingCarrier | None = None
        self.epoch = 0

    @property
    def carrier(self) -> Carrier:
        """The carrier."""
        return cast(Carrier, self.transport)

    def serve(self, lasting: LastingCarrier, epoch: int) -> None:
        """Take what comes to ``lasting`` from now on; for ``LastingCarrier`` alone."""
        self._lasting, self.epoch = lasting, epoch
        # One call less for each message.
        self.dataReceived = partial(lasting.data_arrived, epoch)  # type: ignore[method-assign]

    def connectionMade(self) -> None:
        """The carrier is open."""
        self._on_open(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The carrier is gone."""
        if self._lasting is not None:
            self._lasting.carrier_lost(self.epoch, reason)


@implementer(IPushProducer)
class Outlet:
    """What a carrier pauses and resumes.

    Args:
        lasting: Who is told.
        epoch: Of the carrier.
    """

    def __init__(self, lasting: LastingCarrier, epoch: int) -> None:
        self._lasting = lasting
        self._epoch = epoch

    def pauseProducing(self) -> None:
        """The carrier takes no more for now."""
        self._lasting.carrier_is_full(self._epoch)

    def resumeProducing(self) -> None:
        """The carrier takes more."""
        self._lasting.carrier_has_room(self._epoch)

    def stopProducing(self) -> None:
        """The carrier is gone, which ``Inlet`` tells."""
