"""Pings, the keepalive, GoAway, and the end of a session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seance.errors import RemoteProtocolError
from seance.yamux import (
    KIB,
    DataReceived,
    GoAwayCode,
    GoAwayReceived,
    Limits,
    PingAnswered,
    SessionTimedOut,
    StreamAcknowledged,
    StreamOpened,
)
from tests.yamux.frame_bytes import ACK, DATA, GO_AWAY, PING, RST, SYN, WINDOW, WireFrame, data, frame, window
from tests.yamux.frame_bytes import go_away as go_away_frame
from tests.yamux.frame_bytes import ping as ping_frame
from tests.yamux.pair import CALM, Pair, accepted, agent, drain, fatal


class TestPing:
    def test_both_sides_measure_the_round_trip(self) -> None:
        """Case 70."""
        pair = Pair()
        for end in (pair.relay, pair.agent):
            assert end.session.round_trip_seconds is None
            assert end.session.ping(pair.now)
        pair.now = 0.25
        pair.pump()
        for end in (pair.relay, pair.agent):
            assert end.take_all() == [PingAnswered(0.25)]
            assert end.session.round_trip_seconds == 0.25

    def test_only_one_ping_is_in_flight(self) -> None:
        """Case 72."""
        end = agent()
        assert end.session.ping(0.0)
        assert not end.session.ping(1.0)
        assert len(end.frames()) == 1

    def test_unanswered_ping_does_not_prevent_the_next(self) -> None:
        """Case 71: the peer sent other frames."""
        end = agent(Limits())
        end.session.ping(0.0)
        end.receive(window(2, SYN), 1.0)
        end.session.handle_timeout(6.0)
        assert [one.length for one in end.frames()] == [1, 2]
        end.receive(ping_frame(ACK, 2), 6.5)
        assert end.take(PingAnswered) == [PingAnswered(0.5)]

    @pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
    def test_answer_repeats_the_value(self, value: int) -> None:
        end = agent()
        end.receive(ping_frame(SYN, value))
        assert end.frames() == [WireFrame(PING, ACK, 0, value)]

    def test_ping_with_a_stream_id_is_answered_on_stream_0(self) -> None:
        end = agent()
        end.session.receive_data(frame(PING, SYN, 7, 3), 0.0)
        assert drain(end.session) == ping_frame(ACK, 3)

    def test_unexpected_pongs_are_ignored(self) -> None:
        """Case 73."""
        end = agent()
        end.receive(ping_frame(ACK, 5) + ping_frame(0, 5))
        end.session.ping(0.0)
        end.receive(ping_frame(ACK, 5))
        assert end.take_all() == []
        assert not end.session.is_closed

    def test_pong_is_sent_before_everything_else(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(100 * KIB))
        end.session.open_stream(0.0)
        end.receive(ping_frame(SYN, 9))
        assert end.message(12) == ping_frame(ACK, 9)

    def test_pings_do_not_stop_receiving_while_we_cannot_send(self) -> None:
        """Cases 74 and 75: reaches the limit of pongs; further pings are dropped."""
        end = accepted()
        end.receive(b"".join(ping_frame(SYN, value) for value in range(1000)) + data(2, b"abc"))
        assert end.take_all() == [DataReceived(2, b"abc")]
        assert [one.length for one in end.frames()] == list(range(32))
        end.receive(ping_frame(SYN, 5000))
        assert [one.length for one in end.frames()] == [5000]


class TestKeepalive:
    def test_pings_are_sent_while_the_session_is_idle(self) -> None:
        """Case 76."""
        pair = Pair(Limits(), Limits())
        for now in range(100):
            pair.now = float(now)
            pair.relay.session.handle_timeout(pair.now)
            pair.pump()
        answered = pair.relay.take(PingAnswered)
        assert len(answered) == 19
        assert not pair.relay.session.is_closed

    def test_a_silent_peer_ends_the_session_within_ten_seconds(self) -> None:
        """Case 77."""
        end = agent(Limits())
        session = end.session
        session.open_stream(0.0)
        session.handle_timeout(100.0)
        end.take_all()
        end.messages()
        while (deadline := session.next_deadline()) is not None:
            assert deadline <= 110.0
            session.handle_timeout(deadline)
        assert end.take_all() == [SessionTimedOut()]
        assert session.is_closed
        assert session.stream_count == 0
        assert session.next_message() == [go_away_frame(GoAwayCode.PROTOCOL_ERROR)]
        assert session.next_message() == []

    def test_first_handle_timeout_starts_the_clock(self) -> None:
        session = agent(Limits()).session
        assert session.next_deadline() == 0.0
        session.handle_timeout(1000.0)
        assert session.next_deadline() == 1005.0
        assert not session.wants_to_send

    def test_inbound_bytes_keep_the_session_alive_without_a_pong(self) -> None:
        """Case 78: part of a frame is enough."""
        end = agent(Limits())
        end.receive(frame(DATA, SYN, 2, 256 * KIB), 0.0)
        for second in range(1, 60):
            end.receive(bytes(10), float(second))
            end.session.handle_timeout(float(second))
        assert not end.session.is_closed

    def test_incomplete_body_does_not_prevent_the_timeout(self) -> None:
        """Case 10: the peer announces a frame and sends nothing more."""
        end = agent(Limits())
        end.receive(frame(DATA, SYN, 2, 1000), 0.0)
        end.session.handle_timeout(5.0)
        end.session.handle_timeout(10.0)
        assert end.take_all() == [StreamOpened(2), SessionTimedOut()]

    def test_early_handle_timeout_does_nothing(self) -> None:
        end = agent(Limits())
        end.receive(window(2, SYN), 0.0)
        end.take_all()
        for tick in range(49):
            end.session.handle_timeout(tick / 10)
        assert (end.take_all(), end.frames()) == ([], [])

    def test_empty_data_is_no_sign_of_life(self) -> None:
        end = agent(Limits())
        end.session.handle_timeout(0.0)
        end.session.receive_data(b"", 4.0)
        assert end.session.next_deadline() == 5.0


class TestGoAway:
    def test_peer_that_goes_away_gets_no_new_streams(self) -> None:
        """Case 79: the meaning of GoAway 0 in hashicorp/yamux."""
        pair = Pair()
        stream_id = pair.open()
        pair.agent.session.go_away()
        pair.pump()
        assert pair.relay.take_all() == [GoAwayReceived(0)]
        assert pair.relay.session.peer_is_going_away
        assert not pair.relay.session.is_closed
        with pytest.raises(Exception, match="no more streams") as caught:
            pair.relay.session.open_stream(0.0)
        assert getattr(caught.value, "code", "") == "going_away"
        pair.relay.session.send_data(stream_id, b"abc")
        pair.pump()
        assert pair.agent.take_data(stream_id) == b"abc"

    def test_goaway_is_reported_once(self) -> None:
        end = agent()
        end.receive(go_away_frame(0) + go_away_frame(0))
        assert end.take_all() == [GoAwayReceived(0)]

    def test_no_stream_can_be_opened_after_our_goaway(self) -> None:
        end = agent()
        end.session.go_away()
        assert end.session.is_going_away
        with pytest.raises(Exception, match="no more streams") as caught:
            end.session.open_stream(0.0)
        assert getattr(caught.value, "code", "") == "going_away"

    def test_peers_open_after_our_goaway_is_reset(self) -> None:
        """Case 81."""
        end = accepted()
        end.session.go_away()
        end.receive(window(4, SYN) + data(2, b"abc"))
        assert end.take_all() == [DataReceived(2, b"abc")]
        assert end.frames() == [WireFrame(WINDOW, RST, 4, 0), WireFrame(GO_AWAY, 0, 0, 0)]

    def test_goaway_is_sent_once_at_the_end_of_its_message(self) -> None:
        """Cases 82 and 83."""
        end = accepted()
        end.session.send_data(2, b"abc")
        end.session.end_stream(2)
        end.session.go_away()
        end.session.go_away()
        assert [one.kind for one in end.frames()] == [DATA, WINDOW, GO_AWAY]
        end.session.go_away()
        assert end.frames() == []

    @pytest.mark.parametrize("limit", [12, 20, 24, 25])
    def test_goaway_fits_into_a_small_message(self, limit: int) -> None:
        end = accepted()
        end.session.open_stream(0.0)
        end.session.open_stream(0.0)
        end.session.go_away()
        frames = [one for _ in range(3) for one in end.messages(limit)]
        assert b"".join(frames).count(go_away_frame(0)) == 1

    @pytest.mark.parametrize("code", [1, 2, 3, 2**32 - 1])
    def test_goaway_of_the_peer_with_an_error_ends_the_session(self, code: int) -> None:
        """Case 80."""
        end = accepted()
        end.session.send_data(2, b"abc")
        end.receive(data(2, b"before") + go_away_frame(code) + data(2, b"after"))
        assert end.take_all() == [DataReceived(2, b"before"), GoAwayReceived(code)]
        assert end.session.is_closed
        assert end.session.peer_is_going_away
        assert (end.frames(), end.session.stream_count) == ([], 0)

    @pytest.mark.parametrize("code", [GoAwayCode.PROTOCOL_ERROR, GoAwayCode.INTERNAL_ERROR])
    def test_after_our_goaway_with_an_error_nothing_else_is_sent(self, code: GoAwayCode) -> None:
        """Case 80."""
        end = accepted()
        end.session.send_data(2, b"abc")
        end.session.open_stream(0.0)
        end.session.go_away(code)
        end.session.go_away(code)
        assert end.session.is_closed
        assert end.session.wants_to_send
        assert end.frames() == [WireFrame(GO_AWAY, 0, 0, code)]

    def test_error_after_a_normal_goaway_is_sent(self) -> None:
        end = agent()
        end.session.go_away()
        assert fatal(end, window(3, SYN)) == "stream_id_parity"


class TestErrors:
    @pytest.mark.parametrize(
        ("chunk", "code"),
        [(frame(DATA, 0, 2, 0, version=1), "bad_version"), (frame(4, 0, 0, 0), "bad_type")],
    )
    def test_broken_framing_ends_the_session_with_a_goaway(self, chunk: bytes, code: str) -> None:
        """Case 89."""
        assert fatal(accepted(), chunk) == code

    def test_error_message_describes_the_cause(self) -> None:
        end = accepted()
        with pytest.raises(RemoteProtocolError) as caught:
            end.receive(frame(DATA, 0, 2, 2**20))
        assert (caught.value.code, caught.value.goaway) == ("window_exceeded", 1)
        assert str(caught.value) == (
            "The peer announced 1048576 bytes on stream 2, but its window has 262144 left."
        )

    def test_session_with_a_full_queue_ends_immediately(self) -> None:
        """Case 85: a thousand writes are queued, and the peer stops inside a frame."""
        wide = replace(CALM, streams=1000, unacknowledged=1000)
        end = agent(wide)
        for _ in range(1000):
            end.session.send_data(end.session.open_stream(0.0), bytes(1000))
        end.receive(frame(DATA, SYN, 2, 1000, bytes(10)))
        end.session.go_away(GoAwayCode.INTERNAL_ERROR)
        assert end.session.stream_count == 0
        assert end.frames() == [WireFrame(GO_AWAY, 0, 0, 2)]

    def test_too_many_unread_answers_end_the_session(self) -> None:
        """Reaches the limit of control frames within one chunk."""
        end = agent(replace(CALM, streams=1, control_frames=10))
        end.receive(window(2, SYN) + b"".join(window(4 + 2 * at, SYN) for at in range(13)))
        assert len(end.session.next_message(0)) == 0
        assert fatal(end, window(100, SYN)) == "control_flood"

    def test_answers_of_the_application_count_too(self) -> None:
        """Streams are opened by the peer, accepted by us and reset by the peer, and nothing is read."""
        end = agent(replace(CALM, streams=1, control_frames=10))
        for at in range(1, 15):
            end.receive(window(2 * at, SYN))
            end.session.accept_stream(2 * at)
            end.receive(b"" if at == 14 else window(2 * at, RST))
        assert fatal(end, window(28, RST)) == "control_flood"

    def test_control_frames_that_were_sent_do_not_count(self) -> None:
        end = agent(replace(CALM, streams=1, control_frames=10))
        end.receive(window(2, SYN))
        for at in range(2, 200):
            end.receive(window(2 * at, SYN))
            end.messages()
        assert not end.session.is_closed


class TestForADebugger:
    def test_repr_describes_the_session(self) -> None:
        end = accepted()
        end.session.open_stream(0.0)
        end.session.send_data(2, b"abc")
        end.receive(window(4, SYN) + ping_frame(SYN, 1))
        assert repr(end.session) == (
            "<Session client open: 3 streams, 1 unacknowledged, 1 unaccepted,"
            " 1 with data to send, 2 control frames queued>"
        )
        lines = end.session.describe().splitlines()
        assert lines[0] == repr(end.session)
        assert [line.split()[1] for line in lines[1:]] == ["2", "1", "4"]

    def test_repr_shows_the_side_that_goes_away(self) -> None:
        end = agent()
        end.receive(go_away_frame(0))
        end.session.go_away()
        assert repr(end.session).startswith("<Session client leaving, peer leaving: 0 streams")
        end.session.go_away(GoAwayCode.INTERNAL_ERROR)
        assert repr(end.session).startswith("<Session client closed")

    def test_wants_to_send(self) -> None:
        pair = Pair()
        assert not pair.relay.session.wants_to_send
        pair.relay.session.open_stream(0.0)
        assert pair.relay.session.wants_to_send
        pair.pump()
        assert not pair.relay.session.wants_to_send
        pair.accept_all()
        assert pair.relay.take_all() == [StreamAcknowledged(2)]
