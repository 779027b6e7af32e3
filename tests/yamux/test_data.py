"""Data and flow control."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.yamux import KIB, MIB, DataReceived, StreamEnded, StreamOpened, StreamWritable
from tests.yamux.frame_bytes import ACK, DATA, FIN, SYN, WINDOW, WireFrame, data, frame, window
from tests.yamux.pair import CALM, Pair, accepted, agent, bodies, drain, fatal, pattern, read

INITIAL = 256 * KIB


class TestTransfer:
    def test_many_small_writes_arrive_in_order_both_ways(self) -> None:
        """Case 30."""
        pair = Pair()
        stream_id = pair.open()
        sent = [pattern(4, at) for at in range(1000)]
        for chunk in sent:
            pair.relay.session.send_data(stream_id, chunk)
            pair.agent.session.send_data(stream_id, chunk[::-1])
        pair.relay.session.end_stream(stream_id)
        pair.agent.session.end_stream(stream_id)
        pair.pump()
        assert pair.agent.take_data(stream_id) == b"".join(sent)
        assert pair.relay.take_data(stream_id) == b"".join(chunk[::-1] for chunk in sent)
        assert (pair.relay.session.stream_count, pair.agent.session.stream_count) == (0, 0)

    def test_large_transfer_arrives_through_small_windows(self) -> None:
        """Case 31."""
        pair = Pair()
        stream_id = pair.open()
        body = pattern(251) * (4 * MIB // 251)
        pair.relay.session.send_data(stream_id, body)
        arrived: list[bytes] = []
        pair.pump(on_turn=lambda: arrived.append(pair.agent.take_data(stream_id)))
        assert b"".join(arrived) == body

    def test_parallel_transfers_keep_buffers_bounded(self) -> None:
        """Cases 32 and 33."""
        pair = Pair()
        ids = [pair.open() for _ in range(16)]
        body = pattern(251) * (1 * MIB // 251)
        for stream_id in ids:
            pair.relay.session.send_data(stream_id, bytes([stream_id]) + body)
            pair.relay.session.end_stream(stream_id)
        arrived = dict.fromkeys(ids, b"")
        largest = 0

        def take() -> None:
            nonlocal largest
            held = sum(len(event.data) for event in pair.agent.events if isinstance(event, DataReceived))
            largest = max(largest, held)
            for event in pair.agent.take(DataReceived):
                arrived[event.stream_id] += event.data
                pair.agent.session.data_taken(event.stream_id, len(event.data))

        pair.pump(on_turn=take)
        assert arrived == {stream_id: bytes([stream_id]) + body for stream_id in ids}
        assert len(pair.agent.take(StreamEnded)) == 16
        assert largest <= 16 * INITIAL

    def test_requests_and_responses_alternate_on_many_streams(self) -> None:
        """Case 34."""
        pair = Pair()
        ids = [pair.open() for _ in range(50)]
        for turn in range(20):
            for stream_id in ids:
                pair.relay.session.send_data(stream_id, pattern(100, turn))
            pair.pump()
            for stream_id in ids:
                pair.agent.session.send_data(stream_id, pair.agent.take_data(stream_id))
            pair.pump()
            assert all(pair.relay.take_data(stream_id) == pattern(100, turn) for stream_id in ids)

    def test_carrier_with_1_kib_buffers_does_not_deadlock(self) -> None:
        """Case 37: one MiB is echoed although neither side can write freely."""
        pair = Pair()
        stream_id = pair.open()
        body = pattern(251) * (1 * MIB // 251)
        pair.relay.session.send_data(stream_id, body)
        echoed = b""
        while len(echoed) < len(body):
            to_agent, to_relay = pair.relay.message(1 * KIB), pair.agent.message(1 * KIB)
            assert to_agent or to_relay, "one side can always send"
            for message, end in ((to_agent, pair.agent), (to_relay, pair.relay)):
                if message:
                    end.receive(message)
            pair.agent.session.send_data(stream_id, pair.agent.take_data(stream_id))
            echoed += pair.relay.take_data(stream_id)
        assert echoed == body

    def test_empty_data_is_ignored(self) -> None:
        end = accepted()
        assert end.session.send_data(2, b"") == 0
        assert end.frames() == []
        end.receive(data(2))
        assert end.take_all() == []

    def test_data_is_delivered_while_its_frame_is_still_arriving(self) -> None:
        end = accepted()
        text = data(2, pattern(1000), FIN)
        end.receive(text[:500])
        assert end.take_all() == [DataReceived(2, pattern(1000)[:488])]
        end.receive(text[500:])
        assert end.take_all() == [DataReceived(2, pattern(1000)[488:]), StreamEnded(2)]

    def test_data_is_bytes_for_any_input_type(self) -> None:
        end = accepted()
        end.session.receive_data(bytearray(data(2, b"abc")), 0.0)
        (event,) = end.session.take_events()
        assert isinstance(event, DataReceived)
        assert type(event.data) is bytes


class TestSending:
    def test_consecutive_turns_form_one_frame_within_the_message_limit(self) -> None:
        """Cases 45 and 91; ``End.message`` checks that messages hold whole frames."""
        end = accepted()
        end.session.send_data(2, bytes(200 * KIB))
        frames = end.frames()
        assert max(one.length for one in frames) == 4 * (16 * KIB - 12)
        assert {len(message) for message in end.said[1:-1]} == {64 * KIB - 3 * 12}, (
            "four turns fill a message"
        )
        assert len(bodies(frames)) == 200 * KIB

    @pytest.mark.parametrize("limit", [13, 14, 100, 5000, 16 * KIB + 12])
    def test_everything_is_sent_with_any_limit(self, limit: int) -> None:
        end = accepted()
        end.session.send_data(2, pattern(20_000))
        end.session.end_stream(2)
        sent = b"".join(end.messages(limit))
        frames = read(sent)
        assert bodies(frames) == pattern(20_000)
        assert frames[-1].flags == FIN

    @pytest.mark.parametrize("limit", [-1, 0, 11])
    def test_too_small_limit_sends_nothing_and_loses_nothing(self, limit: int) -> None:
        end = accepted()
        end.session.send_data(2, b"abc")
        end.session.open_stream(0.0)
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL)
        end.session.go_away()
        assert end.session.next_message(limit) == []
        assert len(end.frames()) == 4

    def test_nearly_full_message_gets_no_tiny_data_frame(self) -> None:
        end = accepted()
        for one in (4, 6):
            end.receive(window(one, SYN))
            end.session.accept_stream(one)
        end.messages()
        for one in (2, 4, 6):
            end.session.send_data(one, bytes(4000))
        assert [one.length for one in read(end.message(8100))] == [4000, 4000]
        assert [one.length for one in read(end.message(8100))] == [4000]

    def test_sender_stops_exactly_at_the_window(self) -> None:
        """Cases 46 and 52."""
        end = accepted()
        end.session.send_data(2, pattern(INITIAL + 100))
        assert len(bodies(end.frames())) == INITIAL
        assert not end.session.wants_to_send
        assert end.session.queued_bytes(2) == 100
        end.receive(window(2, 0, 30))
        assert end.session.wants_to_send
        assert [one.length for one in end.frames()] == [30]
        end.receive(window(2, 0, 1000))
        assert [one.length for one in end.frames()] == [70]

    def test_write_of_a_whole_large_window_is_sent_immediately(self) -> None:
        """Cases 40 and 51: the deltas on SYN and on ACK count."""
        wide = replace(CALM, receive_window_bytes=512 * KIB)
        pair = Pair(relay=wide, agent=wide)
        stream_id = pair.open()
        for sender, receiver in ((pair.relay, pair.agent), (pair.agent, pair.relay)):
            sender.session.send_data(stream_id, bytes(600 * KIB))
            assert len(bodies(sender.frames(), stream_id)) == 512 * KIB
            receiver.take_all()

    @pytest.mark.parametrize("relay", [256 * KIB, 257 * KIB, 1 * MIB])
    @pytest.mark.parametrize("agent_window", [256 * KIB, 300 * KIB])
    def test_no_pair_of_windows_stalls(self, relay: int, agent_window: int) -> None:
        """Cases 36 and 41."""
        pair = Pair(
            replace(CALM, receive_window_bytes=relay), replace(CALM, receive_window_bytes=agent_window)
        )
        stream_id = pair.open()
        pair.relay.session.send_data(stream_id, bytes(3 * MIB))
        pair.agent.session.send_data(stream_id, bytes(3 * MIB))
        arrived = [0, 0]

        def take() -> None:
            for side, end in enumerate((pair.relay, pair.agent)):
                arrived[side] += len(end.take_data(stream_id))

        pair.pump(on_turn=take)
        assert arrived == [3 * MIB, 3 * MIB]

    def test_small_frame_overtakes_queued_bulk_data(self) -> None:
        end = accepted()
        end.receive(window(4, SYN))
        end.session.send_data(2, bytes(200 * KIB))
        end.message()
        end.session.send_data(4, b"small")
        order = [(one.stream_id, one.length) for one in end.frames() if one.kind == DATA]
        assert order[:2] == [(4, 5), (2, 4 * (16 * KIB - 12))]

    def test_data_without_window_waits_and_causes_no_empty_frame(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(INITIAL))
        end.messages()
        end.session.send_data(2, b"abc")
        end.receive(window(2))
        assert not end.session.wants_to_send
        assert end.frames() == []

    def test_stream_without_window_does_not_block_others(self) -> None:
        end = accepted()
        end.receive(window(4, SYN))
        end.session.send_data(2, bytes(INITIAL + 1))
        end.messages()
        end.session.send_data(4, b"abc")
        assert bodies(end.frames(), 4) == b"abc"

    def test_control_frames_precede_credit_and_data(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(64 * KIB))
        end.receive(data(2, bytes(INITIAL)) + frame(2, SYN, 0, 9))
        end.session.data_taken(2, INITIAL)
        end.session.open_stream(0.0)
        kinds = [(one.kind, one.flags) for one in end.frames()]
        assert kinds[:4] == [(2, ACK), (WINDOW, SYN), (WINDOW, 0), (DATA, 0)]

    def test_writable_is_reported_once_at_the_low_water_mark(self) -> None:
        end = accepted()
        assert end.session.send_data(2, bytes(64 * KIB)) == 64 * KIB
        end.messages()
        assert end.take_all() == [], "the queue was never above the high-water mark"
        assert end.session.send_data(2, bytes(64 * KIB + 1)) == 64 * KIB + 1
        end.message(8 * KIB)
        assert end.take_all() == [], "the queue is above the low-water mark"
        end.messages()
        assert end.take_all() == [StreamWritable(2)]

    def test_ending_stream_is_not_reported_writable(self) -> None:
        end = accepted()
        end.session.send_data(2, bytes(100 * KIB))
        end.session.end_stream(2)
        end.messages()
        assert end.take(StreamWritable) == []

    def test_full_send_queue_resets_its_stream_only(self) -> None:
        """Reaches the limit of the send queue."""
        end = accepted(replace(CALM, send_queue_bytes=100 * KIB))
        end.receive(window(4, SYN))
        end.session.send_data(2, bytes(100 * KIB))
        with pytest.raises(LocalProtocolError) as caught:
            end.session.send_data(2, b"x")
        assert caught.value.code == "send_queue_full"
        assert [one.flags for one in end.frames()] == [8], "the queue is dropped and RST is sent"
        assert end.session.stream_count == 1
        with pytest.raises(LocalProtocolError) as caught:
            end.session.send_data(2, b"x")
        assert caught.value.code == "stream_closed"

    def test_data_for_an_unknown_stream_is_rejected(self) -> None:
        assert agent().session.queued_bytes(2) == 0


class TestCredit:
    def test_no_credit_for_less_than_half_a_window(self) -> None:
        """Case 38."""
        end = accepted()
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL // 2 - 1)
        assert end.frames() == []
        end.session.data_taken(2, 1)
        assert end.frames() == [WireFrame(WINDOW, 0, 2, INITIAL // 2)]

    def test_credit_covers_everything_consumed_until_it_is_sent(self) -> None:
        end = accepted()
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL // 2)
        end.session.data_taken(2, 1000)
        assert end.frames() == [WireFrame(WINDOW, 0, 2, INITIAL // 2 + 1000)]

    def test_bytes_not_consumed_give_no_credit(self) -> None:
        """Case 52: a slow reader limits what it can be sent."""
        pair = Pair()
        stream_id = pair.open()
        pair.relay.session.send_data(stream_id, bytes(1 * MIB))
        pair.pump()
        assert sum(len(event.data) for event in pair.agent.take(DataReceived)) == INITIAL

    def test_slow_reader_stops_only_its_own_stream(self) -> None:
        pair = Pair()
        slow, fast = pair.open(), pair.open()
        for stream_id in (slow, fast):
            pair.relay.session.send_data(stream_id, bytes(1 * MIB))
        arrived = dict.fromkeys((slow, fast), 0)

        def take() -> None:
            for event in pair.agent.take(DataReceived):
                arrived[event.stream_id] += len(event.data)
                if event.stream_id == fast:
                    pair.agent.session.data_taken(fast, len(event.data))

        pair.pump(on_turn=take)
        assert arrived == {slow: INITIAL, fast: 1 * MIB}

    def test_no_credit_after_the_peers_end(self) -> None:
        end = accepted()
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL - 1)
        end.receive(window(2, FIN))
        end.session.data_taken(2, 1)
        assert end.frames() == []

    def test_credit_for_a_closed_stream_is_dropped(self) -> None:
        end = accepted()
        end.receive(data(2, bytes(INITIAL)))
        end.session.data_taken(2, INITIAL // 2)
        end.session.reset_stream(2)
        end.session.data_taken(2, INITIAL // 2)
        assert [one.flags for one in end.frames()] == [8]

    def test_consuming_more_than_delivered_is_a_local_error(self) -> None:
        end = accepted()
        end.receive(data(2, b"abc"))
        with pytest.raises(LocalProtocolError) as caught:
            end.session.data_taken(2, 4)
        assert caught.value.code == "taken_too_much"

    def test_credit_without_room_is_sent_in_the_next_message(self) -> None:
        end = accepted()
        for one in (4, 6):
            end.receive(window(one, SYN))
        for one in (2, 4, 6):
            end.receive(data(one, bytes(INITIAL)))
            end.session.data_taken(one, INITIAL)
        end.message(24)
        assert [len(message) for message in end.messages(24)] == [24, 12]

    def test_unsent_credit_does_not_stop_receiving(self) -> None:
        """Case 39: a full carrier does not stop receiving."""
        end = accepted()
        for _ in range(10):
            end.receive(data(2, bytes(10_000)))
            end.session.data_taken(2, 10_000)
        assert len(end.take(DataReceived)) == 10


class TestBrokenWindows:
    @pytest.mark.parametrize("excess", [1, INITIAL])
    def test_frame_beyond_the_window_ends_the_session_at_its_header(self, excess: int) -> None:
        """Cases 42 and 43: nothing of the body has arrived."""
        end = accepted()
        assert fatal(end, frame(DATA, 0, 2, INITIAL + excess)) == "window_exceeded"
        assert end.take_all() == []

    def test_frames_add_up_against_the_window(self) -> None:
        """Case 43."""
        end = accepted()
        end.receive(data(2, bytes(INITIAL)))
        assert fatal(end, data(2, b"x")) == "window_exceeded"

    @pytest.mark.parametrize("flags", [0, FIN, ACK])
    def test_window_applies_to_frames_with_flags(self, flags: int) -> None:
        end = accepted()
        assert fatal(end, frame(DATA, flags, 2, INITIAL + 1)) == "window_exceeded"

    def test_syn_with_data_beyond_the_window_ends_the_session(self) -> None:
        """Case 43."""
        end = agent()
        assert fatal(end, frame(DATA, SYN, 2, INITIAL + 1)) == "window_exceeded"

    def test_window_can_be_used_to_the_last_byte(self) -> None:
        end = accepted()
        end.receive(data(2, bytes(INITIAL)))
        assert not end.session.is_closed

    def test_window_updates_beyond_32_bits_end_the_session(self) -> None:
        """Case 44."""
        end = accepted()
        end.receive(window(2, 0, 2**32 - 1 - INITIAL))
        assert fatal(end, window(2, 0, 1)) == "window_overflow"

    def test_events_before_an_error_can_still_be_taken(self) -> None:
        end = accepted()
        with pytest.raises(RemoteProtocolError):
            end.receive(data(2, b"abc") + window(4, SYN) + frame(DATA, 0, 2, 2**32 - 1))
        assert end.take_all() == [DataReceived(2, b"abc"), StreamOpened(4)]
        assert drain(end.session) == frame(3, 0, 0, 1)
