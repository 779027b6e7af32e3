"""Our session in place of one side of a recorded scenario.

The player takes the actions of the recorded program (``do_open``, ``do_write`` ...) and checks that it sees
the same (``do_accept``, ``do_read``, ``do_eof`` ...). It has no connection: a replay feeds it recorded bytes,
a live test connects it to a running hashicorp/yamux. Only they know whether an event has happened or has to
be awaited, so they implement ``wait_for``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TypeAlias

import pytest

from seance.errors import LocalProtocolError
from seance.yamux import (
    DataReceived,
    Event,
    GoAwayReceived,
    Limits,
    PingAnswered,
    Role,
    Session,
    StreamAborted,
    StreamAcknowledged,
    StreamClosed,
    StreamEnded,
    StreamOpened,
)
from tests.interop.wire import RST, Frame, Recording, Step, frames_of, heard, pattern

__all__ = ["History", "Player", "expected_history", "limits_for", "steps_of"]

History: TypeAlias = list[str | bytearray]
"""The events of one stream in order: words for events, and the bytes between them joined."""


class Player:
    """A session, the messages that it sent, and the events of every stream.

    Args:
        role: ``"client"`` or ``"server"``.
        limits: The session's limits.
    """

    def __init__(self, role: str, limits: Limits) -> None:
        self.role = role
        self.session = Session(Role[role.upper()], limits=limits)
        self.now = 0.0
        self.said = bytearray()
        self.streams: dict[int, History] = defaultdict(list)
        self.about_session: list[object] = []
        self.taken_bytes: dict[int, int] = defaultdict(int)
        self.written_bytes: dict[int, int] = defaultdict(int)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Check ``condition``; a player with a live connection waits for it."""
        self.handle_events()
        assert condition()

    def handle_events(self) -> bytes:
        """Handle all events, and return everything that can be sent."""
        fresh = bytearray()
        while True:
            for event in self.session.take_events():
                self.record_event(event)
            message = b"".join(self.session.next_message())
            if not message:
                break
            assert len(message) <= 65536
            list(frames_of(message))  # a message holds whole frames
            fresh += message
        self.said += fresh
        return bytes(fresh)

    def record_event(self, event: Event) -> None:
        """Record one event."""
        if isinstance(event, DataReceived):
            history = self.streams[event.stream_id]
            if not history or isinstance(history[-1], str):
                history.append(bytearray())
            history[-1] += event.data  # type: ignore[operator]  # it is no str
        elif isinstance(event, StreamAborted):
            self.streams[event.stream_id].append("reset")
        elif isinstance(event, StreamOpened | StreamAcknowledged | StreamEnded | StreamClosed):
            word = type(event).__name__.removeprefix("Stream").lower()
            self.streams[event.stream_id].append(word)
        elif isinstance(event, PingAnswered | GoAwayReceived):
            self.about_session.append(event)

    def data_of(self, stream: int) -> bytes:
        """Return all data received on a stream."""
        return b"".join(part for part in self.streams[stream] if isinstance(part, bytearray))

    def frames(self) -> list[Frame]:
        """Return all frames sent so far."""
        return list(frames_of(bytes(self.said)))

    def pings_answered(self) -> int:
        return sum(isinstance(event, PingAnswered) for event in self.about_session)

    # Steps of a program in a scenario

    def do(self, step: Step) -> None:
        getattr(self, f"do_{step['what']}")(step)
        self.handle_events()

    def do_open(self, step: Step) -> None:
        if "outcome" in step:
            self.wait_for(lambda: self.session.peer_is_going_away)
            with pytest.raises(LocalProtocolError) as refused:
                self.session.open_stream(self.now)
            assert refused.value.code == "going_away"
        else:
            assert self.session.open_stream(self.now) == step["stream"]

    def do_accept(self, step: Step) -> None:
        self.wait_for(lambda: "opened" in self.streams[step["stream"]])
        self.session.accept_stream(step["stream"])

    def do_write(self, step: Step) -> None:
        stream = step["stream"]
        self.session.send_data(stream, pattern(self.written_bytes[stream], step["count"]))
        self.written_bytes[stream] += step["count"]

    def do_flush(self, step: Step) -> None:
        stream = step["stream"]

        def has_left() -> bool:
            left = sum(len(frame.body) for frame in self.frames() if frame.stream == stream)
            return left == self.written_bytes[stream]

        self.wait_for(has_left)

    def do_read(self, step: Step) -> None:
        stream = step["stream"]
        self.taken_bytes[stream] += step["count"]
        self.wait_for(lambda: len(self.data_of(stream)) >= self.taken_bytes[stream])
        self.session.data_taken(stream, step["count"])

    def do_eof(self, step: Step) -> None:
        self.wait_for(lambda: "ended" in self.streams[step["stream"]])

    def do_reset(self, step: Step) -> None:
        self.wait_for(lambda: "reset" in self.streams[step["stream"]])

    def do_end(self, step: Step) -> None:
        self.session.end_stream(step["stream"])

    def do_give_up(self, step: Step) -> None:
        self.session.reset_stream(step["stream"])

    def do_ping(self, step: Step) -> None:
        assert self.session.ping(self.now)

    def do_kept_alive(self, step: Step) -> None:
        for _ in range(2):  # the first call gives the session the time
            deadline = self.session.next_deadline()
            assert deadline is not None
            self.now = max(self.now, deadline)
            self.session.handle_timeout(self.now)

    def do_go_away(self, step: Step) -> None:
        self.session.go_away()

    def do_session_over(self, step: Step) -> None:
        assert self.session.is_closed


def steps_of(recording: Recording, role: str) -> list[Step]:
    """Return the steps of the program on one side."""
    return [step for step in recording["steps"] if step["who"] == role and step["what"] != "bytes"]


def limits_for(recording: Recording, role: str) -> Limits:
    """Return the limits with which our session can replace a recorded side."""
    window = recording["window_bytes"] or Limits().receive_window_bytes
    backlog = recording["acceptor_backlog"] if role != recording["opener"] else 0
    return Limits(receive_window_bytes=window, accept_backlog=backlog or Limits().accept_backlog)


def expected_history(recording: Recording, role: str, stream: int) -> History:
    """Return the events that our session has to report for ``stream``, derived from the recorded steps."""
    seen = [step for step in steps_of(recording, role) if step.get("stream") == stream]
    did = [step["what"] for step in seen]
    answers = [frame for frame in heard(recording, role) if frame.stream == stream]
    history: History = []
    if "open" not in did:
        history.append("opened")
    elif answers and not answers[0].flags & RST:
        history.append("acknowledged")
    if count := sum(step["count"] for step in seen if step["what"] == "read"):
        history.append(bytearray(pattern(0, count)))
    if "eof" in did:
        history.append("ended")
    if "reset" in did:
        history.append("reset")
    elif "eof" in did and "end" in did:
        history.append("closed")
    return history
