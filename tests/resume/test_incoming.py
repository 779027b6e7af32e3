"""The count and checksum of received data."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.resume import ACK_AFTER_BYTES, ACK_AFTER_SECONDS, KEPT_BYTES, Incoming


@pytest.mark.parametrize("origin", [0, 2**32 - 10, 2**64 - 40])
def test_bytes_are_counted_when_passed_on(origin: int) -> None:
    incoming = Incoming(origin=origin)
    assert (incoming.count, incoming.crc, incoming.unacked_bytes) == (origin, 0, 0)
    assert incoming.take(b"abc") == 3
    assert incoming.take(b"defghijklmnopqrstuvw") == 23
    assert (incoming.count, incoming.crc) == (origin + 23, crc32(b"abcdefghijklmnopqrstuvw"))


def test_make_ack_resets_the_unacked_bytes() -> None:
    incoming = Incoming()
    incoming.take(b"abc")
    assert incoming.make_ack() == (3, crc32(b"abc"))
    assert incoming.unacked_bytes == 0
    assert incoming.take(b"d") == incoming.unacked_bytes == 1
    assert incoming.make_ack() == (4, crc32(b"abcd"))
    assert incoming.make_ack() == (4, crc32(b"abcd"))


def test_empty_data_changes_nothing() -> None:
    incoming = Incoming()
    incoming.take(b"abc")
    assert incoming.take(b"") == 3
    assert incoming.make_ack() == (3, crc32(b"abc"))


def test_acknowledgement_is_due_long_before_the_peer_pauses() -> None:
    assert ACK_AFTER_BYTES * 16 == KEPT_BYTES
    assert ACK_AFTER_SECONDS == 0.25


@given(st.lists(st.binary(max_size=50)))
def test_cuts_do_not_matter(pieces: list[bytes]) -> None:
    incoming = Incoming()
    for piece in pieces:
        incoming.take(piece)
    assert incoming.make_ack() == (len(b"".join(pieces)), crc32(b"".join(pieces)))
