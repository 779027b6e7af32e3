"""What a session tells its owner: one small class per fact, and nothing that acts.

``Session.take_events()`` returns them in the order in which they happened. They are plain rather than
frozen dataclasses because one is made per data frame, and freezing triples what that costs.

The life of a stream in events: one we opened says ``StreamAcknowledged`` once, one of the peer's
begins with ``StreamOpened``. Then ``DataReceived`` and ``StreamWritable``, any number; ``StreamEnded``
at most once, and no ``DataReceived`` after it; ``EndSent`` at most once, and no ``StreamWritable`` after it.
The last is ``StreamClosed`` or ``StreamAborted``, never both; neither comes for a stream that our side reset.
The end of the session
(``GoAwayReceived`` with a code other than 0, ``SessionTimedOut``, or the RemoteProtocolError out of
``receive_data``) ends every stream without an event for each.
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
    """The peer opened a stream. Call ``accept_stream`` or ``reset_stream`` soon: nothing may be late."""

    stream_id: int


@dataclass(slots=True)
class StreamAcknowledged:
    """The peer answered for a stream that we opened, with an ACK or with any other frame."""

    stream_id: int


@dataclass(slots=True)
class DataReceived:
    """Bytes, never empty. Say ``data_taken(stream_id, count)`` when they have gone where they should.

    Many bytes come as a view of what ``receive_data`` was given; whoever keeps them has to copy them.
    """

    stream_id: int
    data: Bytes


@dataclass(slots=True)
class StreamEnded:
    """The peer's FIN: no more data will come. We may still send; ``end_stream`` ends our half."""

    stream_id: int


@dataclass(slots=True)
class EndSent:
    """Our FIN is on its way, after everything that was queued: our half is over.

    Follows ``end_stream``, at once or when the queue has drained, and comes before ``StreamClosed``.
    """

    stream_id: int


@dataclass(slots=True)
class StreamAborted:
    """The stream was cut; queued data is lost.

    Data that came before it may still be taken with ``data_taken``: until then the stream counts.

    ``code`` says how: ``"reset"`` by the peer, ``"refused"`` by the peer before it ever answered,
    ``"sent"`` by us with ``reset_when_sent``, after everything that was queued,
    ``"open_timeout"`` by us because it never answered, ``"data_after_end"`` by us because the peer
    went on after its FIN, ``"window_budget"`` by us because more of it was held than is left for all windows.
    """

    stream_id: int
    code: str


@dataclass(slots=True)
class StreamClosed:
    """Both FINs have passed and the stream is forgotten."""

    stream_id: int


@dataclass(slots=True)
class StreamWritable:
    """The send queue was above its high water and has fallen to its low water: go on writing."""

    stream_id: int


@dataclass(slots=True)
class PingAnswered:
    """Our ping came back."""

    round_trip_seconds: float


@dataclass(slots=True)
class GoAwayReceived:
    """The peer is leaving. Code 0: no new streams, open ones go on. Any other: the session is over."""

    code: int


@dataclass(slots=True)
class SessionTimedOut:
    """The peer gave no sign of life: the session is over, drop the carrier without ceremony."""


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
