"""Two sessions and a lossless wire between them; every message is checked against the send rules.

Not a test. ``Pair`` plays both owners: it moves messages, collects events and has a clock that only the test
advances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.yamux import KIB, DataReceived, Event, Limits, Role, Session, StreamOpened
from tests.yamux.frame_bytes import DATA, SYN, WireFrame, go_away, read_frames, window
from tests.yamux.send_rules import SendRules

__all__ = [
    "CALM",
    "End",
    "Pair",
    "accepted",
    "agent",
    "bodies",
    "code_of",
    "drain",
    "fatal",
    "merged",
    "pattern",
    "read",
]

CALM = Limits(ping_after_seconds=None, receive_window_max_bytes=256 * KIB)
"""The default limits without a keepalive and without growing windows: the session sends nothing on its
own."""

E = TypeVar("E")


class End:
    """One session with its owner: the events so far, and the messages sent."""

    def __init__(self, role: Role, limits: Limits) -> None:
        self.session = Session(role, limits=limits)
        self.rules = SendRules(role)
        self.events: list[Event] = []
        self.said: list[bytes] = []
        """All messages, in order."""

    def receive(self, chunk: bytes, now: float = 0.0) -> None:
        self.rules.received(chunk)
        try:
            self.session.receive_data(chunk, now)
        finally:
            self.collect()

    def collect(self) -> None:
        self.events += self.session.take_events()
        self.session.check()

    def message(self, limit: int = 65536) -> bytes:
        """Take and check one message."""
        message = b"".join(self.session.next_message(limit))
        self.rules.sent(message, limit)
        if message:
            self.said.append(message)
        self.collect()
        return message

    def messages(self, limit: int = 65536) -> list[bytes]:
        return list(iter(lambda: self.message(limit), b""))

    def frames(self) -> list[WireFrame]:
        """Take and decode everything that can be sent."""
        return read(b"".join(self.messages()))

    def take(self, kind: type[E]) -> list[E]:
        """Return and remove the events of one kind."""
        self.collect()
        taken: list[E] = []
        others: list[Event] = []
        for event in self.events:
            if isinstance(event, kind):
                taken.append(event)
            else:
                others.append(event)
        self.events = others
        return taken

    def take_all(self) -> list[Event]:
        self.collect()
        taken, self.events = self.events, []
        return taken

    def take_data(self, stream_id: int) -> bytes:
        """Return the data received on one stream, and give credit for it."""
        self.collect()
        parts, others = [], []
        for event in self.events:
            if isinstance(event, DataReceived) and event.stream_id == stream_id:
                parts.append(event.data)
            else:
                others.append(event)
        self.events = others
        body = b"".join(parts)
        self.session.data_taken(stream_id, len(body))
        return body


class Pair:
    """The relay (SERVER, even ids) and the agent (CLIENT, odd ids)."""

    def __init__(self, relay: Limits = CALM, agent: Limits = CALM) -> None:
        self.relay = End(Role.SERVER, relay)
        self.agent = End(Role.CLIENT, agent)
        self.now = 0.0

    def pump(self, on_turn: Callable[[], object] = lambda: None) -> None:
        """Move messages both ways until both sides are idle; ``on_turn`` runs after each round."""
        is_idle = False
        while not is_idle:
            is_idle = True
            for sender, receiver in ((self.relay, self.agent), (self.agent, self.relay)):
                for message in sender.messages():
                    is_idle = False
                    if not receiver.session.is_closed:
                        receiver.receive(message, self.now)
            on_turn()
            is_idle &= not self.relay.session.wants_to_send and not self.agent.session.wants_to_send

    def open(self) -> int:
        """Open a stream from the relay, which the agent accepts; the events of both are removed."""
        stream_id = self.relay.session.open_stream(self.now)
        self.pump()
        self.agent.session.accept_stream(stream_id)
        self.pump()
        self.relay.take_all()
        self.agent.take_all()
        return stream_id

    def accept_all(self) -> list[int]:
        """Accept all open streams on both ends; return the ids."""
        ids = []
        for end in (self.relay, self.agent):
            for event in end.take(StreamOpened):
                end.session.accept_stream(event.stream_id)
                ids.append(event.stream_id)
        self.pump()
        return ids


def agent(limits: Limits = CALM) -> End:
    """A client without streams, to be fed by the test."""
    return End(Role.CLIENT, limits)


def accepted(limits: Limits = CALM) -> End:
    """A client with one accepted stream, 2, whose ACK was sent."""
    end = agent(limits)
    end.receive(window(2, SYN))
    end.session.accept_stream(2)
    end.messages()
    end.take_all()
    return end


def code_of(call: Callable[..., object], *args: object) -> str:
    """Call a function; return the code of the LocalProtocolError that it raises, or "" for none."""
    try:
        call(*args)
    except LocalProtocolError as error:
        return error.code
    return ""


def fatal(end: End, chunk: bytes) -> str:
    """Feed a chunk that ends the session; check that a GoAway is sent, and return the code of the error."""
    with pytest.raises(RemoteProtocolError) as caught:
        end.receive(chunk)
    assert end.session.is_closed
    assert drain(end.session) == go_away(1), "GoAway 1 and nothing else"
    return caught.value.code


def pattern(count: int, start: int = 0) -> bytes:
    """Bytes that reveal data that is lost, doubled or out of order."""
    return bytes((start + at) * 31 % 251 for at in range(count))


def read(text: bytes) -> list[WireFrame]:
    """Decode bytes that are whole frames."""
    frames, rest = read_frames(text)
    assert not rest
    return frames


def bodies(frames: list[WireFrame], stream_id: int = 2) -> bytes:
    """Join the bodies of the data frames of one stream."""
    return b"".join(one.body for one in frames if one.kind == DATA and one.stream_id == stream_id)


def drain(session: Session, limit: int = 65536) -> bytes:
    """Take everything that a session can send."""
    return b"".join(b"".join(pieces) for pieces in iter(lambda: session.next_message(limit), []))


def merged(events: Iterable[Event]) -> list[Event]:
    """Join consecutive data of one stream, because the boundaries are not specified."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and event.stream_id == last.stream_id
        ):
            result[-1] = DataReceived(event.stream_id, last.data + event.data)
        else:
            result.append(event)
    return result
