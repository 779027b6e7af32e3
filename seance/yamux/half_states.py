"""The state machines of the two halves of a stream, as tables.

This file defines *which step may follow which*. It does not deal with frames, windows, queues, or which side
opened the stream. The session applies the tables. docs/states.md shows all transitions.

A yamux stream consists of two one-way pipes that share an id and a reset. So it has two small machines rather
than one over the product of their states (hashicorp/yamux has one with eight states, and three of its
branches jump into one another)::

    ours, Sending                              the peer's, Receiving

    OPEN --END--> ENDING --FIN--> ENDED        OPEN --FIN--> ENDED
     |              |               |           |              |
    DATA           END             END         DATA           FIN

``END`` is the application's request to end; ``FIN`` is the frame on the wire. Between the two, our half is
ENDING: queued data has still to be sent, and no data may be added. A second end changes nothing, in either
direction (hashicorp/yamux ends the whole session over a second FIN).

A step that is not in the table is an error. DATA after our END is an error of our application
(``LocalProtocolError``). DATA after the peer's FIN is an error of the peer and resets this stream, not the
session.

A reset is in neither table, because it needs no state: it ends both halves, and the session drops the stream.
It also drops the stream when both halves are ENDED. Whether an open was answered is independent of both, and
one boolean (``Stream.is_acknowledged``).

The states are integers, because the hash of an ``enum.Enum`` is a Python function: a lookup takes a fifth.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["RECEIVING", "SENDING", "Receiving", "Sending", "Step"]


class Step(enum.IntEnum):
    """A step of one half."""

    DATA = 1
    END = 2
    FIN = 3


class Sending(enum.IntEnum):
    """State of our half."""

    OPEN = 1
    ENDING = 2
    ENDED = 3


class Receiving(enum.IntEnum):
    """State of the peer's half."""

    OPEN = 1
    ENDED = 2


SENDING: Final[Mapping[tuple[Sending, Step], Sending]] = MappingProxyType(
    {
        (Sending.OPEN, Step.DATA): Sending.OPEN,
        (Sending.OPEN, Step.END): Sending.ENDING,
        (Sending.ENDING, Step.END): Sending.ENDING,
        (Sending.ENDING, Step.FIN): Sending.ENDED,
        (Sending.ENDED, Step.END): Sending.ENDED,
    }
)
"""Transitions of our half. DATA is frequent, so the session tests ``is Sending.OPEN`` instead; a test
compares the two."""

RECEIVING: Final[Mapping[tuple[Receiving, Step], Receiving]] = MappingProxyType(
    {
        (Receiving.OPEN, Step.DATA): Receiving.OPEN,
        (Receiving.OPEN, Step.FIN): Receiving.ENDED,
        (Receiving.ENDED, Step.FIN): Receiving.ENDED,
    }
)
"""Transitions of the peer's half. For DATA the session tests ``is Receiving.OPEN``, as above."""
