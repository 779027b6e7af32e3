"""Hypothesis strategies for the bytes of a peer, from valid to invalid.

Ids, values and sizes come from small sets, so that frames often concern the same stream.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from tests.yamux.frame_bytes import DATA, frame

__all__ = ["chunks_of", "cuts", "noise", "sayings"]

IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 10, 2**32 - 2])
FLAGS = st.one_of(st.sampled_from([0, 0, 1, 1, 2, 4, 8]), st.integers(0, 15), st.just(0x8000))
VALUES = st.sampled_from([0, 1, 7, 1000, 256 * 1024, 2**31, 2**32 - 1])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([0, 0, 0, 1, 1, 1, 1, 2, 3]))
    flags, stream_id = draw(FLAGS), draw(IDS)
    if kind == DATA:
        body = draw(st.binary(max_size=60))
        return frame(kind, flags, stream_id, len(body), body)
    if kind == 3:  # An error code would end the session early, so most are 0.
        return frame(kind, flags, stream_id, draw(st.sampled_from([0, 0, 0, 1, 9])))
    return frame(kind, flags, stream_id, draw(VALUES))


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A frame whose body is too long, or an invalid header."""
    length = draw(st.sampled_from([256 * 1024, 256 * 1024 + 1, 2**32 - 1, 5]))
    return frame(
        draw(st.sampled_from([0, 0, 4, 255])), draw(FLAGS), draw(IDS), length, version=draw(st.integers(0, 2))
    )


sayings = st.lists(st.one_of(frames(), frames(), frames(), frames(), broken()), max_size=25).map(b"".join)
"""Frames in any order, some of them invalid."""

noise = st.one_of(
    st.binary(max_size=300), st.lists(st.one_of(frames(), st.binary(max_size=30))).map(b"".join)
)
"""Arbitrary bytes, or frames with arbitrary bytes between them."""

cuts = st.lists(st.integers(0, 1500), max_size=12)
"""Positions to cut at; those beyond the end are ignored."""


def chunks_of(text: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(text), *(place for place in places if place < len(text))})
    return [text[start:end] for start, end in pairwise(edges)]
