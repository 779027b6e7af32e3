"""The cutting proxy acts at the exact byte; otherwise the scenarios would prove nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.wire import Listener, Wire
from tests.ears import pattern
from tests.faults.cutter import Cutter, Direction
from tests.faults.loops import Loop
from tests.processes import until


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture
def cutter(listener: Listener) -> Iterator[Cutter]:
    with Loop() as loop, Cutter(loop, ("127.0.0.1", listener.port)) as cutter:
        yield cutter


def dial(cutter: Cutter) -> Wire:
    return Wire.dial(("127.0.0.1", cutter.port))


def test_bytes_pass_unchanged_and_dials_are_recorded(cutter: Cutter, listener: Listener) -> None:
    before = time.monotonic()
    with dial(cutter) as near, listener.accept() as far:
        near.send(pattern(300_000))
        near.finish()
        assert far.read_to_end() == pattern(300_000)
        far.send(b"answer")
        assert near.read_exactly(6) == b"answer"
    assert len(cutter.dials) == 1
    assert cutter.dials[0] >= before
    until("the connection has gone", lambda: cutter.pair_count == 0)


def test_a_reset_reaches_both_ends(cutter: Cutter, listener: Listener) -> None:
    with dial(cutter) as near, listener.accept() as far:
        near.send(b"hello")
        assert far.read_exactly(5) == b"hello"
        assert cutter.reset() == 1
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                end.read_to_end()


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_cut_comes_after_the_exact_number_of_bytes(cutter: Cutter, listener: Listener, count: int) -> None:
    cutter.cut_at(Direction.UP, count)
    with dial(cutter) as near, listener.accept() as far:
        near.send(pattern(3000))
        assert far.read_exactly(count) == pattern(3000)[:count]
        with pytest.raises(ConnectionResetError):
            far.read_to_end()


def test_one_bit_is_flipped_once_at_the_given_byte(cutter: Cutter, listener: Listener) -> None:
    cutter.flip_at(Direction.DOWN, 5)
    for turned in (True, False):
        with dial(cutter) as near, listener.accept() as far:
            far.send(b"\0" * 10)
            assert near.read_exactly(10) == (b"\0\0\0\0\0\x10\0\0\0\0" if turned else b"\0" * 10)


def test_held_bytes_arrive_after_healing_and_new_connections_wait(cutter: Cutter, listener: Listener) -> None:
    with dial(cutter) as near, listener.accept() as far:
        cutter.swallow(Direction.UP)
        near.send(b"late")
        far.send(b"now....")
        assert near.read_exactly(7) == b"now...."
        with dial(cutter) as given_up:
            given_up.send(b"an early request")
        with dial(cutter) as patient:
            patient.send(b"me too")
            until("both have dialled", lambda: len(cutter.dials) == 3)
            cutter.heal()
            assert far.read_exactly(4) == b"late"
            with listener.accept() as next_one:
                assert next_one.read_exactly(6) == b"me too", "a client that gave up was connected"


def test_stranded_connections_are_silent_and_new_ones_pass(cutter: Cutter, listener: Listener) -> None:
    with dial(cutter) as near, listener.accept() as far:
        near.send(b"before")
        assert far.read_exactly(6) == b"before"
        cutter.strand()
        near.send(b"late")
        with dial(cutter) as other, listener.accept() as other_far:
            other.send(b"now....")
            assert other_far.read_exactly(7) == b"now...."
        cutter.heal()
        assert far.read_exactly(4) == b"late"
