"""The two ends of one carrier below a ``ResumableTransport``: what arrives, and what the carrier pauses.

Each knows its epoch, so that a carrier which another one has followed is told from its successor.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.carrier.transport import Carrier

__all__ = ["CarrierOwner", "CarrierProducer", "CarrierProtocol"]


class CarrierOwner(typing.Protocol):
    """The transport that outlives its carriers, a ``ResumableTransport``. Calls name the carrier's epoch."""

    def data_arrived(self, epoch: int, data: bytes) -> None:
        """Take one message."""

    def carrier_lost(self, epoch: int, reason: Failure) -> None:
        """Note that the carrier is gone."""

    def carrier_is_full(self, epoch: int) -> None:
        """Write nothing until ``carrier_has_room``."""

    def carrier_has_room(self, epoch: int) -> None:
        """Write again."""


class CarrierProtocol(Protocol):
    """What stands at the end of one carrier.

    Args:
        on_open: Called with this inlet when the carrier is open; calls ``ResumableTransport.join``.
    """

    def __init__(self, on_open: Callable[[CarrierProtocol], None]) -> None:
        self._on_open = on_open
        self._owner: CarrierOwner | None = None
        self.epoch = 0

    @property
    def carrier(self) -> Carrier:
        """The carrier."""
        return cast(Carrier, self.transport)

    def serve(self, owner: CarrierOwner, epoch: int) -> None:
        """Pass what arrives to ``owner`` from now on; only a ``ResumableTransport`` calls this."""
        self._owner, self.epoch = owner, epoch
        # One call less for each message.
        self.dataReceived = partial(owner.data_arrived, epoch)  # type: ignore[method-assign]

    def connectionMade(self) -> None:
        """The carrier is open."""
        self._on_open(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The carrier is gone."""
        if self._owner is not None:
            self._owner.carrier_lost(self.epoch, reason)


@implementer(IPushProducer)
class CarrierProducer:
    """What a carrier pauses and resumes.

    Args:
        owner: Pauses and resumes with the carrier.
        epoch: The carrier's.
    """

    def __init__(self, owner: CarrierOwner, epoch: int) -> None:
        self._owner = owner
        self._epoch = epoch

    def pauseProducing(self) -> None:
        """The carrier takes no more for now."""
        self._owner.carrier_is_full(self._epoch)

    def resumeProducing(self) -> None:
        """The carrier takes more."""
        self._owner.carrier_has_room(self._epoch)

    def stopProducing(self) -> None:
        """The carrier is gone, which ``CarrierProtocol`` tells."""
