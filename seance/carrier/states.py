"""The states of ``Carrier`` and ``ResumableTransport``, as tables of transitions.

A missing entry means that the step is ignored and the state stays as it is. Twisted's transports ignore a
second close or abort in the same way, and the layers below may report an end after this side has closed.
docs/states.md shows all transitions.

``Carrier`` has one machine. ``ResumableTransport`` has one for itself and one for the flow of data to the
carrier.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "CARRIER",
    "FLOW",
    "TRANSPORT",
    "CarrierState",
    "CarrierStep",
    "Flow",
    "FlowStep",
    "TransportState",
    "TransportStep",
]


class CarrierState(enum.Enum):
    """The state of a carrier."""

    OPEN = "open"
    CLOSING = "closing"
    """``close`` was called; the close frame waits until no producer is registered."""
    CLOSE_SENT = "close sent"
    ABORTING = "aborting"
    UNREAD = "unread"
    """The WebSocket has ended normally, but the protocol has not yet received all data."""
    ENDING = "ending"
    """The same, but the protocol has closed: its ``connectionLost`` is called in the next turn."""
    LOST = "lost"
    """The protocol's ``connectionLost`` was called."""


class CarrierStep(enum.Enum):
    """An event of a carrier."""

    CLOSE = "close"
    SEND_CLOSE = "send close"
    ABORT = "abort"
    ENDED_UNREAD = "ended unread"
    LOST = "lost"


CARRIER: Final[Mapping[tuple[CarrierState, CarrierStep], CarrierState]] = MappingProxyType(
    {
        (CarrierState.OPEN, CarrierStep.CLOSE): CarrierState.CLOSING,
        (CarrierState.OPEN, CarrierStep.ABORT): CarrierState.ABORTING,
        (CarrierState.OPEN, CarrierStep.ENDED_UNREAD): CarrierState.UNREAD,
        (CarrierState.OPEN, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.CLOSING, CarrierStep.SEND_CLOSE): CarrierState.CLOSE_SENT,
        (CarrierState.CLOSING, CarrierStep.ABORT): CarrierState.ABORTING,
        (CarrierState.CLOSING, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.CLOSE_SENT, CarrierStep.ABORT): CarrierState.ABORTING,
        (CarrierState.CLOSE_SENT, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.ABORTING, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.UNREAD, CarrierStep.CLOSE): CarrierState.ENDING,
        (CarrierState.UNREAD, CarrierStep.ABORT): CarrierState.ENDING,
        (CarrierState.UNREAD, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.ENDING, CarrierStep.ABORT): CarrierState.ENDING,
        (CarrierState.ENDING, CarrierStep.LOST): CarrierState.LOST,
    }
)


class TransportState(enum.Enum):
    """Whether a resumable transport still accepts carriers and data."""

    OPEN = "open"
    PEER_CLOSING = "peer closing"
    """The peer has sent ``bye``; the protocol may still read data that arrived before it."""
    CLOSING = "closing"
    """This side has closed or aborted; received data is dropped."""
    CLOSED = "closed"


class TransportStep(enum.Enum):
    """An event of a resumable transport."""

    BYE = "bye"
    CLOSE = "close"
    FINISH = "finish"


TRANSPORT: Final[Mapping[tuple[TransportState, TransportStep], TransportState]] = MappingProxyType(
    {
        (TransportState.OPEN, TransportStep.BYE): TransportState.PEER_CLOSING,
        (TransportState.OPEN, TransportStep.CLOSE): TransportState.CLOSING,
        (TransportState.OPEN, TransportStep.FINISH): TransportState.CLOSED,
        (TransportState.PEER_CLOSING, TransportStep.CLOSE): TransportState.CLOSING,
        (TransportState.PEER_CLOSING, TransportStep.FINISH): TransportState.CLOSED,
        (TransportState.CLOSING, TransportStep.FINISH): TransportState.CLOSED,
    }
)


class Flow(enum.Enum):
    """How a resumable transport handles written data."""

    BACKLOG = "backlog"
    """It is stored: there is no carrier, or earlier data is still to be sent. The producer is paused."""
    FULL = "full"
    """It goes to the carrier, but the carrier or the memory for unacknowledged data is full. The producer is
    paused."""
    FLOWING = "flowing"
    """It goes to the carrier, and the producer runs."""


class FlowStep(enum.Enum):
    """An event that concerns the flow."""

    CAUGHT_UP = "caught up"
    FILLED = "filled"
    DRAINED = "drained"
    DETACHED = "detached"


FLOW: Final[Mapping[tuple[Flow, FlowStep], Flow]] = MappingProxyType(
    {
        (Flow.BACKLOG, FlowStep.CAUGHT_UP): Flow.FULL,
        (Flow.FULL, FlowStep.DRAINED): Flow.FLOWING,
        (Flow.FLOWING, FlowStep.FILLED): Flow.FULL,
        (Flow.FULL, FlowStep.DETACHED): Flow.BACKLOG,
        (Flow.FLOWING, FlowStep.DETACHED): Flow.BACKLOG,
    }
)
