"""The protocol and the producer that connect one carrier to a ``ResumableTransport``.

Both have the epoch of their carrier, so that calls of a replaced carrier can be told from those of its
successor.
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
    """The interface of ``ResumableTransport`` for its carriers. Each call has the epoch of the carrier."""

    def data_arrived(self, epoch: int, data: bytes) -> None:
        """Receive data."""

    def carrier_lost(self, epoch: int, reason: Failure) -> None:
        """Handle the loss of the carrier."""

    def carrier_is_full(self, epoch: int) -> None:
        """Write nothing until ``carrier_has_room``."""

    def carrier_has_room(self, epoch: int) -> None:
        """Write again."""


class CarrierProtocol(Protocol):
    """The protocol of one carrier.

    Args:
        on_open: Called with this protocol when the carrier is open; it calls ``ResumableTransport.join``.
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
        """Deliver to ``owner`` from now on. Called by ``ResumableTransport``."""
        self._owner, self.epoch = owner, epoch
        # Saves one call per message.
        self.dataReceived = partial(owner.data_arrived, epoch)  # type: ignore[method-assign]

    def connectionMade(self) -> None:
        """Report the open carrier."""
        self._on_open(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the lost carrier."""
        if self._owner is not None:
            self._owner.carrier_lost(self.epoch, reason)


@implementer(IPushProducer)
class CarrierProducer:
    """The producer that a carrier pauses while it is full.

    Args:
        owner: The transport to pause and resume.
        epoch: The epoch of the carrier.
    """

    def __init__(self, owner: CarrierOwner, epoch: int) -> None:
        self._owner = owner
        self._epoch = epoch

    def pauseProducing(self) -> None:
        """Report that the carrier is full."""
        self._owner.carrier_is_full(self._epoch)

    def resumeProducing(self) -> None:
        """Report that the carrier can take more data."""
        self._owner.carrier_has_room(self._epoch)

    def stopProducing(self) -> None:
        """Do nothing: ``CarrierProtocol`` reports the lost carrier."""
