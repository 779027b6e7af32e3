"""Ending, half-closing and resetting streams."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from seance.errors import LocalProtocolError
from seance.yamux import (
    KIB,
    MIB,
    DataReceived,
    EndSent,
    Session,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamOpened,
    WindowBudget,
)
from tests.yamux.frame_bytes import ACK, DATA, FIN, RST, SYN, WINDOW, WireFrame, data, frame, window
from tests.yamux.pair import CALM, Pair, accepted, agent, bodies, fatal, pattern

INITIAL = 256 * KIB


class TestEnding:
    def test_end_is_sent_as_window_update_with_fin(self) -> None:
        end = accepted()
        end.session.end_stream(2)
        assert end.frames() == [WireFrame(WINDOW, FIN, 2, 0)]
        assert end.take_all() == [EndSent(2)]

    def test_end_follows_all_queued_data(self) -> None:
        """Case 82: in the same message, if it fits."""
        end = accepted()
        end.session.send_data(2, b"last words")
        end.session.end_stream(2)
        assert end.take_all() == [], "our end is not sent before the data"
        assert end.message() == data(2, b"last words") + window(2, FIN)
        assert end.take_all() == [EndSent(2)]

    def test_end_waits_for_window(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(INITIAL + 5))
        end.session.end_stream(2)
        assert {one.flags for one in end.frames()} == {0}
        end.receive(window(2, 0, 5))
        assert [(one.kind, one.flags) for one in end.frames()] == [(DATA, 0), (WINDOW, FIN)]

    def test_congested_stream_ends_once(self) -> None:
        """It falls below the low-water mark and becomes empty within one message."""
        end = accepted()
        end.session.send_data(2, bytes(65 * KIB))
        end.session.end_stream(2)
        end.message(49 * KIB)
        end.receive(window(2, FIN))
        end.messages()
        assert end.take_all() == [StreamEnded(2), EndSent(2), StreamClosed(2)]
        assert end.session.stream_count == 0

    def test_ending_twice_sends_one_fin(self) -> None:
        """Case 83, for a stream: a second FIN would end a session of hashicorp/yamux."""
        end = accepted()
        end.session.send_data(2, b"abc")
        for _ in range(3):
            end.session.end_stream(2)
        assert [one.flags for one in end.frames()] == [0, FIN]
        end.session.end_stream(2)
        assert end.frames() == []

    @pytest.mark.parametrize("is_drained", [False, True])
    def test_data_after_our_end_is_rejected(self, is_drained: bool) -> None:
        """Case 55."""
        end = accepted()
        end.session.send_data(2, b"abc")
        end.session.end_stream(2)
        if is_drained:
            end.messages()
        with pytest.raises(LocalProtocolError) as caught:
            end.session.send_data(2, b"more")
        assert caught.value.code == "stream_closed"

    def test_receiving_continues_after_our_end(self) -> None:
        """Cases 55 and 56: and credit is still sent."""
        end = accepted()
        end.session.end_stream(2)
        end.messages()
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL)
        assert end.frames() == [WireFrame(WINDOW, 0, 2, INITIAL)]
        end.receive(data(2, b"answer") + window(2, FIN))
        assert end.take_all()[-3:] == [DataReceived(2, b"answer"), StreamEnded(2), StreamClosed(2)]

    def test_sending_continues_after_the_peers_end(self) -> None:
        """Case 57."""
        end = accepted()
        end.receive(window(2, FIN))
        end.session.send_data(2, b"answer")
        end.session.end_stream(2)
        assert end.message() == data(2, b"answer") + window(2, FIN)
        assert end.take_all() == [StreamEnded(2), EndSent(2), StreamClosed(2)]

    @pytest.mark.parametrize(
        "ending", [window(2, FIN), data(2, b"", FIN), window(2, FIN, 100), window(2, FIN | 0x100)]
    )
    def test_fin_is_accepted_on_any_frame(self, ending: bytes) -> None:
        """Case 67."""
        end = accepted()
        end.receive(ending)
        assert end.take_all() == [StreamEnded(2)]

    def test_end_is_reported_after_the_data_of_its_frame(self) -> None:
        end = accepted()
        end.receive(data(2, b"abc", FIN))
        assert end.take_all() == [DataReceived(2, b"abc"), StreamEnded(2)]

    def test_delta_of_a_frame_with_fin_counts(self) -> None:
        end = accepted()
        end.receive(window(2, FIN, 100))
        end.session.send_data(2, bytes(INITIAL + 200))
        assert len(bodies(end.frames())) == INITIAL + 100

    def test_full_window_before_the_end_is_received(self) -> None:
        """Case 58."""
        pair = Pair()
        stream_id = pair.open()
        pair.relay.session.send_data(stream_id, pattern(INITIAL))
        pair.relay.session.end_stream(stream_id)
        pair.relay.session.go_away()
        pair.pump()
        assert pair.agent.take_data(stream_id) == pattern(INITIAL)
        assert pair.agent.take(StreamEnded) == [StreamEnded(stream_id)]

    @pytest.mark.parametrize("ours_first", [False, True])
    def test_stream_is_dropped_when_both_sides_have_ended(self, ours_first: bool) -> None:
        """Case 69."""
        end = accepted()
        if ours_first:
            end.session.end_stream(2)
            end.messages()
        end.receive(window(2, FIN))
        if not ours_first:
            end.session.end_stream(2)
            end.messages()
        assert end.take_all()[-1] == StreamClosed(2)
        assert end.session.stream_count == 0

    def test_stream_stays_until_both_sides_end_or_one_resets(self) -> None:
        """Case 59: the timer is the owner's."""
        pair = Pair()
        stream_id = pair.open()
        pair.relay.session.end_stream(stream_id)
        pair.pump()
        pair.now = 1e6
        assert pair.relay.session.stream_count == 1
        pair.relay.session.reset_stream(stream_id)
        pair.pump()
        assert pair.agent.take_all() == [StreamEnded(stream_id), StreamAborted(stream_id, "reset")]
        with pytest.raises(LocalProtocolError):
            pair.agent.session.send_data(stream_id, b"abc")
        assert (pair.relay.session.stream_count, pair.agent.session.stream_count) == (0, 0)


