"""The scheduler: single rules, and properties under random actions (decision 15)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seance.yamux import KIB, Role, Session
from seance.yamux.scheduler import INTERACTIVE_BYTES, INTERACTIVE_RUN_BYTES, ROUND_ROBIN_TURNS, Scheduler
from seance.yamux.streams import Stream
from tests.yamux.frame_bytes import read_frames
from tests.yamux.pair import CALM

FRAME = 16 * KIB - 12
SMALL_FRAME = 8 * KIB
MUCH = 10**9


@dataclass
class Line:
    """A scheduler, and streams with a number of bytes each; windows are open unless closed."""

    scheduler: Scheduler = field(default_factory=Scheduler)
    streams: dict[int, Stream] = field(default_factory=dict)
    shut: set[int] = field(default_factory=set)

    def want(self, stream_id: int, count: int) -> Stream:
        """Give a stream ``count`` more bytes to send."""
        stream = self.streams.setdefault(stream_id, Stream(stream_id, is_outbound=True))
        stream.queued_bytes += count
        if stream_id not in self.shut:
            self.scheduler.add(stream)
        return stream

    def turn(self) -> tuple[int, int] | None:
        """Send one frame; return its stream and its size."""
        stream = self.scheduler.next_stream()
        if stream is None:
            return None
        count = min(stream.queued_bytes, self.scheduler.max_bytes)
        stream.queued_bytes -= count
        has_more = stream.queued_bytes > 0 and stream.stream_id not in self.shut
        self.scheduler.record_turn(stream, count, has_more)
        return stream.stream_id, count

    def order(self, turns: int = 10**6) -> list[int]:
        """Send frames; return their streams."""
        order = []
        while len(order) < turns and (turn := self.turn()) is not None:
            order.append(turn[0])
        return order

    def bulk(self, *ids: int) -> None:
        """Make streams bulk, in this order, with more data than they can send."""
        for stream_id in ids:
            self.want(stream_id, INTERACTIVE_BYTES)
            assert set(self.order()) <= {*self.streams}
        for stream_id in ids:
            self.want(stream_id, MUCH)


def line_of(*ids: int) -> Line:
    line = Line()
    for stream_id in ids:
        line.want(stream_id, 100)
    return line


class TestInteractive:
    def test_turns_come_in_order_of_arrival(self) -> None:
        assert line_of(4, 2, 6).order() == [4, 2, 6]

    def test_scheduled_stream_keeps_its_position(self) -> None:
        line = line_of(2, 4)
        line.want(2, 1)
        assert len(line.scheduler) == 2
        assert line.order() == [2, 4]

    def test_stream_with_more_data_moves_to_the_end(self) -> None:
        line = line_of(2, 4)
        line.want(2, SMALL_FRAME)
        assert line.order() == [2, 4, 2]

    def test_frames_are_small_while_others_wait(self) -> None:
        line = Line()
        line.want(2, FRAME)
        line.want(4, 10)
        assert [line.turn() for _ in range(3)] == [(2, SMALL_FRAME), (4, 10), (2, FRAME - SMALL_FRAME)]

    def test_put_back_stream_is_first_again(self) -> None:
        line = line_of(2, 4)
        first = line.scheduler.next_stream()
        assert first is not None
        line.scheduler.put_back(first)
        assert line.order() == [2, 4]

    def test_stream_becomes_bulk_after_a_full_frame(self) -> None:
        line = Line()
        stream = line.want(2, INTERACTIVE_BYTES - 1)
        line.order()
        assert not stream.bulk_rank
        line.want(2, 1)
        line.order()
        assert stream.bulk_rank

    def test_interactive_frame_overtakes_bulk(self) -> None:
        line = Line()
        line.bulk(2)
        assert line.order(2) == [2, 2]
        line.want(4, 10)
        assert line.order(2) == [4, 2]

    def test_bulk_has_a_turn_after_much_interactive_data(self) -> None:
        line = Line()
        line.bulk(2)
        line.order(1)
        for stream_id in range(4, 44, 2):
            line.want(stream_id, SMALL_FRAME)
        in_a_row = INTERACTIVE_RUN_BYTES // SMALL_FRAME
        order = line.order(20)
        assert [at for at, stream_id in enumerate(order) if stream_id == 2] == [in_a_row, 2 * in_a_row + 1]

    def test_stream_with_an_eighth_of_the_path_stays_interactive(self) -> None:
        line = Line()
        line.bulk(2)
        for _ in range(1000):
            line.want(4, 1500)
            assert line.order(1) == [4]
            line.order(1)


class TestBulk:
    def test_first_bulk_stream_has_three_turns_of_four(self) -> None:
        line = Line()
        line.bulk(2, 4)
        order = line.order(160)
        assert (order.count(2), order.count(4)) == (125, 35), "a sixteenth of the turns rotates"

    def test_single_bulk_stream_has_all_turns(self) -> None:
        line = Line()
        line.bulk(2)
        assert line.order(50) == [2] * 50

    def test_every_sixteenth_turn_rotates(self) -> None:
        line = Line()
        line.bulk(2, 4, 6, 8)
        order = line.order(ROUND_ROBIN_TURNS * 8)
        assert (order.count(6), order.count(8)) == (2, 2)
        assert order.count(2) == 12 * 8 + 2

    def test_new_streams_do_not_delay_the_rotation(self) -> None:
        """With a new bulk stream before every rotating turn, the oldest waiting one still has its turn."""
        line = Line()
        line.bulk(2, 4, 6)
        for newcomer in range(100, 300, 2):
            line.want(newcomer, FRAME + MUCH)
            if 6 in line.order(ROUND_ROBIN_TURNS):
                break
        assert newcomer < 120

    def test_returning_stream_gets_its_old_rank(self) -> None:
        line = Line()
        line.bulk(2, 4)
        line.shut.add(2)
        assert line.order(5)[1:] == [4] * 4, "a stream without window costs no turn"
        line.shut.remove(2)
        line.want(2, 0)
        assert line.order(8).count(2) == 6

    def test_stream_that_sent_little_becomes_interactive(self) -> None:
        line = Line()
        line.bulk(4)
        line.want(2, INTERACTIVE_BYTES)
        line.order(2)
        assert line.streams[2].bulk_rank
        line.order(3 * 4)
        line.want(2, 10)
        assert not line.streams[2].bulk_rank
        assert line.order(1) == [2]

    def test_stream_moves_to_the_end_after_thirty_seconds(self) -> None:
        line = Line()
        line.bulk(2, 4, 6)
        for now, first in ((100.0, 2), (129.9, 2), (130.0, 4), (159.9, 4), (160.0, 6), (190.0, 2)):
            line.scheduler.update_time(now)
            assert line.order(16).count(first) >= 12, f"{first} is first at {now}"

    def test_single_stream_stays_first(self) -> None:
        line = Line()
        line.bulk(2)
        for now in range(100):
            line.scheduler.update_time(float(now))
            assert line.order(1) == [2]
        line.bulk(4)
        line.scheduler.update_time(100.0)
        assert line.order(16).count(4) >= 12, "the others do not wait for it"

    def test_time_without_bulk_streams_does_not_count(self) -> None:
        line = Line()
        line.bulk(2, 4)
        line.scheduler.update_time(0.0)
        line.shut |= {2, 4}
        line.order()
        line.shut.clear()
        line.want(2, 0)
        line.want(4, 0)
        line.scheduler.update_time(1000.0)
        line.scheduler.update_time(1001.0)
        assert line.order(16).count(2) == 12

    def test_put_back_bulk_stream_is_next_again(self) -> None:
        line = Line()
        line.bulk(2, 4, 6)
        for _ in range(50):
            first = line.scheduler.next_stream()
            assert first is not None
            line.scheduler.put_back(first)
            assert line.scheduler.next_stream() is first
            line.scheduler.record_turn(first, FRAME, True)


class TestLeaving:
    @pytest.mark.parametrize("is_bulk", [False, True])
    @pytest.mark.parametrize("leaver", [2, 4, 6])
    def test_stream_can_be_removed_from_any_position(self, leaver: int, is_bulk: bool) -> None:
        line = line_of(2, 4, 6)
        if is_bulk:
            line.bulk(2, 4, 6)
        line.scheduler.remove(line.streams[leaver])
        line.scheduler.remove(Stream(8, is_outbound=True))
        line.scheduler.remove(line.streams[leaver])
        assert len(line.scheduler) == 2
        assert set(line.order(50)) == {2, 4, 6} - {leaver}

    def test_cleared_scheduler_is_empty(self) -> None:
        line = line_of(2, 4)
        line.bulk(6)
        line.scheduler.clear()
        assert line.scheduler.next_stream() is None
        assert not line.scheduler


@dataclass
class Waiting:
    """How long a stream has waited for its turn, and the maximum that decision 15 allows."""

    interactive_turns: int = 0
    bulk_turns: int = 0
    light_bytes: int = 0
    ahead: int = 0


STEPS = st.one_of(
    st.tuples(st.just("want"), st.integers(1, 12), st.sampled_from([1, 100, 5000, 20_000, 300_000])),
    st.tuples(st.just("shut"), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("open"), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("cut"), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("turns"), st.integers(1, 40), st.just(0)),
    st.tuples(st.just("time"), st.integers(1, 40), st.just(0)),
)


@given(st.lists(STEPS, max_size=120))
def test_no_stream_starves_and_no_turn_is_wasted(steps: list[tuple[str, int, int]]) -> None:
    """The bounds of decision 15, counted in turns, with streams that come and go and run out of window."""
    line = Line()
    now = 0.0
    waits: dict[int, Waiting] = {}

    def is_ready(stream: Stream) -> bool:
        return stream.queued_bytes > 0 and stream.stream_id not in line.shut

    def one_turn() -> None:
        ready = {stream_id for stream_id, stream in line.streams.items() if is_ready(stream)}
        assert len(line.scheduler) == len(ready)
        light = [one for one in ready if not line.streams[one].bulk_rank]
        bulk = ready - set(light)
        for stream_id in ready - set(waits):
            waits[stream_id] = Waiting(ahead=len(light))
        turn = line.turn()
        assert (turn is None) == (not ready), "a stream with data and window is always found"
        if turn is None:
            return
        stream_id, count = turn
        assert stream_id in ready
        del waits[stream_id]
        for one, waiting in waits.items():
            if stream_id in light:
                waiting.interactive_turns += 1
                waiting.light_bytes += count
            else:
                waiting.bulk_turns += 1
                waiting.light_bytes = 0
            if one in light:
                assert waiting.interactive_turns <= waiting.ahead, "one turn of each other interactive stream"
                assert waiting.bulk_turns <= waiting.ahead * SMALL_FRAME // INTERACTIVE_RUN_BYTES + 1
            elif one in bulk:
                assert waiting.light_bytes <= INTERACTIVE_RUN_BYTES + SMALL_FRAME, "a fifth is for bulk"
                assert waiting.bulk_turns <= 2 * ROUND_ROBIN_TURNS * len(line.streams), (
                    "one turn in two rotations"
                )

    for step, number, count in steps:
        if step == "turns":
            for _ in range(number):
                one_turn()
        elif step == "time":
            now += number
            line.scheduler.update_time(now)
        elif step == "want":
            line.want(number, count)
        elif step == "shut" and number in line.streams and not line.streams[number].is_scheduled:
            line.shut.add(number)
        elif step == "open":
            line.shut.discard(number)
            if number in line.streams and line.streams[number].queued_bytes:
                line.scheduler.add(line.streams[number])
        elif step == "cut" and number in line.streams:
            line.scheduler.remove(line.streams.pop(number))
            waits.pop(number, None)
    for _ in range(2000):
        one_turn()


TYPING = 1
SENDS = st.lists(st.tuples(st.integers(2, 9), st.sampled_from([50, 5000, 20_000, 100_000])), max_size=4)
SHORT_TURN = [[(2, 20_000), (2, 5000)], [(3, 100_000)], [(4, 20_000)], [(5, 20_000)], [(6, 20_000)], []]
"""At its turn the first bulk stream has a few hundred bytes left, and the second one has many."""


@example([(sends, 64 * KIB) for sends in SHORT_TURN])
@given(st.lists(st.tuples(SENDS, st.sampled_from([4 * KIB, 20_000, 64 * KIB])), max_size=25))
def test_keystroke_waits_for_one_bulk_frame_per_message(
    messages: list[tuple[list[tuple[int, int]], int]],
) -> None:
    """Messages are sent as long as any stream can send."""
    session = Session(Role.CLIENT, limits=CALM)
    ids = [session.open_stream(0.0) for _ in range(10)]
    session.next_message()
    for sends, limit in messages:
        for index, count in sends:
            session.send_data(ids[index], bytes(count))
        session.send_data(TYPING, bytes(50))
        bulk = {one for one, stream in session._streams.items() if stream.bulk_rank}
        light_bytes = sum(session.queued_bytes(one) for one in ids if one not in bulk)
        can_send = any(
            one.queued_bytes and one.send_window.available_bytes for one in session._streams.values()
        )
        frames, rest = read_frames(b"".join(session.next_message(limit)))
        assert not rest
        order = [frame.stream_id for frame in frames]
        if light_bytes < limit - FRAME - 12 * 2 * len(ids):
            # Otherwise it is the turn of bulk data: the message ends before it, and the next one starts with
            # it.
            assert (
                TYPING in order or session._outbox._scheduler._interactive_run_bytes >= INTERACTIVE_RUN_BYTES
            )
        if TYPING in order:
            ahead = [one for one in order[: order.index(TYPING)] if one in bulk]
            assert len(ahead) <= 1
        assert bool(order) == can_send


@pytest.mark.parametrize("limit", [1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB])
def test_bulk_has_a_fifth_with_any_message_size(limit: int) -> None:
    """In small messages a turn is only the rest of a message, so bytes are counted."""
    session = Session(Role.CLIENT, limits=CALM)
    bulk, *light = (session.open_stream(0.0) for _ in range(101))
    session._streams[bulk].send_window.available_bytes = MUCH
    session.send_data(bulk, bytes(17 * KIB))
    while session.next_message():
        pass
    assert session._streams[bulk].bulk_rank
    for one in light:
        session.send_data(one, bytes(INTERACTIVE_BYTES - 1))
    sent = dict.fromkeys((bulk, *light), 0)
    while any(map(session.queued_bytes, light)):
        if session.queued_bytes(bulk) < 48 * KIB:
            session.send_data(bulk, bytes(64 * KIB))
        for frame in read_frames(b"".join(session.next_message(limit)))[0]:
            sent[frame.stream_id] += frame.length
        assert sent[bulk] * 4 >= sum(sent.values()) - sent[bulk] - INTERACTIVE_RUN_BYTES - INTERACTIVE_BYTES
    assert sent[bulk] * 4 <= sum(sent.values()) - sent[bulk] + 4 * INTERACTIVE_BYTES, "not more"


def test_no_bulk_follows_interactive_data_in_a_message() -> None:
    session = Session(Role.CLIENT, limits=CALM)
    typing, new, old = (session.open_stream(0.0) for _ in range(3))
    for one, count in ((old, 16 * KIB), (new, INTERACTIVE_BYTES - 100)):
        session.send_data(one, bytes(count))
        while session.next_message():
            pass
    session.send_data(old, bytes(60 * KIB))
    session.send_data(typing, bytes(50))
    session.send_data(new, bytes(20 * KIB))
    frames, _ = read_frames(b"".join(session.next_message()))
    assert [frame.stream_id for frame in frames] == [typing, new]
    assert session._streams[new].bulk_rank, "the stream becomes bulk in this message"
    assert frames[1].length == FRAME, "the rest of its data comes later"


@pytest.mark.parametrize("is_typing", [False, True])
def test_a_message_with_interactive_data_has_at_most_64_kib(is_typing: bool) -> None:
    session = Session(Role.CLIENT, limits=CALM)
    typing, bulk = (session.open_stream(0.0) for _ in range(2))
    session.send_data(bulk, bytes(16 * KIB))
    while session.next_message():
        pass
    session.send_data(bulk, bytes(200 * KIB))
    if is_typing:
        session.send_data(typing, bytes(50))
        for _ in range(20):
            session.send_data(session.open_stream(0.0), bytes(10 * KIB))
    message = b"".join(session.next_message(256 * KIB))
    assert (len(message) > 64 * KIB) is not is_typing
    assert {frame.stream_id for frame in read_frames(message)[0]} >= {typing if is_typing else bulk}
