"""Opening, accepting and rejecting streams."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seance.errors import LocalProtocolError
from seance.yamux import (
    KIB,
    DataReceived,
    Event,
    Limits,
    Role,
    Session,
    StreamAborted,
    StreamAcknowledged,
    StreamEnded,
    StreamOpened,
)
from tests.yamux.frame_bytes import ACK, DATA, FIN, RST, SYN, WINDOW, WireFrame, data, ping, window
from tests.yamux.pair import CALM, Pair, agent, fatal


class TestOpening:
    def test_both_sides_open_and_accept(self) -> None:
        """Case 11: ids 1 and 2, and no stream before."""
        pair = Pair()
        assert (pair.relay.session.stream_count, pair.agent.session.stream_count) == (0, 0)
        assert pair.relay.session.open_stream(0.0) == 2
        assert pair.agent.session.open_stream(0.0) == 1
        pair.pump()
        assert sorted(pair.accept_all()) == [1, 2]
        assert pair.relay.take_all() == [StreamAcknowledged(2)]
        assert pair.agent.take_all() == [StreamAcknowledged(1)]
        assert (pair.relay.session.stream_count, pair.agent.session.stream_count) == (2, 2)

    def test_open_is_sent_as_window_update_with_syn(self) -> None:
        """Case 25."""
        end = agent()
        end.session.open_stream(0.0)
        assert end.frames() == [WireFrame(WINDOW, SYN, 1, 0)]

    def test_data_may_follow_the_syn_in_the_same_message(self) -> None:
        end = agent()
        end.session.send_data(end.session.open_stream(0.0), b"abc")
        assert end.message() == window(1, SYN) + data(1, b"abc")

    def test_larger_receive_window_is_sent_on_syn_and_ack(self) -> None:
        pair = Pair(
            relay=replace(CALM, receive_window_bytes=300 * KIB),
            agent=replace(CALM, receive_window_bytes=512 * KIB),
        )
        pair.relay.session.open_stream(0.0)
        pair.pump()
        pair.accept_all()
        assert pair.relay.said == [window(2, SYN, 44 * KIB)]
        assert pair.agent.said == [window(2, ACK, 256 * KIB)]

    def test_peers_of_the_same_role_fail_at_the_first_open(self) -> None:
        """Case 12."""
        one = agent()
        one.session.open_stream(0.0)
        assert fatal(agent(), one.message()) == "stream_id_parity"

    def test_open_beyond_the_stream_limit_is_a_local_error(self) -> None:
        """Case 22."""
        end = agent(replace(CALM, streams=2))
        first = end.session.open_stream(0.0)
        end.session.open_stream(0.0)
        with pytest.raises(LocalProtocolError) as caught:
            end.session.open_stream(0.0)
        assert caught.value.code == "too_many_streams"
        end.session.reset_stream(first)
        assert end.session.open_stream(0.0) == 5

    def test_inbound_streams_count_towards_the_limit(self) -> None:
        end = agent(replace(CALM, streams=1))
        end.receive(window(2, SYN))
        with pytest.raises(LocalProtocolError) as caught:
            end.session.open_stream(0.0)
        assert caught.value.code == "too_many_streams"

    def test_open_beyond_256_unanswered_ones_is_a_local_error(self) -> None:
        """Cases 14 and 19; the session does not wait, it raises a local error."""
        pair = Pair(relay=replace(CALM, streams=1000), agent=replace(CALM, streams=1000))
        ids = [pair.relay.session.open_stream(0.0) for _ in range(256)]
        with pytest.raises(LocalProtocolError) as caught:
            pair.relay.session.open_stream(0.0)
        assert caught.value.code == "too_many_unacknowledged"
        pair.pump()
        pair.agent.session.accept_stream(ids[100])
        pair.pump()
        ids.append(pair.relay.session.open_stream(0.0))
        pair.pump()
        assert pair.accept_all() == ids

    def test_streams_can_be_opened_while_the_peer_accepts(self) -> None:
        """Case 15."""
        wide = replace(CALM, streams=2000)
        pair = Pair(relay=wide, agent=wide)
        for _ in range(5):
            for _ in range(256):
                pair.relay.session.open_stream(0.0)
            pair.pump()
            pair.accept_all()
        assert pair.agent.session.stream_count == 1280

    def test_used_up_ids_are_a_local_error(self) -> None:
        """Case 90."""
        end = agent()
        end.session._session_state.table._next_stream_id = 2**32 - 3
        assert end.session.open_stream(0.0) == 2**32 - 3
        with pytest.raises(LocalProtocolError) as caught:
            end.session.open_stream(0.0)
        assert caught.value.code == "stream_ids_exhausted"
        assert not end.session.is_closed

    def test_unanswered_open_is_reset_alone(self) -> None:
        """Case 17: hashicorp/yamux would end the session."""
        pair = Pair(relay=replace(CALM, open_timeout_seconds=30.0))
        answered = pair.open()
        session = pair.relay.session
        pair.now = 10.0
        pending = session.open_stream(10.0)
        assert session.next_deadline() == 40.0
        session.handle_timeout(39.9)
        assert pair.relay.take_all() == []
        session.handle_timeout(40.0)
        assert pair.relay.take_all() == [StreamAborted(pending, "open_timeout")]
        assert pair.relay.frames() == [
            WireFrame(WINDOW, SYN, pending, 0),
            WireFrame(WINDOW, RST, pending, 0),
        ]
        assert session.stream_count == 1
        assert session.send_data(answered, b"still here") == 10
        assert session.next_deadline() is None

    def test_deadline_is_that_of_the_oldest_open_or_the_keepalive(self) -> None:
        session = Session(Role.CLIENT)
        assert session.next_deadline() == 0.0
        session.handle_timeout(100.0)
        assert session.next_deadline() == 105.0
        session.open_stream(70.0)
        assert session.next_deadline() == 100.0


class TestBeingAnswered:
    @pytest.mark.parametrize(
        ("answer", "more"),
        [
            (window(1, ACK), []),
            (window(1, 0, 7), []),
            (data(1), []),
            (data(1, b"abc"), [DataReceived(1, b"abc")]),
            (data(1, b"abc", ACK), [DataReceived(1, b"abc")]),
            (window(1, FIN), [StreamEnded(1)]),
            (window(1, ACK | FIN), [StreamEnded(1)]),
            (data(1, b"abc", ACK | FIN), [DataReceived(1, b"abc"), StreamEnded(1)]),
        ],
    )
    def test_any_frame_acknowledges_an_open(self, answer: bytes, more: list[Event]) -> None:
        """Cases 20 and 28."""
        end = agent()
        end.session.open_stream(0.0)
        end.receive(answer)
        assert end.take_all() == [StreamAcknowledged(1), *more]
        assert end.session.next_deadline() is None

    def test_acknowledgement_is_reported_once(self) -> None:
        end = agent()
        end.session.open_stream(0.0)
        end.receive(window(1, ACK) + window(1, ACK) + window(1, 0, 5))
        assert end.take_all() == [StreamAcknowledged(1)]

    @pytest.mark.parametrize("refusal", [window(1, RST), data(1, b"", RST), window(1, ACK | RST)])
    def test_reset_before_any_answer_is_reported_as_refused(self, refusal: bytes) -> None:
        end = agent()
        end.session.open_stream(0.0)
        end.receive(refusal)
        assert end.take_all() == [StreamAborted(1, "refused")]
        assert end.session.stream_count == 0

    def test_answer_after_the_end_frees_the_backlog(self) -> None:
        """Case 18."""
        pair = Pair()
        for _ in range(256):
            pair.relay.session.end_stream(pair.relay.session.open_stream(0.0))
        pair.pump()
        for opened in pair.agent.take(StreamOpened):
            pair.agent.session.accept_stream(opened.stream_id)
            pair.agent.session.end_stream(opened.stream_id)
        pair.pump()
        assert (pair.relay.session.stream_count, pair.agent.session.stream_count) == (0, 0)
        pair.relay.session.open_stream(0.0)


class TestAccepting:
    def test_nothing_is_sent_before_the_application_accepts(self) -> None:
        end = agent()
        end.receive(window(2, SYN))
        assert end.take_all() == [StreamOpened(2)]
        assert end.frames() == []

    def test_accept_is_sent_once_as_window_update_with_ack(self) -> None:
        """Case 25."""
        end = agent()
        end.receive(window(2, SYN))
        end.session.accept_stream(2)
        end.session.accept_stream(2)
        assert end.frames() == [WireFrame(WINDOW, ACK, 2, 0)]

    @pytest.mark.parametrize("use", ["send_data", "end_stream", "data_taken"])
    def test_using_a_stream_accepts_it_first(self, use: str) -> None:
        """An ACK is never later than the first data, credit or FIN."""
        end = agent()
        end.receive(data(2, bytes(128 * KIB), SYN))
        if use == "send_data":
            end.session.send_data(2, b"abc")
        elif use == "end_stream":
            end.session.end_stream(2)
        else:
            end.session.data_taken(2, 128 * KIB)
        first, second = end.frames()
        assert first == WireFrame(WINDOW, ACK, 2, 0)
        assert second.flags != ACK

    def test_rejecting_sends_rst_without_ack(self) -> None:
        end = agent()
        end.receive(window(2, SYN))
        end.session.reset_stream(2)
        assert end.frames() == [WireFrame(WINDOW, RST, 2, 0)]

    def test_accepting_a_closed_or_own_stream_does_nothing(self) -> None:
        """Case 68: the peer was faster."""
        end = agent()
        end.receive(window(2, SYN) + window(2, RST))
        end.session.accept_stream(2)
        end.session.accept_stream(end.session.open_stream(0.0))
        assert end.frames() == [WireFrame(WINDOW, SYN, 1, 0)]

    @pytest.mark.parametrize(
        ("opening", "events"),
        [
            (data(2, b"", SYN), []),
            (data(2, b"abc", SYN), [DataReceived(2, b"abc")]),
            (data(2, bytes(256 * KIB), SYN), [DataReceived(2, bytes(256 * KIB))]),
            (data(2, b"abc", SYN | FIN), [DataReceived(2, b"abc"), StreamEnded(2)]),
            (window(2, SYN | FIN), [StreamEnded(2)]),
            (data(2, b"", SYN | FIN), [StreamEnded(2)]),
            (window(2, SYN | ACK), []),
        ],
    )
    def test_syn_may_come_with_data_and_other_flags(self, opening: bytes, events: list[Event]) -> None:
        """Case 27."""
        end = agent()
        end.receive(opening)
        assert end.take_all() == [StreamOpened(2), *events]
        end.session.accept_stream(2)
        assert end.frames() == [WireFrame(WINDOW, ACK, 2, 0)]

    @pytest.mark.parametrize("flags", [SYN, SYN | FIN])
    def test_delta_on_syn_enlarges_our_send_window(self, flags: int) -> None:
        """Case 27."""
        end = agent()
        end.receive(window(2, flags, 1000))
        end.session.send_data(2, bytes(256 * KIB + 2000))
        sent = sum(one.length for one in end.frames() if one.kind == DATA)
        assert sent == 256 * KIB + 1000

    @pytest.mark.parametrize("opening", [window(2, SYN | RST), data(2, b"abc", SYN | RST | FIN)])
    def test_stream_opened_and_reset_in_one_frame_is_ignored(self, opening: bytes) -> None:
        """Case 27: no event, no ACK; the id is used."""
        end = agent()
        end.receive(opening)
        end.session.accept_stream(2)
        assert (end.take_all(), end.frames()) == ([], [])
        assert fatal(end, window(2, SYN)) == "stream_id_reused"


class TestRefusing:
    @pytest.mark.parametrize("limits", [replace(CALM, streams=3), replace(CALM, accept_backlog=3)])
    def test_open_of_the_peer_beyond_the_limit_is_reset(self, limits: Limits) -> None:
        """Cases 21 and 26."""
        end = agent(limits)
        end.receive(b"".join(window(one, SYN) for one in (2, 4, 6, 8, 10)))
        assert end.take_all() == [StreamOpened(2), StreamOpened(4), StreamOpened(6)]
        assert end.frames() == [WireFrame(WINDOW, RST, 8, 0), WireFrame(WINDOW, RST, 10, 0)]
        end.receive(data(2, b"abc"))
        assert end.take_all() == [DataReceived(2, b"abc")]

    def test_closing_a_stream_admits_another(self) -> None:
        """Case 21."""
        end = agent(replace(CALM, streams=1))
        end.receive(window(2, SYN) + window(2, FIN))
        end.session.end_stream(2)
        end.receive(window(4, SYN))
        assert end.take(StreamOpened) == [StreamOpened(2), StreamOpened(4)]

    def test_accepting_makes_room_in_the_backlog(self) -> None:
        end = agent(replace(CALM, accept_backlog=1))
        end.receive(window(2, SYN))
        end.session.accept_stream(2)
        end.receive(window(4, SYN))
        assert end.take(StreamOpened) == [StreamOpened(2), StreamOpened(4)]

    def test_new_limits_apply_immediately(self) -> None:
        end = agent(replace(CALM, streams=1))
        end.session.limits = replace(end.session.limits, streams=2)
        end.receive(window(2, SYN) + window(4, SYN) + window(6, SYN))
        assert end.take(StreamOpened) == [StreamOpened(2), StreamOpened(4)]

    def test_data_in_flight_to_a_rejected_stream_has_no_penalty(self) -> None:
        end = agent(replace(CALM, streams=1, stray_bytes=0))
        end.receive(window(2, SYN))
        for one in range(4, 40, 2):
            end.receive(window(one, SYN) + data(one, bytes(256 * KIB)))
        assert end.take_all() == [StreamOpened(2)]


class TestIds:
    @pytest.mark.parametrize(
        ("chunk", "code"),
        [
            (window(0, SYN), "stream_id_zero"),
            (data(0, b"abc", SYN), "stream_id_zero"),
            (window(3, SYN), "stream_id_parity"),
            (data(3, b"abc", SYN), "stream_id_parity"),
            (window(2, SYN) + window(2, SYN), "stream_id_in_use"),
            (window(2, SYN) + data(2, b"abc", SYN), "stream_id_in_use"),
            (window(2, SYN) + window(2, RST) + window(2, SYN), "stream_id_reused"),
        ],
    )
    def test_invalid_id_of_the_peer_ends_the_session(self, chunk: bytes, code: str) -> None:
        """Case 29."""
        assert fatal(agent(), chunk) == code

    def test_ids_may_arrive_out_of_order(self) -> None:
        """hashicorp/yamux numbers streams before it sends their SYNs, from concurrent goroutines."""
        end = agent()
        end.receive(window(6, SYN) + window(2, SYN) + window(4, SYN))
        assert end.take_all() == [StreamOpened(6), StreamOpened(2), StreamOpened(4)]

    def test_id_of_a_dropped_gap_counts_as_reused(self) -> None:
        """Reaches the limit of id gaps."""
        end = agent(replace(CALM, id_gaps=2))
        end.receive(window(4, SYN) + window(8, SYN) + window(12, SYN) + window(10, SYN))
        assert fatal(end, window(2, SYN)) == "stream_id_reused"


class TestAfterTheEnd:
    def test_calls_after_the_session_do_nothing_or_raise(self) -> None:
        """Cases 13, 24 and 68."""
        end = agent()
        stream_id = end.session.open_stream(0.0)
        fatal(end, window(3, SYN))
        session = end.session
        with pytest.raises(LocalProtocolError) as caught:
            session.open_stream(0.0)
        assert caught.value.code == "session_closed"
        with pytest.raises(LocalProtocolError) as caught:
            session.receive_data(ping(SYN, 1), 0.0)
        assert caught.value.code == "session_closed"
        with pytest.raises(LocalProtocolError) as caught:
            session.send_data(stream_id, b"abc")
        assert caught.value.code == "stream_closed"
        session.accept_stream(stream_id)
        session.end_stream(stream_id)
        session.reset_stream(stream_id)
        session.data_taken(stream_id, 5)
        session.go_away()
        session.handle_timeout(1e9)
        assert not session.ping(0.0)
        assert session.next_deadline() is None
        assert (session.take_events(), session.next_message(), session.stream_count) == ([], [], 0)
        assert not session.wants_to_send
