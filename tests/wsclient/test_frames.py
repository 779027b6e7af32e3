"""Encoding and decoding of WebSocket frames."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.wsclient.frames import BINARY, PING, TEXT, Frame, FrameReader, close_payload, encode

FRAMES = st.lists(
    st.builds(Frame, st.sampled_from([0, TEXT, BINARY, 8, PING, 10]), st.binary(max_size=300), st.booleans()),
    max_size=5,
)


@given(frames=FRAMES, mask=st.none() | st.binary(min_size=4, max_size=4), cuts=st.lists(st.integers(0, 999)))
def test_frames_are_decoded_in_chunks_of_any_size_masked_or_not(
    frames: list[Frame], mask: bytes | None, cuts: list[int]
) -> None:
    sent = b"".join(encode(frame, mask=mask) for frame in frames)
    reader, heard = FrameReader(), []
    places = [0, *sorted(cut % (len(sent) + 1) for cut in cuts), len(sent)]
    for begin, end in pairwise(places):
        heard += reader.receive(sent[begin:end])
    assert heard == frames


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("mask", [None, b"\x01\x02\x03\x04"])
def test_each_length_encoding_is_written_and_read(size: int, mask: bytes | None) -> None:
    frame = Frame(BINARY, bytes(size))
    encoded = encode(frame, mask=mask)
    head = 2 + (8 if size > 65_535 else 2 if size > 125 else 0) + (4 if mask else 0)
    assert len(encoded) == head + size
    assert FrameReader().receive(encoded) == [frame]


def test_frames_match_the_examples_of_rfc_6455() -> None:
    """The examples of RFC 6455, 5.7."""
    assert encode(Frame(TEXT, b"Hello")) == bytes.fromhex("810548656c6c6f")
    masked = encode(Frame(TEXT, b"Hello"), mask=bytes.fromhex("37fa213d"))
    assert masked == bytes.fromhex("818537fa213d7f9f4d5158")
    assert encode(Frame(TEXT, b"Hel", is_final=False)) == bytes.fromhex("010348656c")
    assert close_payload(1000, "ok") == b"\x03\xe8ok"


def test_a_reserved_bit_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        FrameReader().receive(b"\xc1\x00")
    assert raised.value.code == "reserved_bit"


def test_the_header_of_a_frame_over_the_limit_is_an_error() -> None:
    head = encode(Frame(BINARY, bytes(1001)))[:4]
    with pytest.raises(RemoteProtocolError) as raised:
        FrameReader(limit_bytes=1000).receive(head)
    assert raised.value.code == "frame_too_long"
