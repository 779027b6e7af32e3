"""The state machines of a stream transport, as tables.

This file defines *which step may follow which*; ``seance.mux.stream`` applies the tables and acts on them. A
step that is not in a table is an error of ours: every step that a peer can cause is allowed in every state.

A transport has three small machines: ``ReadState`` and ``WriteState`` for its halves, ``Lifecycle`` for the
whole. docs/states.md shows all transitions.

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

__all__ = ["LIFECYCLE", "READ", "WRITE", "Lifecycle", "ReadState", "StreamStep", "WriteState"]


class StreamStep(enum.IntEnum):
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


READ: Final[Mapping[tuple[ReadState, StreamStep], ReadState]] = MappingProxyType(
    {
        (ReadState.OPEN, StreamStep.FIN): ReadState.END_PENDING,
        (ReadState.END_PENDING, StreamStep.FIN): ReadState.END_PENDING,
        (ReadState.END_PENDING, StreamStep.REPORT): ReadState.ENDED,
        (ReadState.ENDED, StreamStep.FIN): ReadState.ENDED,
    }
)
"""Transitions of the receiving half."""

WRITE: Final[Mapping[tuple[WriteState, StreamStep], WriteState]] = MappingProxyType(
    {
        (WriteState.OPEN, StreamStep.END): WriteState.ENDING,
        (WriteState.OPEN, StreamStep.FIN): WriteState.ENDED,  # a reactor's writeConnectionLost
        (WriteState.OPEN, StreamStep.RESET): WriteState.CUT,
        (WriteState.ENDING, StreamStep.END): WriteState.ENDING,
        (WriteState.ENDING, StreamStep.FIN): WriteState.ENDED,
        (WriteState.ENDING, StreamStep.RESET): WriteState.CUT,
        (WriteState.ENDED, StreamStep.END): WriteState.ENDED,
        (WriteState.ENDED, StreamStep.FIN): WriteState.ENDED,
        (WriteState.ENDED, StreamStep.RESET): WriteState.ENDED,
        (WriteState.CUT, StreamStep.END): WriteState.CUT,
        (WriteState.CUT, StreamStep.FIN): WriteState.CUT,
        (WriteState.CUT, StreamStep.RESET): WriteState.CUT,
    }
)
"""Transitions of the sending half."""

LIFECYCLE: Final[Mapping[tuple[Lifecycle, StreamStep], Lifecycle]] = MappingProxyType(
    {
        (Lifecycle.OPEN, StreamStep.CLOSE): Lifecycle.CLOSING,
        (Lifecycle.OPEN, StreamStep.ABORT): Lifecycle.ABORTING,
        (Lifecycle.OPEN, StreamStep.LOSE): Lifecycle.LOST,
        (Lifecycle.CLOSING, StreamStep.CLOSE): Lifecycle.CLOSING,
        (Lifecycle.CLOSING, StreamStep.ABORT): Lifecycle.ABORTING,
        (Lifecycle.CLOSING, StreamStep.LOSE): Lifecycle.LOST,
        (Lifecycle.ABORTING, StreamStep.ABORT): Lifecycle.ABORTING,
        (Lifecycle.ABORTING, StreamStep.LOSE): Lifecycle.LOST,
    }
)
"""Transitions of the whole transport."""
