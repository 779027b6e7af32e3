"""The two half-machines of a stream, as tables.

Rules for this file: whatever says *which step may follow which* lives here; nothing here knows
frames, windows, queues or which side opened the stream. The session walks the tables.

A yamux stream is two one-way pipes that share an id and a reset. So it has two small machines,
not one machine over the product of their states (hashicorp's has eight states, and three of its
branches have to jump into one another)::

    ours, Sending                              theirs, Receiving

    OPEN --END--> ENDING --FIN--> ENDED        OPEN --FIN--> ENDED
     |              |               |           |              |
    DATA           END             END         DATA           FIN

``END`` is the application's wish to end; ``FIN`` the frame on the wire. Between them our half is
ENDING: queued data has yet to leave, nothing may be added. Ending twice changes nothing, in either
direction: hashicorp ends a whole session over a second FIN, and there is nothing to gain from that.

What is missing in a table is a mistake, and whose it is depends on the table. DATA after our END
is our application's (``LocalProtocolError``). DATA after their FIN is the peer's, and it costs the
peer this stream, not the session.

A reset is in neither table because it needs no state: it ends both halves at once and the stream is
forgotten. When both halves are ENDED it is forgotten too. Whether an open was answered is a third,
independent fact, and one boolean (``Stream.is_acknowledged``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["RECEIVING", "SENDING", "Receiving", "Sending", "Step"]


class Step(enum.Enum):
    """What can happen on a half."""

    DATA = "data"
    END = "end"
    FIN = "fin"


class Sending(enum.Enum):
    """Our half: what we may still send."""

    OPEN = "open"
    ENDING = "ending"
    ENDED = "ended"


class Receiving(enum.Enum):
    """The peer's half: what it may still send."""

    OPEN = "open"
    ENDED = "ended"


SENDING: Final[Mapping[tuple[Sending, Step], Sending]] = MappingProxyType(
    {
        (Sending.OPEN, Step.DATA): Sending.OPEN,
        (Sending.OPEN, Step.END): Sending.ENDING,
        (Sending.ENDING, Step.END): Sending.ENDING,
        (Sending.ENDING, Step.FIN): Sending.ENDED,
        (Sending.ENDED, Step.END): Sending.ENDED,
    }
)
"""Where our half goes. Data is the hot step, so the session asks ``is Sending.OPEN`` for it; a test
keeps the two the same."""

RECEIVING: Final[Mapping[tuple[Receiving, Step], Receiving]] = MappingProxyType(
    {
        (Receiving.OPEN, Step.DATA): Receiving.OPEN,
        (Receiving.OPEN, Step.FIN): Receiving.ENDED,
        (Receiving.ENDED, Step.FIN): Receiving.ENDED,
    }
)
"""Where the peer's half goes. For data the session asks ``is Receiving.OPEN``, as above."""
