"""The states of ``Carrier`` and ``ResumableTransport``, as tables of transitions.

A missing entry means that the step is ignored and the state stays as it is. Twisted's transports ignore a
second close or abort in the same way, and the layers below may report an end after this side has closed.

``Carrier``::

    OPEN ----CLOSE----> CLOSING --SEND_CLOSE--> CLOSE_SENT       ABORT leads from these three to ABORTING,
      |                                                          LOST leads from all states to LOST
      +--LOST_EARLY---> UNREAD ---CLOSE, ABORT---> LEAVING

``ResumableTransport`` has two independent states, its life and the flow of its data to the carrier::

    OPEN --BYE--> PEER_CLOSING --CLOSE--> CLOSING --FINISH--> OVER
      +----------------CLOSE---------------^            (FINISH leads from all states to OVER)

    BACKLOG --CAUGHT_UP--> FULL --DRAINED--> FLOWING --FILLED--> FULL
                             +---------------> DETACHED leads from FULL and FLOWING to BACKLOG
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["CARRIER", "FLOW", "LIFE", "CarrierState", "CarrierStep", "Flow", "FlowStep", "Life", "LifeStep"]


class CarrierState(enum.Enum):
    """The state of a carrier."""

    OPEN = "open"
    CLOSING = "closing"
    """``close`` was called; the close frame waits until no producer is registered."""
    CLOSE_SENT = "close sent"
    ABORTING = "aborting"
    UNREAD = "unread"
    """The WebSocket has ended normally, but the protocol has not yet received all data."""
    LEAVING = "leaving"
    """As UNREAD, but the protocol has closed: its ``connectionLost`` is called in the next turn."""
    LOST = "lost"
    """The protocol's ``connectionLost`` was called."""


class CarrierStep(enum.Enum):
    """An event of a carrier."""

    CLOSE = "close"
    SEND_CLOSE = "send close"
    ABORT = "abort"
    LOST_EARLY = "lost early"
    LOST = "lost"


CARRIER: Final[Mapping[tuple[CarrierState, CarrierStep], CarrierState]] = MappingProxyType(
    {
        (CarrierState.OPEN, CarrierStep.CLOSE): CarrierState.CLOSING,
        (CarrierState.OPEN, CarrierStep.ABORT): CarrierState.ABORTING,
        (CarrierState.OPEN, CarrierStep.LOST_EARLY): CarrierState.UNREAD,
        (CarrierState.OPEN, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.CLOSING, CarrierStep.SEND_CLOSE): CarrierState.CLOSE_SENT,
        (CarrierState.CLOSING, CarrierStep.ABORT): CarrierState.ABORTING,
        (CarrierState.CLOSING, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.CLOSE_SENT, CarrierStep.ABORT): CarrierState.ABORTING,
        (CarrierState.CLOSE_SENT, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.ABORTING, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.UNREAD, CarrierStep.CLOSE): CarrierState.LEAVING,
        (CarrierState.UNREAD, CarrierStep.ABORT): CarrierState.LEAVING,
        (CarrierState.UNREAD, CarrierStep.LOST): CarrierState.LOST,
        (CarrierState.LEAVING, CarrierStep.ABORT): CarrierState.LEAVING,
        (CarrierState.LEAVING, CarrierStep.LOST): CarrierState.LOST,
    }
)


class Life(enum.Enum):
    """Whether a resumable transport still accepts carriers and data."""

    OPEN = "open"
    PEER_CLOSING = "peer closing"
    """The peer said ``bye``; the protocol may still read data that arrived before it."""
    CLOSING = "closing"
    """This side has closed or aborted; received data is dropped."""
    OVER = "over"


class LifeStep(enum.Enum):
    """An event in the life of a resumable transport."""

    BYE = "bye"
    CLOSE = "close"
    FINISH = "finish"


LIFE: Final[Mapping[tuple[Life, LifeStep], Life]] = MappingProxyType(
    {
        (Life.OPEN, LifeStep.BYE): Life.PEER_CLOSING,
        (Life.OPEN, LifeStep.CLOSE): Life.CLOSING,
        (Life.OPEN, LifeStep.FINISH): Life.OVER,
        (Life.PEER_CLOSING, LifeStep.CLOSE): Life.CLOSING,
        (Life.PEER_CLOSING, LifeStep.FINISH): Life.OVER,
        (Life.CLOSING, LifeStep.FINISH): Life.OVER,
    }
)


class Flow(enum.Enum):
    """What a resumable transport does with written data."""

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
