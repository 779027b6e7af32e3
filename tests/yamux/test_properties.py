"""Properties for any input: cuts change nothing, and only typed errors are raised."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.yamux import DataReceived, Event, Limits, Role, Session, StreamOpened
from tests.yamux.event_rules import EventRules
from tests.yamux.pair import CALM, code_of, drain, merged
from tests.yamux.peer_bytes import chunks_of, cuts, noise, sayings

TIGHT = replace(CALM, streams=4, accept_backlog=2, pongs=2, control_frames=1, stray_bytes=50, id_gaps=1)

LIMITS = st.sampled_from([CALM, TIGHT])


def prepared(limits: Limits) -> Session:
    """A session with some history: two own streams, one of them ended, and a queue."""
    session = Session(Role.CLIENT, limits=limits)
    first, second = session.open_stream(0.0), session.open_stream(0.0)
    session.send_data(first, bytes(100))
    session.end_stream(second)
    return session


def history(limits: Limits, chunks: list[bytes]) -> tuple[list[Event], str, bytes]:
    """Feed chunks; return the events, the code of the error that ended the session, and the bytes sent."""
    session = prepared(limits)
    events: list[Event] = []
    code = ""
    for chunk in chunks:
        if session.is_closed:
            break
        try:
            session.receive_data(chunk, 0.0)
        except RemoteProtocolError as error:
            code = error.code
        events += session.take_events()
        session.check()
    said = drain(session)
    return merged(events + session.take_events()), code, said


@settings(max_examples=settings().max_examples * 3 // 2)
@given(sayings, cuts, LIMITS)
def test_cuts_change_nothing(text: bytes, places: list[int], limits: Limits) -> None:
    """Case 7: whole, byte by byte or cut at random, the events, the error and the answers are the same."""
    whole = history(limits, [text])
    assert history(limits, [text[at : at + 1] for at in range(len(text))]) == whole
    assert history(limits, chunks_of(text, places)) == whole


@settings(max_examples=settings().max_examples * 3 // 2)
@given(noise, cuts, LIMITS)
def test_any_bytes_give_events_or_a_remote_protocol_error(
    text: bytes, places: list[int], limits: Limits
) -> None:
    """The contract for fuzzing; the session sends at most as many bytes as it received."""
    before = len(drain(prepared(limits)))
    events, code, said = history(limits, chunks_of(text, places))
    assert len(said) <= before + len(text) + 12
    assert sum(len(event.data) for event in events if isinstance(event, DataReceived)) <= len(text)
    assert not code or said == bytes.fromhex("000300000000000000000001")


@settings(max_examples=settings().max_examples * 3 // 2)
@given(st.lists(st.one_of(sayings, st.sampled_from(["accept", "send", "end", "reset", "take", "drain"]))))
def test_any_bytes_are_safe_with_a_busy_owner(steps: list[bytes | str]) -> None:
    """The same with an application that accepts, sends, consumes, ends and resets at the same time."""
    session = Session(Role.CLIENT, limits=TIGHT)
    seen: set[int] = set()
    held: dict[int, int] = {}
    event_rules = EventRules()
    for step in steps:
        if isinstance(step, bytes):
            if session.is_closed:
                break
            try:
                session.receive_data(step, 0.0)
            except RemoteProtocolError:
                assert session.is_closed
        elif step == "drain":
            drain(session)
        for event in session.take_events():
            event_rules.note(event)
            if isinstance(event, StreamOpened):
                seen.add(event.stream_id)
            elif isinstance(event, DataReceived):
                held[event.stream_id] = held.get(event.stream_id, 0) + len(event.data)
        for stream_id in seen:
            if step == "accept":
                session.accept_stream(stream_id)
            elif step == "end":
                session.end_stream(stream_id)
            elif step == "reset":
                session.reset_stream(stream_id)
                event_rules.cut(stream_id)
            elif step == "take":
                session.data_taken(stream_id, held.pop(stream_id, 0))
            elif step == "send":
                assert code_of(session.send_data, stream_id, bytes(1000)) in ("", "stream_closed")
        session.check()
