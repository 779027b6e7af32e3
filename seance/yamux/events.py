"""The events that a session reports to its owner: one small class each.

``Session.take_events()`` returns them in the order in which they happened. The dataclasses are not frozen,
because one is made per data frame and freezing triples its cost.

The events of a stream, in order:

1. ``StreamAcknowledged``, once, for a stream that we opened; ``StreamOpened`` for one that the peer opened.
2. ``DataReceived`` and ``StreamWritable``, any number. ``StreamEnded``, at most once; no ``DataReceived``
   follows it. ``EndSent``, at most once; no ``StreamWritable`` follows it.
3. ``StreamClosed`` or ``StreamAborted``, never both. Neither follows ``reset_stream``.

The end of the session ends every stream without an event for each of them. It is reported as
``GoAwayReceived`` with a code other than 0, as ``SessionTimedOut``, or as the RemoteProtocolError of
``receive_data``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from seance.yamux.frames import Bytes

__all__ = [
    "DataReceived",
    "EndSent",
    "Event",
    "GoAwayReceived",
    "PingAnswered",
    "SessionTimedOut",
    "StreamAborted",
    "StreamAcknowledged",
    "StreamClosed",
    "StreamEnded",
    "StreamOpened",
    "StreamWritable",
]


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream. Call ``accept_stream`` or ``reset_stream`` soon."""

    stream_id: int


@dataclass(slots=True)
class StreamAcknowledged:
    """The peer answered a stream that we opened, with an ACK or any other frame."""

    stream_id: int


@dataclass(slots=True)
class DataReceived:
    """Received bytes, never empty. Call ``data_taken(stream_id, count)`` when they are consumed.

    Large data is a view of the bytes given to ``receive_data``; copy it to keep it.
    """

    stream_id: int
    data: Bytes


@dataclass(slots=True)
class StreamEnded:
    """The peer sent FIN: no more data follows. We may still send; ``end_stream`` ends our half."""

    stream_id: int


@dataclass(slots=True)
class EndSent:
    """Our FIN is in the send queue after all data: our half has ended.

    Follows ``end_stream``, immediately or when the queue has drained, and precedes ``StreamClosed``.
    """

    stream_id: int


@dataclass(slots=True)
class StreamAborted:
    """The stream ended by a reset, from either side; queued data is lost.

    Data received before it may still be consumed with ``data_taken``; until then the stream counts as alive.

    Attributes:
        code: The cause. ``"reset"``: the peer reset it. ``"refused"``: the peer reset it before any other
            answer. ``"sent"``: our ``reset_when_sent`` took effect after the queued data. ``"open_timeout"``:
            the peer did not answer in time. ``"data_after_end"``: the peer sent data after its FIN.
            ``"window_budget"``: the budget could not cover the data held.
    """

    stream_id: int
    code: str


@dataclass(slots=True)
class StreamClosed:
    """Both sides have sent FIN, and the session has dropped the stream."""

    stream_id: int


@dataclass(slots=True)
class StreamWritable:
    """The send queue has drained from above the high-water mark to the low-water mark: continue to write."""

    stream_id: int


@dataclass(slots=True)
class PingAnswered:
    """The peer answered our ping."""

    round_trip_seconds: float


@dataclass(slots=True)
class GoAwayReceived:
    """The peer is going away. Code 0: no new streams, open ones continue. Any other code ends the session."""

    code: int


@dataclass(slots=True)
class SessionTimedOut:
    """The peer did not answer a ping in time: the session is over; drop the carrier."""


Event: TypeAlias = (
    StreamOpened
    | StreamAcknowledged
    | DataReceived
    | StreamEnded
    | EndSent
    | StreamAborted
    | StreamClosed
    | StreamWritable
    | PingAnswered
    | GoAwayReceived
    | SessionTimedOut
)