class TestResetting:
    def test_reset_is_sent_once_as_window_update_with_rst(self) -> None:
        end = accepted()
        end.session.reset_stream(2)
        end.session.reset_stream(2)
        assert end.frames() == [WireFrame(WINDOW, RST, 2, 0)]
        assert end.take_all() == []

    def test_reset_drops_queued_data_and_is_the_last_frame(self) -> None:
        """Cases 66 and 87: dropped data is never sent later."""
        end = accepted()
        end.session.send_data(2, bytes(100 * KIB))
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL)
        end.session.reset_stream(2)
        end.session.end_stream(2)
        end.receive(window(2, 0, 1000))
        assert [one.flags for one in end.frames()] == [RST]

    def test_reset_is_reported_on_both_sides(self) -> None:
        """Case 61."""
        pair = Pair()
        stream_id = pair.open()
        pair.relay.session.send_data(stream_id, bytes(2 * INITIAL))
        pair.agent.session.send_data(stream_id, bytes(2 * INITIAL))
        pair.pump()
        pair.agent.session.reset_stream(stream_id)
        pair.pump()
        assert pair.relay.take(StreamAborted) == [StreamAborted(stream_id, "reset")]
        assert pair.agent.take(StreamAborted) == []
        assert len(pair.relay.take_data(stream_id)) == INITIAL
        for end in (pair.relay, pair.agent):
            assert end.session.stream_count == 0
            assert not end.session.wants_to_send

    @pytest.mark.parametrize(
        "reset",
        [
            window(2, RST),
            window(2, RST, 9),
            data(2, b"", RST),
            data(2, b"dropped", RST),
            window(2, RST | FIN),
            window(2, RST | ACK),
        ],
    )
    def test_rst_is_accepted_on_any_frame(self, reset: bytes) -> None:
        """Cases 62, 63 and 67: an error code in its length is ignored; data before it is delivered."""
        end = accepted()
        end.session.send_data(2, b"never leaves")
        end.receive(data(2, b"before") + reset)
        assert end.take_all() == [DataReceived(2, b"before"), StreamAborted(2, "reset")]
        assert (end.frames(), end.session.stream_count) == ([], 1)
        end.session.data_taken(2, len(b"before"))
        assert (end.take_all(), end.frames(), end.session.stream_count) == ([], [], 0)

    def test_stream_reset_by_the_peer_counts_until_its_data_is_consumed(self) -> None:
        """A peer that opens, sends and resets repeatedly cannot hold more than ``streams`` allows."""
        end = accepted(replace(CALM, streams=2))
        end.receive(data(2, b"before") + window(2, RST) + window(4, SYN) + window(4, FIN) + window(6, SYN))
        assert StreamOpened(6) not in end.take_all()
        assert end.frames() == [WireFrame(WINDOW, RST, 6, 0)]
        end.session.data_taken(2, len(b"before"))
        end.receive(window(8, SYN))
        assert end.take_all() == [StreamOpened(8)]

    def test_data_of_a_reset_stream_stays_charged_until_consumed(self) -> None:
        budget = WindowBudget(4 * MIB)
        end = accepted(replace(CALM, receive_window_max_bytes=4 * MIB, window_budget=budget))
        window_of_it = end.session._streams[2].receive_window
        assert window_of_it._double(4 * MIB, budget, 0.0)
        end.session._outbox.add_credit(end.session._streams[2])
        end.frames()
        end.receive(data(2, bytes(INITIAL + 1000)) + window(2, RST))
        assert budget.charged_bytes == 1000
        end.session.data_taken(2, 1000)
        assert budget.charged_bytes == 0
        assert end.session.stream_count == 1
        end.session.reset_stream(2)
        assert end.session.stream_count == 0
        assert end.frames() == []

    def test_calls_for_a_stream_reset_by_the_peer_are_ignored_or_rejected(self) -> None:
        end = accepted()
        end.session.send_data(2, b"never leaves")
        end.receive(data(2, b"before") + window(2, RST))
        assert end.session.queued_bytes(2) == 0
        with pytest.raises(LocalProtocolError) as caught:
            end.session.send_data(2, b"more")
        assert caught.value.code == "stream_closed"
        end.session.end_stream(2)
        end.session.accept_stream(2)
        end.take_all()
        end.receive(window(2, 0, 9) + window(2, FIN) + window(2, RST) + data(2, b"late"))
        assert (end.take_all(), end.frames()) == ([], [])

    def test_reset_when_sent_follows_all_queued_data(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(INITIAL + 5))
        assert not end.session.reset_when_sent(2)
        assert not end.session.reset_when_sent(2)
        with pytest.raises(LocalProtocolError):
            end.session.send_data(2, b"more")
        assert {one.flags for one in end.frames()} == {0}
        assert end.take_all() == []
        end.receive(window(2, 0, 5))
        assert [(one.kind, one.flags) for one in end.frames()] == [(DATA, 0), (WINDOW, RST)]
        assert end.take_all() == [StreamAborted(2, "sent")]
        assert end.session.reset_when_sent(2)
        assert (end.frames(), end.session.stream_count) == ([], 0)

    def test_reset_when_sent_replaces_a_pending_fin(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(INITIAL + 5))
        end.session.end_stream(2)
        end.frames()
        assert not end.session.reset_when_sent(2)
        end.receive(window(2, 0, 5))
        assert [one.flags for one in end.frames()] == [0, RST]

    def test_pending_reset_ends_with_the_peers_reset(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(INITIAL + 5))
        assert not end.session.reset_when_sent(2)
        end.frames()
        end.receive(window(2, RST))
        assert end.take_all() == [StreamAborted(2, "reset")]
        assert (end.frames(), end.session.stream_count) == ([], 0)

    def test_pending_reset_can_be_made_immediate(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(INITIAL + 5))
        assert not end.session.reset_when_sent(2)
        end.session.reset_stream(2)
        assert end.frames() == [WireFrame(WINDOW, RST, 2, 0)]
        assert end.take_all() == []

    def test_reset_when_sent_is_immediate_with_an_empty_queue(self) -> None:
        end = accepted()
        assert end.session.reset_when_sent(2)
        assert end.frames() == [WireFrame(WINDOW, RST, 2, 0)]
        assert end.take_all() == []

    def test_data_sent_before_a_reset_arrives_before_it(self) -> None:
        """Case 66: data that was sent before the reset arrives before it."""
        pair = Pair()
        stream_id = pair.open()
        pair.relay.session.send_data(stream_id, b"abc")
        pair.pump()
        pair.relay.session.reset_stream(stream_id)
        pair.pump()
        assert pair.agent.take_all() == [DataReceived(stream_id, b"abc"), StreamAborted(stream_id, "reset")]

    def test_data_in_flight_to_a_reset_stream_is_dropped_without_penalty(self) -> None:
        """Case 60; ``stray_bytes=0`` shows that it is not counted."""
        end = accepted(replace(CALM, stray_bytes=0))
        end.receive(data(2, bytes(1000)))
        end.session.reset_stream(2)
        end.receive(data(2, bytes(INITIAL - 1000)) + window(2, 0, 9) + window(2, FIN))
        assert end.take_all() == [DataReceived(2, bytes(1000))]
        assert not end.session.is_closed

    def test_stream_can_be_reset_inside_a_frame(self) -> None:
        end = accepted(replace(CALM, stray_bytes=0))
        text = data(2, bytes(1000), FIN) + window(4, SYN)
        end.receive(text[:500])
        end.session.reset_stream(2)
        end.receive(text[500:])
        assert end.take_all() == [DataReceived(2, bytes(488)), StreamOpened(4)]


