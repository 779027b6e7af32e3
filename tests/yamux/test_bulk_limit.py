"""The limit on bulk data in flight: on simulated lines, and call by call."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from seance.yamux import KIB
from seance.yamux.bulk_limit import BULK_PING_VALUE, BULK_PINGS, BulkLimit
from tests.yamux.line import MBIT, Line

IDLE_SECONDS = 0.041
"""Way of a keystroke over an empty line of 1 Mbit/s, both ways."""


def typing_beside_a_transfer(**line: float) -> Line:
    """A person types from the beginning; the transfer begins after one second."""
    made = Line(**line)  # type: ignore[arg-type]  # the fields of a line are numbers
    made.type_keys()
    made.after(1.0, made.transfer)
    return made


def p99(seconds: list[float]) -> float:
    return seconds[int(len(seconds) * 0.99)]


@pytest.mark.parametrize("buffer_kib", [8, 64, 512, 1024])
def test_keystrokes_pass_a_transfer_whatever_the_path_buffers(buffer_kib: int) -> None:
    line = typing_beside_a_transfer(buffer_bytes=buffer_kib * KIB)
    line.run(until=33.0)
    assert p99(line.waits(1.0)) <= IDLE_SECONDS + 0.1
    assert max(line.waits(2.0)) <= IDLE_SECONDS + 0.15
    assert line.share(1.0, 33.0) >= 0.93


@pytest.mark.parametrize("jitter_seconds", [0.01, 0.03])
def test_jitter_does_not_slow_the_transfer(jitter_seconds: float) -> None:
    line = typing_beside_a_transfer(buffer_bytes=512 * KIB, jitter_seconds=jitter_seconds)
    line.run(until=33.0)
    assert p99(line.waits(2.0)) <= IDLE_SECONDS + 2 * jitter_seconds + 0.1
    assert line.share(2.0, 33.0) >= 0.9


def test_transfer_of_minutes_does_not_raise_the_delay() -> None:
    """Its queue is never empty by itself, so without draining the base would rise by 60 ms each minute."""
    line = typing_beside_a_transfer(buffer_bytes=512 * KIB)
    line.run(until=150.0)
    assert p99(line.waits(90.0)) <= IDLE_SECONDS + 0.1
    assert line.share(90.0, 150.0) >= 0.93


def test_long_wide_path_is_used() -> None:
    line = Line(bytes_per_second=100 * MBIT, one_way_seconds=0.15, buffer_bytes=4096 * KIB, packet_bytes=9000)
    line.transfer()
    line.run(until=20.0)
    assert line.share(10.0, 20.0) >= 0.8


def test_rate_that_drops_and_returns_is_followed() -> None:
    line = typing_beside_a_transfer(bytes_per_second=8 * MBIT, buffer_bytes=512 * KIB)
    line.run(until=10.0)
    line.bytes_per_second = 1 * MBIT
    line.run(until=30.0)
    assert max(line.waits(10.0)) <= 1.0
    assert p99(line.waits(13.0)) <= IDLE_SECONDS + 0.1
    assert line.share(13.0, 30.0) >= 0.93
    line.bytes_per_second = 8 * MBIT
    line.run(until=40.0)
    assert p99(line.waits(30.0)) <= IDLE_SECONDS + 0.1
    assert line.share(33.0, 40.0) >= 0.93
    times = [at for at, _ in line.arrivals]
    assert max(later - earlier for earlier, later in pairwise(times)) <= 1.0


def test_call_on_the_same_line_keeps_its_rate_and_waits_little() -> None:
    line = typing_beside_a_transfer(buffer_bytes=512 * KIB)
    line.after(10.0, lambda: line.call(0.5 * MBIT))
    line.run(until=40.0)
    waits = sorted(waited for sent_at, waited in line.foreign if sent_at >= 12.0)
    assert p99(waits) <= 0.1
    assert line.share(12.0, 40.0) >= 0.42


@pytest.mark.parametrize("buffer_kib", [64, 512])
def test_foreign_transfer_adds_its_own_queue_and_no_more(buffer_kib: int) -> None:
    line = typing_beside_a_transfer(buffer_bytes=buffer_kib * KIB)
    line.after(10.0, line.upload)
    line.run(until=60.0)
    foreign = sorted(waited for sent_at, waited in line.foreign if sent_at >= 15.0)
    assert p99(line.waits(15.0)) <= p99(foreign) + IDLE_SECONDS + 0.05
    assert line.share(15.0, 60.0) > 0.005, "it yields, but it does not stop"


def test_peer_that_answers_no_pings_has_no_limit() -> None:
    line = Line(answers_pings=False)
    line.transfer()
    line.run(until=10.0)
    assert line.share(2.0, 10.0) >= 0.95


# Call by call.


class Ends:
    """A limit, and a path that delivers everything after a time."""

    def __init__(self, round_trip_seconds: float = 0.1) -> None:
        self.limit = BulkLimit()
        self.round_trip_seconds = round_trip_seconds
        self.now = 0.0
        self.pongs: list[tuple[float, int]] = []

    def send_all(self) -> int:
        """Send bulk data until it is held; return the number of bytes."""
        total = 0
        while room := self.limit.room():
            if self.limit.is_ping_due(True):
                self.pongs.append((self.now + self.round_trip_seconds, self.limit.ping(self.now)))
            self.limit.sent_bytes += room
            total += room
        return total

    def advance(self, seconds: float) -> None:
        """Deliver the answers that are due."""
        end = self.now + seconds
        while self.pongs and self.pongs[0][0] <= end:
            self.now, value = self.pongs.pop(0)
            self.limit.pong_received(value, self.now)
        self.now = end


def test_first_window_is_as_large_as_that_of_tcp() -> None:
    assert Ends().send_all() == 16 * KIB


def test_window_doubles_each_round_trip_while_the_path_is_empty() -> None:
    ends = Ends()
    windows = []
    for _ in range(6):
        ends.send_all()
        windows.append(ends.limit.window_bytes)
        for _ in range(50):
            ends.advance(ends.round_trip_seconds / 50)
            ends.send_all()
    growth = [later / earlier for earlier, later in pairwise(windows)]
    assert all(1.5 <= factor <= 2.1 for factor in growth), growth


def test_window_that_is_not_used_does_not_grow() -> None:
    ends = Ends()
    for _ in range(100):
        ends.pongs.append((ends.now + 0.1, ends.limit.ping(ends.now)))
        ends.limit.sent_bytes += KIB
        ends.advance(0.2)
    assert ends.limit.window_bytes == 16 * KIB


def test_pings_in_flight_are_limited() -> None:
    ends = Ends()
    count = 0
    for _ in range(1000):
        ends.limit.sent_bytes += 64 * KIB
        if ends.limit.is_ping_due(False):
            ends.limit.ping(0.0)
            count += 1
    assert count == BULK_PINGS


def test_peer_that_never_answers_is_not_limited_after_a_while() -> None:
    ends = Ends()
    ends.send_all()
    due = ends.limit.deadline()
    assert due == 1.5
    ends.limit.handle_timeout(1.4)
    assert ends.limit.room() == 0
    ends.limit.handle_timeout(1.5)
    assert ends.limit.room() > 1_000_000


def test_peer_that_stops_answering_gets_a_minimum_window_at_intervals() -> None:
    ends = Ends()
    ends.send_all()
    ends.advance(0.1)
    ends.send_all()
    ends.pongs.clear()
    for _ in range(19):
        due = ends.limit.deadline()
        assert due is not None
        ends.limit.handle_timeout(due)
        assert 0 < ends.send_all() <= 4 * KIB
        ends.pongs.clear()
    due = ends.limit.deadline()
    assert due is not None
    assert 25.0 <= due <= 35.0
    ends.limit.handle_timeout(due)
    assert ends.limit.room() > 1_000_000, "it answers no more"


def test_restart_forgets_the_path_and_the_pings() -> None:
    ends = Ends()
    for _ in range(50):
        ends.send_all()
        ends.advance(0.02)
    assert ends.limit.window_bytes > 64 * KIB
    ends.limit.restart()
    assert ends.limit.window_bytes == 16 * KIB
    stale = list(ends.pongs)
    assert stale
    ends.advance(10.0)
    assert ends.limit.window_bytes == 16 * KIB
    ends.round_trip_seconds = 0.0
    assert ends.send_all() == 16 * KIB


@pytest.mark.parametrize("value", [0, 1, BULK_PING_VALUE, BULK_PING_VALUE + 1000, 0xFFFF_FFFF])
def test_unknown_answers_are_ignored(value: int) -> None:
    ends = Ends()
    ends.send_all()
    before = ends.limit.room()
    ends.limit.pong_received(value, 0.01)
    assert ends.limit.room() == before == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_calls_keeps_the_bounds(seed: int) -> None:
    dice = random.Random(seed)
    limit, now, values = BulkLimit(), 0.0, []
    for _ in range(3000):
        now += dice.choice([0.0, 0.001, 0.1, 3.0])
        match dice.randrange(6):
            case 0 | 1:
                limit.sent_bytes += max(limit.room(), dice.choice([0, 100, 70_000]))
            case 2:
                if limit.is_ping_due(dice.random() < 0.5):
                    values.append(limit.ping(now))
            case 3 | 4:
                if values:
                    limit.pong_received(values.pop(dice.randrange(len(values))), now)
            case 5:
                limit.handle_timeout(now)
                if dice.random() < 0.01:
                    limit.restart()
        assert 4 * KIB <= limit.window_bytes <= 64 * 1024 * KIB
        assert len(limit._pings) <= BULK_PINGS
        assert limit.sent_bytes >= limit._acked
