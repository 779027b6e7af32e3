"""Where a close frame may be put in: whole chunks, single bytes, random cuts, and what makes it give up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.heads.frame_tracker import HEADERS_PER_CHUNK, SERVICE_RESTART, FrameTracker, close_frame

KINDS = st.sampled_from([0x81, 0x82, 0x01, 0x80, 0xC1, 0x89, 0x8A])
"""Text, binary, a first and a last fragment, a compressed one, ping and pong."""


def frame(size: int, first: int = 0x82) -> bytes:
    if size < 126:
        return bytes([first, size]) + b"p" * size
    if size < 65536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + b"q" * size
    return bytes([first, 127]) + size.to_bytes(8, "big") + b"r" * size


def boundaries(stream: bytes) -> set[int]:
    """Where frames begin, by a parser that takes its time: whole headers, one after the other."""
    found, at = {0}, 0
    while at + 2 <= len(stream):
        extra = {126: 2, 127: 8}.get(stream[at + 1], 0)
        told = stream[at + 2 : at + 2 + extra]
        if len(told) < extra:
            break
        at += 2 + extra + (int.from_bytes(told, "big") if extra else stream[at + 1])
        found.add(at)
    return found


def walk_over(*chunks: bytes) -> FrameTracker:
    walk = FrameTracker()
    for chunk in chunks:
        walk.receive(chunk)
    return walk


def test_a_fresh_stream_is_between_frames() -> None:
    assert FrameTracker().is_between_frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_every_byte_of_a_frame_but_the_last_is_inside_it(size: int) -> None:
    whole = frame(size)
    walk = FrameTracker()
    for number in range(len(whole)):
        walk.receive(whole[number : number + 1])
        assert walk.is_between_frames == (number == len(whole) - 1)


@given(st.lists(st.tuples(st.integers(0, 300) | st.just(66000), KINDS), max_size=12), st.data())
def test_any_cut_gives_the_verdict_of_a_whole_parser(
    frames: list[tuple[int, int]], data: st.DataObject
) -> None:
    stream = b"".join(frame(size, first) for size, first in frames)
    known = boundaries(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    walk = FrameTracker()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        walk.receive(stream[begin:end])
        assert walk.is_between_frames == (end in known)


@pytest.mark.parametrize("size", [1, 125, 126, 65536])
def test_a_message_is_on_its_way_from_its_first_header_to_its_last_byte(size: int) -> None:
    walk = FrameTracker()
    assert not walk.is_in_message
    whole = frame(size)
    walk.receive(whole[:-1])
    assert walk.is_in_message
    walk.receive(whole[-1:])
    assert not walk.is_in_message


def test_a_message_in_fragments_is_on_its_way_until_the_last_one_whatever_stands_between() -> None:
    walk = walk_over(frame(100, 0x02))
    assert walk.is_between_frames
    assert walk.is_in_message
    for fragment in (frame(0, 0x89), frame(4096, 0x00), frame(3, 0x8A)):
        walk.receive(fragment)
        assert walk.is_in_message
    walk.receive(frame(5, 0x80))
    assert not walk.is_in_message


def test_a_walk_that_gave_up_says_nothing_of_messages() -> None:
    walk = walk_over(frame(100, 0x02))
    walk.give_up()
    assert not walk.is_in_message
    assert not walk_over(frame(100, 0x02), frame(2, 0x88)).is_in_message


def test_as_many_frames_as_a_chunk_may_hold_are_followed_and_one_more_is_not() -> None:
    assert walk_over(frame(3) * HEADERS_PER_CHUNK).is_between_frames
    walk = walk_over(frame(3) * (HEADERS_PER_CHUNK + 1))
    assert not walk.is_between_frames
    walk.receive(frame(3))
    assert not walk.is_between_frames


def test_many_frames_in_many_chunks_are_followed() -> None:
    assert walk_over(*[frame(108) * 8] * 1000).is_between_frames


@pytest.mark.parametrize("cut", range(5))
def test_nothing_follows_a_close_frame(cut: int) -> None:
    stream = frame(5) + close_frame(1000)
    at = len(stream) - cut
    walk = walk_over(stream[:at], stream[at:])
    assert not walk.is_between_frames
    walk.receive(frame(5))
    assert not walk.is_between_frames


def test_a_masked_frame_is_no_servers() -> None:
    walk = walk_over(b"\x82\x84" + bytes(4) + b"\x00" * 4)
    assert not walk.is_between_frames
    walk.receive(frame(5))
    assert not walk.is_between_frames


def test_a_walk_that_was_told_to_give_up_does_not_come_back() -> None:
    walk = walk_over(b"\x82")
    walk.give_up()
    walk.receive(b"\x01x" + frame(4))
    assert not walk.is_between_frames


def test_a_frame_that_promises_the_longest_length_there_is_has_no_end() -> None:
    walk = walk_over(b"\x82\x7f" + b"\xff" * 8)
    walk.receive(b"x" * 100_000)
    assert not walk.is_between_frames


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_at_all_are_taken(chunks: list[bytes]) -> None:
    walk_over(*chunks)


def test_a_close_frame_is_one_unmasked_control_frame() -> None:
    assert close_frame(SERVICE_RESTART, "soon") == b"\x88\x06\x03\xf4soon"
    assert len(close_frame(SERVICE_RESTART, "x" * 500)) == 127