class TestLateFrames:
    @pytest.mark.parametrize(
        "late",
        [
            window(2),
            window(2, 0, 9),
            window(2, FIN),
            window(2, RST),
            window(2, ACK),
            data(2, b"abc"),
            data(2),
        ],
    )
    @pytest.mark.parametrize("how", ["closed", "reset_by_us", "reset_by_peer", "never_was"])
    def test_frames_for_a_closed_stream_are_ignored(self, late: bytes, how: str) -> None:
        """Case 64: and never answered with RST."""
        end = agent() if how == "never_was" else accepted()
        if how == "closed":
            end.session.end_stream(2)
            end.receive(window(2, FIN))
        elif how == "reset_by_us":
            end.session.reset_stream(2)
        elif how == "reset_by_peer":
            end.receive(window(2, RST))
        end.messages()
        end.take_all()
        end.receive(late)
        assert (end.take_all(), end.frames()) == ([], [])
        assert not end.session.is_closed

    def test_second_fin_and_unexpected_ack_are_ignored(self) -> None:
        """Case 64."""
        end = accepted()
        end.receive(window(2, ACK) + window(2, FIN) + window(2, FIN) + data(2, b"", FIN))
        assert end.take_all() == [StreamEnded(2)]

    def test_unknown_flags_are_ignored(self) -> None:
        end = accepted()
        end.receive(data(2, b"abc", 0xFFF0) + window(2, 0x10, 5) + frame(2, 0x80, 0, 1))
        assert end.take_all() == [DataReceived(2, b"abc")]
        assert end.frames() == []

    def test_data_after_fin_resets_the_stream_only(self) -> None:
        """Case 65."""
        end = accepted()
        end.receive(window(2, FIN) + data(2, b"abc") + window(4, SYN))
        assert end.take_all() == [StreamEnded(2), StreamAborted(2, "data_after_end"), StreamOpened(4)]
        assert end.frames() == [WireFrame(WINDOW, RST, 2, 0)]

    def test_data_after_fin_beyond_the_window_ends_the_session(self) -> None:
        end = accepted()
        end.receive(window(2, FIN))
        assert fatal(end, frame(DATA, 0, 2, INITIAL + 1)) == "window_exceeded"

    def test_too_much_stray_data_ends_the_session(self) -> None:
        """Reaches the limit of stray data, at the header."""
        end = agent(replace(CALM, stray_bytes=1000))
        end.receive(data(8, bytes(600)) + data(10, bytes(400)))
        assert fatal(end, frame(DATA, 0, 8, 1)) == "stray_data"

    def test_data_on_stream_0_ends_the_session(self) -> None:
        assert fatal(agent(), data(0, b"abc")) == "data_on_session"

    def test_window_update_on_stream_0_is_ignored(self) -> None:
        end = agent()
        end.receive(window(0, 0, 5) + window(0, FIN) + window(0, RST) + window(0, ACK))
        assert (end.take_all(), end.frames()) == ([], [])


