"""Whole binary frames, written and read without Autobahn, and everything else left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.carrier.shortcut import binary_frame, masked_binary_frame, take_binary_frames

KEY = b"\x12\x34\x56\x78"
SIZES = [1, 2, 3, 4, 5, 124, 125, 126, 127, 1023, 1024, 1025, 65535, 65536, 70000]


def frame_of(payload: bytes, is_masked: bool) -> bytes:
    return masked_binary_frame(payload, KEY) if is_masked else b"".join(binary_frame(payload))


def taken(data: bytes, is_masked: bool) -> tuple[int, list[bytes]]:
    payloads: list[bytes] = []
    return take_binary_frames(data, is_masked, lambda payload: payloads.append(payload) or True), payloads


def test_the_example_of_the_rfc() -> None:
    """RFC 6455, 5.7: 256 bytes in an unmasked frame, and a masked "Hello" (there as text)."""
    assert b"".join(binary_frame(bytes(256)))[:4] == bytes.fromhex("827e0100")
    assert masked_binary_frame(b"Hello", bytes.fromhex("37fa213d"))[1:] == bytes.fromhex(
        "8537fa213d7f9f4d5158"
    )


@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read(size: int, is_masked: bool) -> None:
    payload = bytes(number * 7 % 256 for number in range(size))
    frame = frame_of(payload, is_masked)
    assert taken(frame, is_masked) == (len(frame), [payload])


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.booleans(), st.data())
def test_frames_that_are_whole_are_taken_and_the_rest_is_left(
    payloads: list[bytes], is_masked: bool, data: st.DataObject
) -> None:
    frames = [frame_of(payload, is_masked) for payload in payloads]
    stream = b"".join(frames)
    cut = data.draw(st.integers(0, len(stream)))
    count, got = taken(stream[:cut], is_masked)
    whole, position = [], 0
    for payload, frame in zip(payloads, frames, strict=True):
        if position + len(frame) > cut:
            break
        whole.append(payload)
        position += len(frame)
    assert (count, got) == (position, whole)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x82",
        b"\x82\x00",
        b"\x02\x01x",
        b"\x81\x01x",
        b"\x80\x01x",
        b"\x88\x02\x03\xe8",
        b"\x89\x01x",
        b"\xc2\x01x",
        b"\x82\x81abcdx",
        b"\x82\x7e\x00\x05hello",
        b"\x82\x7f" + (5).to_bytes(8) + b"hello",
        b"\x82\x7f" + (1 << 63).to_bytes(8),
        b"\x82\x7e\x01",
        b"\x82\x05hell",
    ],
)
def test_anything_unusual_is_left_to_autobahn(frame: bytes) -> None:
    assert taken(frame, False) == (0, [])
    good = frame_of(b"good", False)
    assert taken(good + frame, False) == (len(good), [b"good"])


@pytest.mark.parametrize(
    "frame", [b"\x82\x01x", b"\x82\x7e\x01\x00" + bytes(256), b"\x82\x80abcd", b"\x82\xfe"]
)
def test_a_frame_without_its_mask_is_left_to_autobahn(frame: bytes) -> None:
    assert taken(frame, True) == (0, [])


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_taken_or_left(data: bytes, is_masked: bool) -> None:
    count, payloads = taken(data, is_masked)
    assert 0 <= count <= len(data)
    assert sum(map(len, payloads)) <= count


def test_whoever_wants_no_more_stops_it() -> None:
    frame = frame_of(b"x", False)
    assert take_binary_frames(frame * 3, False, lambda _: False) == len(frame)
