"""`split_fields` against h11: every head that it accepts has the same fields there."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seance.errors import Refusal, RemoteProtocolError
from seance.heads import RequestReader
from seance.heads.boundary import HeadBuffer
from seance.heads.fields import Fields, split_fields
from tests.heads.samples import SWITCHING, head, read, upgrade

NAMES = (b"A", b"Cookie", b"x_y", b"Content-Length", b"TRANSFER-encoding", b"Host", b"a b", b"", b"\xc3")
PIECES = (b"a", b":", b",", b" ", b"\t", b"\xe9", b"\r", b"\n", b"\x00", b"\x7f", b"=", b"0", b"chunked")
LINES = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from((b":", b": ", b" :", b"")),
    st.lists(st.sampled_from(PIECES)).map(b"".join),
).map(b"".join)


def fields_of_h11(raw: bytes) -> Fields:
    """Return the fields of a request head; raise what h11 raises."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return tuple(event.headers.raw_items())


@given(st.lists(LINES, max_size=4))
@example([b"A:" + b" " * 9000])
@example([b"A:" + b"\t " * 4000 + b"b" + b" \t" * 4000])
@example([b"A: b c"])
@example([b"A:b", b"A: b\r\n", b"c"])
@settings(max_examples=500)
def test_accepted_fields_are_those_of_h11(lines: list[bytes]) -> None:
    raw = head(*lines)
    try:
        whole = HeadBuffer(65536).receive(raw)
    except RemoteProtocolError:
        return
    assert whole is not None
    fields = split_fields(whole)
    if fields is not None and sum(name.lower() == b"host" for name, _ in fields) == 1:
        assert fields == fields_of_h11(whole)


@pytest.mark.parametrize(
    "raw", [head(), upgrade(b"Cookie: a=b; c=d", b"Origin:https://a.example"), SWITCHING]
)
def test_usual_heads_are_accepted(raw: bytes) -> None:
    fields = split_fields(raw)
    assert fields is not None
    assert len(fields) == raw.count(b"\r\n") - 2


@pytest.mark.parametrize(
    "line",
    [b"A : b", b": b", b"A", b"\xc3: b", b"A/B: c", b"Content-Length: 0", b"transfer-Encoding: chunked"],
)
def test_others_are_left_to_h11(line: bytes) -> None:
    assert split_fields(head(line)) is None


@pytest.mark.parametrize("line", [b"Content-Length: 0", b"Content-Length: 0, 0"])
def test_h11_reads_a_request_with_an_empty_body(line: bytes) -> None:
    assert read(upgrade(line)).values(b"content-length") == [b"0"]


@given(st.lists(st.sampled_from((b"\r\n", b"\r", b"\n", b" ", b"\t", b"A: b", b"\x00", b"\x7f", b"\xff"))))
def test_a_fault_is_found_in_any_segmentation(pieces: list[bytes]) -> None:
    """A whole head is checked without the pattern, single bytes with it."""

    def outcome(chunks: list[bytes]) -> str:
        reader = RequestReader()
        try:
            for chunk in chunks:
                if reader.receive(chunk) is not None:
                    return "whole"
        except Refusal as refusal:
            return refusal.message
        return "incomplete"

    raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces) + b"\r\n\r\n"
    assert outcome([raw]) == outcome([raw[i : i + 1] for i in range(len(raw))])
