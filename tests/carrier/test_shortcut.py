"""The usual frames, written and read without Autobahn, and everything else left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.carrier.shortcut import UsualFrames, frame, masked_frame

KEY = b"\x12\x34\x56\x78"
SIZES = [1, 2, 3, 4, 5, 124, 125, 126, 127, 1023, 1024, 1025, 65535, 65536, 70000]


def frame_of(payload: bytes, is_masked: bool, is_text: bool = False) -> bytes:
    pieces = masked_frame(payload, KEY, is_text=is_text) if is_masked else frame(payload, is_text=is_text)
    return b"".join(pieces)


class Taker:
    """Frames that are taken, whatever they are cut into."""

    def __init__(self, is_masked: bool) -> None:
        self.payloads: list[bytes] = []
        self.texts: list[bytes] = []
        self.wants_more = True
        self.frames = UsualFrames(is_masked, self.note, self.note_text)

    def note(self, payload: bytes) -> bool:
        self.payloads.append(payload)
        return self.wants_more

    def note_text(self, text: bytes) -> bool:
        self.texts.append(text)
        return self.wants_more


def taken(data: bytes, is_masked: bool) -> tuple[int, list[bytes]]:
    taker = Taker(is_masked)
    return taker.frames.take(data), taker.payloads


def test_the_example_of_the_rfc() -> None:
    """RFC 6455, 5.7: 256 bytes in an unmasked frame, and a masked "Hello" (there as text)."""
    assert b"".join(frame(bytes(256)))[:4] == bytes.fromhex("827e0100")
    hello = b"".join(masked_frame(b"Hello", bytes.fromhex("37fa213d"), is_text=True))
    assert hello == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read(size: int, is_masked: bool) -> None:
    payload = bytes(number * 7 % 256 for number in range(size))
    whole = frame_of(payload, is_masked)
    assert taken(whole, is_masked) == (len(whole), [payload])


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=5), st.booleans(), st.data())
def test_frames_are_taken_however_they_are_cut(
    payloads: list[bytes], is_masked: bool, data: st.DataObject
) -> None:
    stream = b"".join(frame_of(payload, is_masked) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    taker, kept = Taker(is_masked), b""
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        # What is not taken is kept by Autobahn; here it comes again with what follows.
        kept += stream[start:stop]
        kept = kept[taker.frames.take(kept) :]
    assert b"".join(taker.payloads) == b"".join(payloads)
    assert kept == b""
    assert taker.frames.left_bytes == 0


@pytest.mark.parametrize("is_masked", [True, False])
def test_rest_of_a_frame_is_taken_before_anything_else_is_looked_at(is_masked: bool) -> None:
    taker = Taker(is_masked)
    whole = frame_of(b"\x88\x02" * 3000, is_masked)
    assert taker.frames.take(whole[:100]) == 100
    assert taker.frames.left_bytes == len(whole) - 100
    assert taker.frames.take(whole[100:] + b"\x89\x00") == len(whole) - 100
    assert b"".join(taker.payloads) == b"\x88\x02" * 3000


@pytest.mark.parametrize("is_masked", [True, False])
def test_short_text_is_taken_between_binary_frames(is_masked: bool) -> None:
    taker = Taker(is_masked)
    stream = b"".join(
        [
            frame_of(b"one", is_masked),
            frame_of(b'{"t":"ack"}', is_masked, is_text=True),
            frame_of(b"two", is_masked),
        ]
    )
    assert taker.frames.take(stream) == len(stream)
    assert (taker.payloads, taker.texts) == ([b"one", b"two"], [b'{"t":"ack"}'])


@pytest.mark.parametrize("text", ["\u00e9".encode(), b"\xff", b"x" * 126, b""])
def test_text_that_is_long_or_not_ascii_is_left_to_autobahn(text: bytes) -> None:
    taker = Taker(False)
    assert taker.frames.take(frame_of(text, False, is_text=True)) == 0
    assert taker.texts == []


@pytest.mark.parametrize(
    "unusual",
    [
        b"",
        b"\x82",
        b"\x82\x00",
        b"\x02\x01x",
        b"\x81\x02x",
        b"\x80\x01x",
        b"\x88\x02\x03\xe8",
        b"\x89\x01x",
        b"\xc2\x01x",
        b"\x82\x81abcdx",
        b"\x82\x7e\x00\x05hello",
        b"\x82\x7f" + (5).to_bytes(8) + b"hello",
        b"\x82\x7f" + (1 << 63).to_bytes(8),
        b"\x82\x7f" + (17 * 1024 * 1024).to_bytes(8) + b"x",
        b"\x82\x7e\x01",
        b"\x82\x05",
    ],
)
def test_anything_unusual_is_left_to_autobahn(unusual: bytes) -> None:
    assert taken(unusual, False) == (0, [])
    good = frame_of(b"good", False)
    assert taken(good + unusual, False) == (len(good), [b"good"])


@pytest.mark.parametrize(
    "unmasked", [b"\x82\x01x", b"\x82\x7e\x01\x00" + bytes(256), b"\x82\x80abcd", b"\x82\xfe", b"\x81\x01x"]
)
def test_a_frame_without_its_mask_is_left_to_autobahn(unmasked: bytes) -> None:
    assert taken(unmasked, True) == (0, [])


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_taken_or_left(data: bytes, is_masked: bool) -> None:
    count, payloads = taken(data, is_masked)
    assert 0 <= count <= len(data)
    assert sum(map(len, payloads)) <= count


def test_whoever_wants_no_more_stops_it() -> None:
    one = frame_of(b"x", False)
    taker = Taker(False)
    taker.wants_more = False
    assert taker.frames.take(one * 3) == len(one)
