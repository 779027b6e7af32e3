"""The cutting proxy does what it is told, at the byte: else the scenarios would show nothing."""

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


def test_what_passes_is_what_was_sent_and_dials_are_counted(cutter: Cutter, listener: Listener) -> None:
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


def test_reset_is_told_to_both_ends(cutter: Cutter, listener: Listener) -> None:
    with dial(cutter) as near, listener.accept() as far:
        near.send(b"hello")
        assert far.read_exactly(5) == b"hello"
        assert cutter.reset() == 1
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                end.read_to_end()


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_cut_comes_after_exactly_so_many_bytes(cutter: Cutter, listener: Listener, count: int) -> None:
    cutter.cut_at(Direction.UP, count)
    with dial(cutter) as near, listener.accept() as far:
        near.send(pattern(3000))
        assert far.read_exactly(count) == pattern(3000)[:count]
        with pytest.raises(ConnectionResetError):
            far.read_to_end()


def test_one_bit_is_turned_where_it_is_said_and_only_once(cutter: Cutter, listener: Listener) -> None:
    cutter.flip_at(Direction.DOWN, 5)
    for turned in (True, False):
        with dial(cutter) as near, listener.accept() as far:
            far.send(b"\0" * 10)
            assert near.read_exactly(10) == (b"\0\0\0\0\0\x10\0\0\0\0" if turned else b"\0" * 10)


def test_swallowed_bytes_come_when_it_is_healed_and_nobody_is_answered_before(
    cutter: Cutter, listener: Listener
) -> None:
    with dial(cutter) as near, listener.accept() as far:
        cutter.swallow(Direction.UP)
        near.send(b"late")
        far.send(b"at once")
        assert near.read_exactly(7) == b"at once"
        with dial(cutter) as given_up:
            given_up.send(b"is anybody there?")
        with dial(cutter) as patient:
            patient.send(b"me too")
            until("both have dialled", lambda: len(cutter.dials) == 3)
            cutter.heal()
            assert far.read_exactly(4) == b"late"
            with listener.accept() as next_one:
                assert next_one.read_exactly(6) == b"me too", "who gave up has never dialled"


def test_stranded_connections_are_dead_and_new_ones_live(cutter: Cutter, listener: Listener) -> None:
    with dial(cutter) as near, listener.accept() as far:
        near.send(b"before")
        assert far.read_exactly(6) == b"before"
        cutter.strand()
        near.send(b"late")
        with dial(cutter) as other, listener.accept() as other_far:
            other.send(b"at once")
            assert other_far.read_exactly(7) == b"at once"
        cutter.heal()
        assert far.read_exactly(4) == b"late"
