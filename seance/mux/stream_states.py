"""The state machines of a stream transport, as tables.

This file defines *which step may follow which*; ``seance.mux.stream`` applies the tables and acts on them. A
step that is not in a table is an error of ours: every step that a peer can cause is allowed in every state.

A transport has three small machines. Two are for its halves, one for the whole::

    ReadState, the receiving half

    OPEN --FIN--> END_PENDING --REPORT--> ENDED

    WriteState, the sending half

    OPEN --END--> ENDING --FIN--> ENDED
      |              |
      +----RESET-----+----------> CUT

    Lifecycle, the whole transport

    OPEN --CLOSE--> CLOSING --ABORT--> ABORTING --LOSE--> LOST

In ``ReadState``, FIN is the peer's end of data. It is reported after the data before it, for which a paused
protocol makes it wait. In ``WriteState``, END is the protocol's request to end, and FIN means that our end
was sent. ``Lifecycle`` may skip states. In CLOSING, received data is dropped and the send queue is still
sent. In ABORTING the stream is reset, and ``connectionLost`` follows in the next turn of the reactor. A LOST
stream may still wait for the peer's end.

Whether the protocol has paused the stream and whether a producer is paused are independent of these states.
The peer's reset is in no table either: it can come in any state, and the transport keeps its reason.

The states are integers, because the hash of an ``enum.Enum`` is a Python function: a lookup takes a fifth.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["LIFECYCLE", "READ", "WRITE", "Lifecycle", "ReadState", "TransportStep", "WriteState"]


class TransportStep(enum.IntEnum):
    """A step of a transport."""

    FIN = 1
    REPORT = 2
    END = 3
    RESET = 4
    CLOSE = 5
    ABORT = 6
    LOSE = 7


class ReadState(enum.IntEnum):
    """State of the receiving half."""

    OPEN = 1
    END_PENDING = 2
    ENDED = 3


class WriteState(enum.IntEnum):
    """State of the sending half."""

    OPEN = 1
    ENDING = 2
    ENDED = 3
    CUT = 4


class Lifecycle(enum.IntEnum):
    """State of the whole transport."""

    OPEN = 1
    CLOSING = 2
    ABORTING = 3
    LOST = 4


READ: Final[Mapping[tuple[ReadState, TransportStep], ReadState]] = MappingProxyType(
    {
        (ReadState.OPEN, TransportStep.FIN): ReadState.END_PENDING,
        (ReadState.END_PENDING, TransportStep.FIN): ReadState.END_PENDING,
        (ReadState.END_PENDING, TransportStep.REPORT): ReadState.ENDED,
        (ReadState.ENDED, TransportStep.FIN): ReadState.ENDED,
    }
)
"""Transitions of the receiving half."""

WRITE: Final[Mapping[tuple[WriteState, TransportStep], WriteState]] = MappingProxyType(
    {
        (WriteState.OPEN, TransportStep.END): WriteState.ENDING,
        (WriteState.OPEN, TransportStep.FIN): WriteState.ENDED,  # a reactor's writeConnectionLost
        (WriteState.OPEN, TransportStep.RESET): WriteState.CUT,
        (WriteState.ENDING, TransportStep.END): WriteState.ENDING,
        (WriteState.ENDING, TransportStep.FIN): WriteState.ENDED,
        (WriteState.ENDING, TransportStep.RESET): WriteState.CUT,
        (WriteState.ENDED, TransportStep.END): WriteState.ENDED,
        (WriteState.ENDED, TransportStep.FIN): WriteState.ENDED,
        (WriteState.ENDED, TransportStep.RESET): WriteState.ENDED,
        (WriteState.CUT, TransportStep.END): WriteState.CUT,
        (WriteState.CUT, TransportStep.FIN): WriteState.CUT,
        (WriteState.CUT, TransportStep.RESET): WriteState.CUT,
    }
)
"""Transitions of the sending half."""

LIFECYCLE: Final[Mapping[tuple[Lifecycle, TransportStep], Lifecycle]] = MappingProxyType(
    {
        (Lifecycle.OPEN, TransportStep.CLOSE): Lifecycle.CLOSING,
        (Lifecycle.OPEN, TransportStep.ABORT): Lifecycle.ABORTING,
        (Lifecycle.OPEN, TransportStep.LOSE): Lifecycle.LOST,
        (Lifecycle.CLOSING, TransportStep.CLOSE): Lifecycle.CLOSING,
        (Lifecycle.CLOSING, TransportStep.ABORT): Lifecycle.ABORTING,
        (Lifecycle.CLOSING, TransportStep.LOSE): Lifecycle.LOST,
        (Lifecycle.ABORTING, TransportStep.ABORT): Lifecycle.ABORTING,
        (Lifecycle.ABORTING, TransportStep.LOSE): Lifecycle.LOST,
    }
)
"""Transitions of the whole transport."""
