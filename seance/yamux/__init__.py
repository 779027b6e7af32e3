"""Yamux without I/O: many streams over one byte stream, each with its own flow control.

The package provides :class:`Session` and the values that go in and out of it. It uses no socket, clock,
randomness or log, so a test can run two sessions against each other, or replay a recorded one byte for byte.

A relay opens a stream to an agent:

>>> relay, agent = Session(Role.SERVER), Session(Role.CLIENT)
>>> stream_id = relay.open_stream(now=0.0)
>>> relay.send_data(stream_id, b"GET / HTTP/1.1")
14
>>> agent.receive_data(b"".join(relay.next_message()), now=0.0)
>>> agent.take_events()
[StreamOpened(stream_id=2), DataReceived(stream_id=2, data=b'GET / HTTP/1.1')]
>>> agent.accept_stream(stream_id)
>>> agent.data_taken(stream_id, 14)
>>> agent.end_stream(stream_id)
>>> relay.receive_data(b"".join(agent.next_message()), now=0.1)
>>> relay.take_events()
[StreamAcknowledged(stream_id=2), StreamEnded(stream_id=2)]
>>> relay.end_stream(stream_id)
>>> relay.take_events()
[EndSent(stream_id=2), StreamClosed(stream_id=2)]
"""

from __future__ import annotations

from seance.yamux.budget import WindowBudget
from seance.yamux.constants import KIB, MIB, GoAwayCode, Role
from seance.yamux.events import (
    DataReceived,
    EndSent,
    Event,
    GoAwayReceived,
    PingAnswered,
    SessionTimedOut,
    StreamAborted,
    StreamAcknowledged,
    StreamClosed,
    StreamEnded,
    StreamOpened,
    StreamWritable,
)
from seance.yamux.frames import Bytes
from seance.yamux.limits import Limits
from seance.yamux.message_sizer import LARGE_MESSAGE_BYTES, MESSAGE_BYTES, MessageSizer
from seance.yamux.session import Session

__all__ = [
    "KIB",
    "LARGE_MESSAGE_BYTES",
    "MESSAGE_BYTES",
    "MIB",
    "Bytes",
    "DataReceived",
    "EndSent",
    "Event",
    "GoAwayCode",
    "GoAwayReceived",
    "Limits",
    "MessageSizer",
    "PingAnswered",
    "Role",
    "Session",
    "SessionTimedOut",
    "StreamAborted",
    "StreamAcknowledged",
    "StreamClosed",
    "StreamEnded",
    "StreamOpened",
    "StreamWritable",
    "WindowBudget",
]