class TestNothingIsLeftBehind:
    def ways(self, first: Session, second: Session, stream_id: int, turn: int) -> None:
        """End a stream in a different way each time."""
        steps = [
            (first.end_stream, second.end_stream),
            (second.end_stream, first.end_stream),
            (first.reset_stream, second.end_stream),
            (first.end_stream, second.reset_stream),
            (first.reset_stream, second.reset_stream),
        ][turn % 5]
        for step in steps:
            step(stream_id)

    def test_a_hundred_streams_leave_no_table_entry(self) -> None:
        """Cases 68 and 69."""
        pair = Pair()
        for turn in range(100):
            stream_id = pair.relay.session.open_stream(pair.now)
            if turn % 3:
                pair.pump()
            if turn % 2:
                pair.agent.session.accept_stream(stream_id)
            pair.relay.session.send_data(stream_id, bytes(70_000))
            if turn % 7 == 0:
                pair.pump()
            self.ways(pair.relay.session, pair.agent.session, stream_id, turn)
            pair.pump(on_turn=partial(pair.agent.take_data, stream_id))
            pair.agent.session.end_stream(stream_id)
            pair.pump()
        for end in (pair.relay, pair.agent):
            session_state = end.session._session_state
            assert (
                session_state.table.live,
                session_state.table.deadlines,
                session_state.table.unaccepted_count,
            ) == ({}, {}, 0)
            assert not end.session.wants_to_send
            assert not session_state.outbox._credit
            assert not session_state.outbox._drained
