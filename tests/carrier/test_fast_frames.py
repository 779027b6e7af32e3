"""The fast frame codec: common frames are handled here, all others are left to Autobahn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.carrier import fast_frames
from seance.carrier.fast_frames import FastFrameCodec, frame, masked_frame

KEY = b"\x12\x34\x56\x78"
SIZES = [1, 2, 3, 4, 5, 124, 125, 126, 127, 1023, 1024, 1025, 65535, 65536, 70000]


def frame_of(payload: bytes, is_masked: bool, is_text: bool = False) -> bytes:
    pieces = masked_frame(payload, KEY, is_text=is_text) if is_masked else frame(payload, is_text=is_text)
    return b"".join(pieces)


def ping(payload: bytes, is_masked: bool) -> bytes:
    whole = (
        bytearray(frame_of(payload, is_masked))
        if payload
        else bytearray(b"\x82\x80abcd" if is_masked else b"\x82\x00")
    )
    whole[0] = 0x89
    return bytes(whole)


class Taker:
    """A codec and its deliveries, independent of how the frames are split.

    Everything is given to a second codec too, as a writable view that is overwritten after the call.
    """

    def __init__(self, is_masked: bool, twin: Taker | None = None) -> None:
        self.payloads: list[bytes] = []
        self.everything: list[bytes] = []
        self.wants_more = True
        self.frames = FastFrameCodec(is_masked, self.note, self.note_text, self.note_control)
        self._of_views = Taker(is_masked, self) if twin is None else self

    def take(self, data: bytes) -> bytes:
        left = self.frames.take(data)
        of_views, buffer = self._of_views, bytearray(data)
        of_views.wants_more = self.wants_more
        assert of_views.frames.take(memoryview(buffer)) == left
        buffer[:] = b"\xee" * len(buffer)
        assert of_views.everything == self.everything
        assert all(type(one) is bytes for one in of_views.everything)
        assert of_views.frames.has_begun == self.frames.has_begun
        return left

    def note(self, payload: bytes) -> bool:
        self.payloads.append(payload)
        self.everything.append(payload)
        return self.wants_more

    def note_control(self, frame: bytes) -> bool:
        self.everything.append(frame)
        return self.wants_more

    def note_text(self, text: bytes) -> bool:
        self.everything.append(text)
        return self.wants_more


def taken(data: bytes, is_masked: bool) -> tuple[bytes, list[bytes]]:
    """Return the bytes left to Autobahn and the deliveries."""
    taker = Taker(is_masked)
    return taker.take(data), taker.payloads


def test_the_example_of_the_rfc() -> None:
    """RFC 6455, 5.7: 256 bytes in an unmasked frame, and a masked "Hello" (there as text)."""
    assert b"".join(frame(bytes(256)))[:4] == bytes.fromhex("827e0100")
    hello = b"".join(masked_frame(b"Hello", bytes.fromhex("37fa213d"), is_text=True))
    assert hello == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("has_masker_in_c", [True, False])
@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_encoded_frames_can_be_decoded(
    size: int, is_masked: bool, has_masker_in_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_masker_in_c:
        monkeypatch.setattr(fast_frames, "_nvx", None)
    payload = bytes(number * 7 % 256 for number in range(size))
    assert taken(frame_of(payload, is_masked), is_masked) == (b"", [payload])


@given(
    st.lists(st.tuples(st.sampled_from("btc"), st.binary(min_size=1, max_size=3000)), max_size=6),
    st.booleans(),
    st.data(),
)
def test_frames_are_taken_however_they_are_cut(
    messages: list[tuple[str, bytes]], is_masked: bool, data: st.DataObject
) -> None:
    """Binary, text and control frames are delivered in order, and none is left."""
    taker, told = Taker(is_masked), []
    frames = []
    for kind, content in messages:
        if kind == "b":
            frames.append(frame_of(content, is_masked))
            told.append(content)
        elif kind == "t":
            frames.append(frame_of(content[:50].hex().encode(), is_masked, is_text=True))
            told.append(content[:50].hex().encode())
        else:
            frames.append(ping(content[:125], is_masked))
            told.append(frames[-1])
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        assert taker.take(stream[start:stop]) == b""
    assert b"".join(taker.everything) == b"".join(told)
    assert not taker.frames.has_begun


@pytest.mark.parametrize("is_masked", [True, False])
def test_frames_are_taken_byte_by_byte(is_masked: bool) -> None:
    taker = Taker(is_masked)
    stream = frame_of(b"x" * 300, is_masked) + ping(b"p", is_masked) + frame_of(b"y" * 3, is_masked)
    for byte in stream:
        assert taker.take(bytes([byte])) == b""
    assert b"".join(taker.payloads) == b"x" * 300 + b"y" * 3
    assert not taker.frames.has_begun


@pytest.mark.parametrize("is_masked", [True, False])
def test_binary_frames_of_one_read_are_one_delivery(is_masked: bool) -> None:
    taker = Taker(is_masked)
    stream = b"".join(frame_of(bytes([number]) * 3000, is_masked) for number in range(5))
    assert taker.take(stream + frame_of(b"rest", is_masked)[:-1]) == b""
    (payload,) = taker.payloads
    assert payload == b"".join(bytes([number]) * 3000 for number in range(5)) + b"res"


@pytest.mark.parametrize("is_masked", [True, False])
def test_rest_of_a_frame_is_taken_first(is_masked: bool) -> None:
    taker = Taker(is_masked)
    whole = frame_of(b"\x88\x02" * 3000, is_masked)
    assert taker.take(whole[:100]) == b""
    assert taker.frames.has_begun
    assert taker.take(whole[100:] + b"\x02\x00") == b"\x02\x00"
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
    assert taker.take(stream) == b""
    assert taker.everything == [b"one", b'{"t":"ack"}', b"two"]


@pytest.mark.parametrize("is_masked", [True, False])
def test_control_frames_are_passed_to_autobahn_separately(is_masked: bool) -> None:
    taker = Taker(is_masked)
    control = ping(b"still there?", is_masked)
    stream = frame_of(b"one", is_masked) + control + frame_of(b"two", is_masked)
    assert taker.take(stream) == b""
    assert taker.everything == [b"one", control, b"two"]


@pytest.mark.parametrize("text", ["\u00e9".encode(), b"\xff", b"x" * 126, b""])
def test_text_that_is_long_or_not_ascii_is_left_to_autobahn(text: bytes) -> None:
    taker = Taker(False)
    whole = frame_of(text, False, is_text=True) + frame_of(b"behind", False)
    assert taker.take(whole) == whole
    assert taker.everything == []


UNUSUAL = [
    b"\x82\x00",
    b"\x02\x01x",
    b"\x80\x01x",
    b"\x88\x7e\x03\xe8",
    b"\x08\x01x",
    b"\xc2\x01x",
    b"\x82\x81abcdx",
    b"\x82\x7e\x00\x05hello",
    b"\x82\x7f" + (5).to_bytes(8) + b"hello",
    b"\x82\x7f" + (1 << 63).to_bytes(8) + b"x",
    b"\x82\x7f" + (17 * 1024 * 1024).to_bytes(8) + b"x",
]


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_anything_unusual_is_left_to_autobahn(unusual: bytes) -> None:
    assert taken(unusual, False) == (unusual, [])
    good = frame_of(b"good", False)
    assert taken(good + unusual + good, False) == (unusual + good, [b"good"])


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_incomplete_unusual_frames_are_left_to_autobahn_entirely(unusual: bytes) -> None:
    for cut in range(1, len(unusual)):
        taker = Taker(False)
        left = taker.take(unusual[:cut])
        if not left:
            assert taker.frames.has_begun
            left = taker.take(unusual[cut:])
            assert left == unusual
        assert taker.everything == []


@pytest.mark.parametrize("unfinished", [b"\x82", b"\x82\x7e\x01", b"\x82\x05", b"\x81\x02x", b"\x89\x01"])
def test_an_incomplete_header_waits(unfinished: bytes) -> None:
    taker = Taker(False)
    assert taker.take(frame_of(b"good", False) + unfinished) == b""
    assert taker.payloads == [b"good"]
    assert taker.frames.has_begun


@pytest.mark.parametrize(
    "unmasked",
    [b"\x82\x01x", b"\x82\x7e\x01\x00" + bytes(256), b"\x82\x80abcd", b"\x82\x05", b"\x81\x01x", b"\x89\x00"],
)
def test_a_frame_without_its_mask_is_left_to_autobahn(unmasked: bytes) -> None:
    assert taken(unmasked, True) == (unmasked, [])


@given(st.binary(max_size=400), st.binary(max_size=400), st.booleans())
def test_any_bytes_are_taken_or_left(one: bytes, two: bytes, is_masked: bool) -> None:
    taker = Taker(is_masked)
    left = taker.take(one)
    if not left:
        left = taker.take(two)
        assert (one + two).endswith(left)
    else:
        assert one.endswith(left)
    assert sum(map(len, taker.everything)) + len(left) <= len(one + two)


def test_a_callback_that_returns_false_stops_decoding() -> None:
    one = frame_of(b"x", False)
    text = frame_of(b"y", False, is_text=True)
    taker = Taker(False)
    taker.wants_more = False
    assert taker.take(one * 2 + text + one + b"\x82") == text + one + b"\x82"
    assert taker.everything == [b"xx"]
    assert taker.take(one + ping(b"", False) + one) == ping(b"", False) + one
    assert taker.take(ping(b"", False) + one) == one
    assert taker.take(one + b"\x82") == b"\x82"
    assert not taker.frames.has_begun
