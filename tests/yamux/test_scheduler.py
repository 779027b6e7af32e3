from __future__ import annotations

from seance.yamux.scheduler import Turns
from seance.yamux.streams import Stream


def streams(*ids: int) -> list[Stream]:
    return [Stream(one, is_outbound=True) for one in ids]


def taken(turns: Turns) -> list[int]:
    order = []
    while (stream := turns.take()) is not None:
        order.append(stream.stream_id)
    return order


def line_of(*ids: int) -> Turns:
    turns = Turns()
    for stream in streams(*ids):
        turns.add(stream)
    return turns


def test_turns_come_in_order_of_arrival() -> None:
    assert taken(line_of(4, 2, 6)) == [4, 2, 6]


def test_a_stream_that_is_in_line_keeps_its_place() -> None:
    turns = line_of(2, 4)
    turns.add(streams(2)[0])
    assert len(turns) == 2
    assert taken(turns) == [2, 4]


def test_whoever_comes_back_stands_at_the_end() -> None:
    turns = line_of(2, 4)
    first = turns.take()
    assert first is not None
    turns.add(first)
    assert taken(turns) == [4, 2]


def test_a_turn_that_did_not_happen_is_first_again() -> None:
    turns = line_of(2, 4)
    first = turns.take()
    assert first is not None
    turns.put_back(first)
    assert taken(turns) == [2, 4]


def test_a_stream_leaves_the_line_from_anywhere() -> None:
    turns = line_of(2, 4, 6)
    turns.remove(4)
    turns.remove(8)
    assert taken(turns) == [2, 6]


def test_a_cleared_line_is_empty() -> None:
    turns = line_of(2, 4)
    turns.clear()
    assert turns.take() is None
