from __future__ import annotations

import gc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.yamux import constants, frames
from seance.yamux.frames import Frame, FrameDecoder
from tests.yamux.frame_bytes import ACK, DATA, FIN, SYN, WINDOW, data, frame, window

U16 = st.integers(0, 2**16 - 1)
U32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))


@st.composite
def wire_frames(draw: st.DrawFn) -> tuple[int, int, int, int, bytes]:
    kind = draw(st.integers(0, 3))
    body = draw(st.binary(max_size=40)) if kind == DATA else b""
    length = len(body) if kind == DATA else draw(U32)
    return kind, draw(U16), draw(U32), length, body


def decode(*chunks: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    return [found for chunk in chunks for found in decoder.decode(chunk)]


def whole(parts: list[Frame]) -> list[Frame]:
    """Join the parts of data frames: each part is followed by the rest of its frame."""
    joined: list[Frame] = []
    is_open = False
    for kind, flags, stream_id, announced, body in parts:
        if is_open:
            _, before, same_id, length, begun = joined.pop()
            assert (kind, same_id, announced) == (DATA, stream_id, length - len(begun))
            joined.append((kind, before | flags, stream_id, length, begun + body))
        else:
            joined.append((kind, flags, stream_id, announced, body))
        is_open = kind == DATA and len(body) < announced
    assert not is_open
    return joined


class TestConstants:
    def test_constants_have_their_wire_values(self) -> None:
        """Case 1."""
        assert (constants.DATA, constants.WINDOW_UPDATE, constants.PING, constants.GO_AWAY) == (0, 1, 2, 3)
        assert (constants.SYN, constants.ACK, constants.FIN, constants.RST) == (1, 2, 4, 8)
        assert [int(code) for code in constants.GoAwayCode] == [0, 1, 2]
        assert constants.HEADER_BYTES == constants.HEADER.size == 12
        assert constants.INITIAL_WINDOW_BYTES == 262144

    def test_client_ids_are_odd_and_server_ids_even(self) -> None:
        assert constants.Role.CLIENT.first_stream_id == 1
        assert constants.Role.SERVER.first_stream_id == 2
        assert constants.Role.CLIENT.peer is constants.Role.SERVER
        assert constants.Role.SERVER.peer is constants.Role.CLIENT


class TestEncoding:
    def test_frames_have_the_bytes_of_the_specification(self) -> None:
        assert frames.data_header(3, 5) == bytes.fromhex("00 00 0000 00000003 00000005")
        assert frames.window_update_frame(2, SYN, 0x40000) == bytes.fromhex("00 01 0001 00000002 00040000")
        assert frames.ping_frame(ACK, 7) == bytes.fromhex("00 02 0002 00000000 00000007")
        assert frames.go_away_frame(1) == bytes.fromhex("00 03 0000 00000000 00000001")

    @given(U16, U32, U32)
    def test_header_round_trip(self, flags: int, stream_id: int, delta: int) -> None:
        """Cases 2, 3 and 5: any value, also those with the highest bit set."""
        assert decode(frames.window_update_frame(stream_id, flags, delta)) == [
            (WINDOW, flags, stream_id, delta, b"")
        ]

    @given(st.lists(wire_frames(), max_size=8))
    def test_frames_with_bodies_round_trip(self, sent: list[Frame]) -> None:
        """Case 4."""
        assert decode(b"".join(frame(*one) for one in sent)) == sent


class TestDecoding:
    @pytest.mark.parametrize("count", range(12))
    def test_incomplete_header_waits(self, count: int) -> None:
        """Case 6."""
        decoder = FrameDecoder()
        text = window(2, SYN, 5)
        assert list(decoder.decode(text[:count])) == []
        assert list(decoder.decode(text[count:])) == [(WINDOW, SYN, 2, 5, b"")]

    def test_bytes_after_a_frame_are_kept(self) -> None:
        """Case 6."""
        text = window(2, 0, 5) + window(4, 0, 6)
        assert decode(text[:17], text[17:]) == [(WINDOW, 0, 2, 5, b""), (WINDOW, 0, 4, 6, b"")]

    def test_data_directly_after_a_window_update_is_decoded(self) -> None:
        """Case 8."""
        assert decode(window(2, 0, 5) + data(2, b"abc")) == [
            (WINDOW, 0, 2, 5, b""),
            (DATA, 0, 2, 3, b"abc"),
        ]

    def test_header_and_body_in_separate_messages_are_one_frame(self) -> None:
        """hashicorp/yamux writes them separately."""
        text = data(2, b"abc")
        assert decode(text[:12], text[12:]) == [(DATA, 0, 2, 3, b""), (DATA, 0, 2, 3, b"abc")]

    def test_body_is_passed_on_as_it_arrives(self) -> None:
        decoder = FrameDecoder()
        assert list(decoder.decode(frame(DATA, SYN | FIN, 2, 10, b"abc"))) == [(DATA, SYN, 2, 10, b"abc")]
        assert list(decoder.decode(b"defg")) == [(DATA, 0, 2, 7, b"defg")]
        assert list(decoder.decode(b"hij" + window(4))) == [
            (DATA, FIN, 2, 3, b"hij"),
            (WINDOW, 0, 4, 0, b""),
        ]

    def test_no_bytes_give_no_frames(self) -> None:
        assert decode(b"", window(2)[:5], b"", window(2)[5:], frame(DATA, 0, 2, 3), b"", b"abc") == [
            (WINDOW, 0, 2, 0, b""),
            (DATA, 0, 2, 3, b""),
            (DATA, 0, 2, 3, b"abc"),
        ]

    def test_data_frame_without_body_ends_at_its_header(self) -> None:
        assert decode(data(2, flags=FIN)) == [(DATA, FIN, 2, 0, b"")]

    def test_announced_length_is_passed_on_before_the_body(self) -> None:
        """Case 9: the session can check the length against the window there."""
        assert decode(frame(DATA, 0, 2, 2**32 - 1)) == [(DATA, 0, 2, 2**32 - 1, b"")]

    def test_decoder_keeps_no_body(self) -> None:
        decoder = FrameDecoder()
        list(decoder.decode(frame(DATA, 0, 2, 2**32 - 1, bytes(100_000))))
        list(decoder.decode(bytes(100_000)))
        assert sum(len(held) for held in gc.get_referents(decoder) if isinstance(held, bytes)) == 0

    @pytest.mark.parametrize("version", [1, 255])
    def test_an_unknown_version_is_an_error(self, version: int) -> None:
        """Case 89."""
        with pytest.raises(RemoteProtocolError, match=f"version {version}") as caught:
            decode(frame(DATA, 0, 2, 0, version=version))
        assert caught.value.code == "bad_version"

    @pytest.mark.parametrize("kind", [4, 255])
    def test_an_unknown_type_is_an_error(self, kind: int) -> None:
        """Case 89."""
        with pytest.raises(RemoteProtocolError, match=f"type {kind}") as caught:
            decode(frame(kind, 0, 2, 0))
        assert caught.value.code == "bad_type"

    def test_frames_before_a_bad_one_are_passed_on(self) -> None:
        found = FrameDecoder().decode(window(2, 0, 5) + frame(9, 0, 0, 0))
        assert next(found) == (WINDOW, 0, 2, 5, b"")
        with pytest.raises(RemoteProtocolError):
            next(found)

    @given(st.lists(wire_frames(), max_size=4))
    def test_any_single_cut_gives_the_same_frames(self, sent: list[Frame]) -> None:
        """Case 7."""
        text = b"".join(frame(*one) for one in sent)
        for place in range(len(text) + 1):
            assert whole(decode(text[:place], text[place:])) == sent

    @given(st.lists(wire_frames(), max_size=6), st.lists(st.integers(0, 400)))
    def test_any_number_of_cuts_gives_the_same_frames(self, sent: list[Frame], places: list[int]) -> None:
        """Case 7."""
        text = b"".join(frame(*one) for one in sent)
        edges = sorted({0, len(text), *(place for place in places if place < len(text))})
        chunks = [text[start:end] for start, end in pairwise(edges)]
        assert whole(decode(*chunks)) == sent

    @given(st.lists(wire_frames(), max_size=6))
    def test_single_bytes_give_the_same_frames(self, sent: list[Frame]) -> None:
        """Case 7."""
        text = b"".join(frame(*one) for one in sent)
        assert whole(decode(*(text[at : at + 1] for at in range(len(text))))) == sent
