"""Tests of tracking frames: whole chunks, single bytes, random splits, and input that makes it give up."""

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
    """Return the positions at which frames begin, found by a simple parser."""
    found, at = {0}, 0
    while at + 2 <= len(stream):
        extra = {126: 2, 127: 8}.get(stream[at + 1], 0)
        length = stream[at + 2 : at + 2 + extra]
        if len(length) < extra:
            break
        at += 2 + extra + (int.from_bytes(length, "big") if extra else stream[at + 1])
        found.add(at)
    return found


def track(*chunks: bytes) -> FrameTracker:
    tracker = FrameTracker()
    for chunk in chunks:
        tracker.receive(chunk)
    return tracker


def test_new_stream_is_between_frames() -> None:
    assert FrameTracker().is_between_frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_position_inside_a_frame_is_not_between_frames(size: int) -> None:
    whole = frame(size)
    tracker = FrameTracker()
    for number in range(len(whole)):
        tracker.receive(whole[number : number + 1])
        assert tracker.is_between_frames == (number == len(whole) - 1)


@given(st.lists(st.tuples(st.integers(0, 300) | st.just(66000), KINDS), max_size=12), st.data())
def test_any_split_gives_the_result_of_a_parser(frames: list[tuple[int, int]], data: st.DataObject) -> None:
    stream = b"".join(frame(size, first) for size, first in frames)
    known = boundaries(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    tracker, of_views = FrameTracker(), FrameTracker()
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        tracker.receive(stream[begin:end])
        assert tracker.is_between_frames == (end in known)
        view = bytearray(stream[begin:end])
        of_views.receive(memoryview(view))
        view[:] = bytes(len(view))  # nothing of it is used later
        assert of_views.is_between_frames == (end in known)


@pytest.mark.parametrize("size", [1, 125, 126, 65536])
def test_message_is_incomplete_until_its_last_byte(size: int) -> None:
    tracker = FrameTracker()
    assert not tracker.is_in_message
    whole = frame(size)
    tracker.receive(whole[:-1])
    assert tracker.is_in_message
    tracker.receive(whole[-1:])
    assert not tracker.is_in_message


def test_fragmented_message_is_incomplete_until_its_last_fragment() -> None:
    tracker = track(frame(100, 0x02))
    assert tracker.is_between_frames
    assert tracker.is_in_message
    for fragment in (frame(0, 0x89), frame(4096, 0x00), frame(3, 0x8A)):
        tracker.receive(fragment)
        assert tracker.is_in_message
    tracker.receive(frame(5, 0x80))
    assert not tracker.is_in_message


def test_tracker_that_gave_up_is_not_in_a_message() -> None:
    tracker = track(frame(100, 0x02))
    tracker.give_up()
    assert not tracker.is_in_message
    assert not track(frame(100, 0x02), frame(2, 0x88)).is_in_message


def test_frames_in_one_chunk_are_bounded() -> None:
    assert track(frame(3) * HEADERS_PER_CHUNK).is_between_frames
    tracker = track(frame(3) * (HEADERS_PER_CHUNK + 1))
    assert not tracker.is_between_frames
    tracker.receive(frame(3))
    assert not tracker.is_between_frames


def test_many_frames_in_many_chunks_are_tracked() -> None:
    assert track(*[frame(108) * 8] * 1000).is_between_frames


@pytest.mark.parametrize("cut", range(5))
def test_nothing_follows_a_close_frame(cut: int) -> None:
    stream = frame(5) + close_frame(1000)
    at = len(stream) - cut
    tracker = track(stream[:at], stream[at:])
    assert not tracker.is_between_frames
    tracker.receive(frame(5))
    assert not tracker.is_between_frames


def test_masked_frame_is_given_up() -> None:
    tracker = track(b"\x82\x84" + bytes(4) + b"\x00" * 4)
    assert not tracker.is_between_frames
    tracker.receive(frame(5))
    assert not tracker.is_between_frames


def test_tracker_does_not_resume_after_give_up() -> None:
    tracker = track(b"\x82")
    tracker.give_up()
    tracker.receive(b"\x01x" + frame(4))
    assert not tracker.is_between_frames


def test_frame_of_maximum_length() -> None:
    tracker = track(b"\x82\x7f" + b"\xff" * 8)
    tracker.receive(b"x" * 100_000)
    assert not tracker.is_between_frames


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_accepted(chunks: list[bytes]) -> None:
    track(*chunks)


def test_close_frame_is_one_unmasked_control_frame() -> None:
    assert close_frame(SERVICE_RESTART, "soon") == b"\x88\x06\x03\xf4soon"
    assert len(close_frame(SERVICE_RESTART, "x" * 500)) == 127
