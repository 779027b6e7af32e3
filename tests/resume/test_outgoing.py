"""Data kept for the next carrier: nothing is dropped, and every count of the peer is checked."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.resume import Outgoing
from tests.ears import pattern

KIB = 1024

ORIGINS = (0, 2**32 - 10, 2**63 - 3, 2**64 - 40)
"""Initial counts, also close to 32 and 64 bits."""

with_origin = pytest.mark.parametrize("origin", ORIGINS)


def outgoing_with(*messages: bytes, origin: int = 0, limit_bytes: int = 100) -> Outgoing:
    outgoing = Outgoing(limit_bytes, origin=origin)
    for message in messages:
        outgoing.add(message)
    return outgoing


def unsent(outgoing: Outgoing) -> list[bytes]:
    messages = []
    while (message := outgoing.next_unsent()) is not None:
        messages.append(message)
    return messages


def code_of(outgoing: Outgoing, count: int, crc: int, *, rewind: bool = False) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        (outgoing.rewind if rewind else outgoing.acknowledge)(count, crc)
    assert caught.value.message
    return caught.value.code


def state(outgoing: Outgoing) -> tuple[object, ...]:
    return tuple(getattr(outgoing, name) for name in ("base", "sent", "end", "kept_bytes", "is_full"))


# Counts


@with_origin
def test_new_buffer_is_empty(origin: int) -> None:
    outgoing = Outgoing(10, origin=origin)
    assert (outgoing.base, outgoing.sent, outgoing.end) == (origin, origin, origin)
    assert outgoing.kept_bytes == 0
    assert not outgoing.is_full
    assert outgoing.next_unsent() is None


@with_origin
def test_added_message_counts_as_sent_and_is_kept(origin: int) -> None:
    outgoing = outgoing_with(b"abc", b"de", origin=origin)
    assert (outgoing.base, outgoing.sent, outgoing.end) == (origin, origin + 5, origin + 5)
    assert outgoing.kept_bytes == 5
    assert outgoing.next_unsent() is None


def test_held_messages_are_sent_in_order() -> None:
    outgoing = outgoing_with(b"first")
    outgoing.hold(b"second")
    outgoing.hold(b"third")
    assert (outgoing.sent, outgoing.end) == (5, 16)
    assert outgoing.next_unsent() == b"second"
    assert outgoing.sent == 11
    assert unsent(outgoing) == [b"third"]
    assert outgoing.sent == outgoing.end == 16
    outgoing.add(b"fourth")
    assert outgoing.next_unsent() is None


def test_buffer_is_full_from_its_limit_on() -> None:
    outgoing = outgoing_with(b"x" * 99, limit_bytes=100)
    assert not outgoing.is_full
    outgoing.add(b"y" * 50)
    assert outgoing.is_full
    assert outgoing.kept_bytes == 149
    outgoing.acknowledge(50, crc32(b"x" * 50))
    assert not outgoing.is_full, "99 bytes are kept"
    assert outgoing.kept_bytes == 99


def test_held_bytes_count_towards_the_limit_and_none_is_dropped() -> None:
    outgoing = Outgoing(10)
    pieces = [b"%05d" % number for number in range(50)]
    for piece in pieces:
        outgoing.hold(piece)
    assert outgoing.is_full
    assert b"".join(unsent(outgoing)) == b"".join(pieces)


# Acknowledgements


@with_origin
@pytest.mark.parametrize("count", range(12))
def test_acknowledgement_may_end_inside_a_message(origin: int, count: int) -> None:
    outgoing = outgoing_with(b"abcd", b"e", b"fghijk", origin=origin)
    assert outgoing.acknowledge(origin + count, crc32(b"abcdefghijk"[:count])) == count
    assert (outgoing.base, outgoing.sent, outgoing.end) == (origin + count, origin + 11, origin + 11)
    assert outgoing.kept_bytes == 11 - count
    outgoing.rewind(origin + count, crc32(b"abcdefghijk"[:count]))
    assert b"".join(unsent(outgoing)) == b"abcdefghijk"[count:]


@with_origin
def test_outdated_acknowledgement_is_ignored(origin: int) -> None:
    outgoing = outgoing_with(b"abcdef", origin=origin)
    outgoing.acknowledge(origin + 4, crc32(b"abcd"))
    before = state(outgoing)
    assert outgoing.acknowledge(origin + 3, 0xDEADBEEF) == 0
    assert outgoing.acknowledge(origin, 1) == 0
    assert state(outgoing) == before


def test_repeated_acknowledgement_is_verified_and_frees_nothing() -> None:
    outgoing = outgoing_with(b"abcdef")
    outgoing.acknowledge(4, crc32(b"abcd"))
    assert outgoing.acknowledge(4, crc32(b"abcd")) == 0
    assert code_of(outgoing, 4, 7) == "ack_mismatch"


@with_origin
def test_acknowledgement_of_unsent_data_is_rejected(origin: int) -> None:
    outgoing = outgoing_with(b"abc", origin=origin)
    outgoing.hold(b"not sent yet")
    before = state(outgoing)
    assert code_of(outgoing, origin + 4, crc32(b"abcn")) == "ack_ahead"
    assert code_of(outgoing, 2**70, 0) == "ack_ahead"
    assert state(outgoing) == before
    assert outgoing.acknowledge(origin + 3, crc32(b"abc")) == 3


@with_origin
@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_wrong_checksum_is_rejected_and_frees_nothing(origin: int, count: int) -> None:
    outgoing = outgoing_with(b"abc", b"defg", origin=origin)
    before = state(outgoing)
    assert code_of(outgoing, origin + count, crc32(b"abcdefg"[:count]) ^ 1) == "ack_mismatch"
    assert state(outgoing) == before
    assert outgoing.acknowledge(origin + 7, crc32(b"abcdefg")) == 7


def test_checksum_covers_everything_since_the_start() -> None:
    outgoing = outgoing_with(b"abc", b"def")
    outgoing.acknowledge(2, crc32(b"ab"))
    assert code_of(outgoing, 4, crc32(b"cd")) == "ack_mismatch"
    assert outgoing.acknowledge(4, crc32(b"abcd")) == 2
    assert outgoing.acknowledge(6, crc32(b"abcdef")) == 2


# Another carrier


@with_origin
def test_next_carrier_sends_exactly_the_missing_bytes(origin: int) -> None:
    outgoing = outgoing_with(b"abc", b"def", b"ghi", origin=origin)
    outgoing.hold(b"jkl")
    outgoing.rewind(origin + 4, crc32(b"abcd"))
    assert (outgoing.base, outgoing.sent, outgoing.end) == (origin + 4, origin + 4, origin + 12)
    assert b"".join(unsent(outgoing)) == b"efghijkl"
    assert outgoing.sent == outgoing.end


def test_each_carrier_starts_at_the_peers_count() -> None:
    text = pattern(1000)
    outgoing = outgoing_with(text[:300], text[300:600], limit_bytes=5000)
    outgoing.hold(text[600:])
    for count in (0, 0, 10, 10, 299, 300, 301, 600, 999):
        outgoing.rewind(count, crc32(text[:count]))
        assert outgoing.sent == count
        assert b"".join(unsent(outgoing)) == text[count:]
    outgoing.rewind(1000, crc32(text))
    assert outgoing.next_unsent() is None
    assert outgoing.kept_bytes == 0


def test_small_messages_are_sent_again_as_messages_of_64_kib() -> None:
    text = pattern(150 * KIB)
    outgoing = outgoing_with(*(text[at : at + 100] for at in range(0, len(text), 100)), limit_bytes=KIB * KIB)
    outgoing.rewind(50, crc32(text[:50]))
    messages = unsent(outgoing)
    assert [len(message) for message in messages] == [64 * KIB, 64 * KIB, 22 * KIB - 50]
    assert b"".join(messages) == text[50:]


def test_acknowledgement_is_limited_to_data_sent_on_this_carrier() -> None:
    text = pattern(130 * KIB)
    outgoing = outgoing_with(text, limit_bytes=KIB * KIB)
    outgoing.rewind(0, 0)
    assert code_of(outgoing, 1, crc32(text[:1])) == "ack_ahead"
    outgoing.next_unsent()
    assert code_of(outgoing, 64 * KIB + 1, crc32(text[: 64 * KIB + 1])) == "ack_ahead"
    assert outgoing.acknowledge(64 * KIB, crc32(text[: 64 * KIB])) == 64 * KIB
    assert b"".join(unsent(outgoing)) == text[64 * KIB :]


def test_peer_may_acknowledge_while_it_still_lacks_the_rest() -> None:
    text = pattern(200 * KIB)
    outgoing = outgoing_with(text, limit_bytes=KIB * KIB)
    outgoing.rewind(7, crc32(text[:7]))
    got = text[:7]
    while (message := outgoing.next_unsent()) is not None:
        got += message
        outgoing.acknowledge(len(got) - 3, crc32(got[:-3]))
    assert got == text
    assert outgoing.kept_bytes == 3


def test_resuming_peer_may_have_more_than_the_last_carrier_sent() -> None:
    """The peer never saw the last carrier, because its request arrived late."""
    text = pattern(200 * KIB)
    outgoing = outgoing_with(text, limit_bytes=KIB * KIB)
    outgoing.rewind(10, crc32(text[:10]))
    outgoing.next_unsent()
    outgoing.rewind(180 * KIB, crc32(text[: 180 * KIB]))
    assert b"".join(unsent(outgoing)) == text[180 * KIB :]


@with_origin
def test_peer_with_fewer_bytes_than_acknowledged_is_rejected(origin: int) -> None:
    outgoing = outgoing_with(b"abcdef", origin=origin)
    outgoing.acknowledge(origin + 4, crc32(b"abcd"))
    before = state(outgoing)
    assert code_of(outgoing, origin + 3, crc32(b"abc"), rewind=True) == "ack_gap"
    assert code_of(outgoing, origin + 7, crc32(b"abcdefg"), rewind=True) == "ack_ahead"
    assert code_of(outgoing, origin + 5, 0, rewind=True) == "ack_mismatch"
    assert state(outgoing) == before
    assert outgoing.next_unsent() is None, "an older carrier continues as before"


def test_cleared_buffer_is_empty() -> None:
    outgoing = outgoing_with(b"abc")
    outgoing.hold(b"def")
    outgoing.clear()
    assert outgoing.kept_bytes == 0
    assert outgoing.next_unsent() is None
    assert outgoing.base == outgoing.sent == outgoing.end == 6


# Random actions


@given(st.data())
def test_every_byte_can_be_delivered_under_random_actions(given_data: st.DataObject) -> None:
    origin = given_data.draw(st.sampled_from(ORIGINS))
    outgoing = Outgoing(64, origin=origin)
    text, got, is_caught_up = b"", 0, True
    for _ in range(given_data.draw(st.integers(0, 30))):
        step = given_data.draw(st.sampled_from(["write", "cut", "send", "ack"]))
        if step == "write":
            message = given_data.draw(st.binary(min_size=1, max_size=40))
            text += message
            (outgoing.add if is_caught_up else outgoing.hold)(message)
        elif step == "cut":
            # The peer has received some of the data sent.
            got = given_data.draw(st.integers(outgoing.base, outgoing.sent)) - origin
            outgoing.rewind(origin + got, crc32(text[:got]))
            is_caught_up = False
        elif step == "send":
            unsent_message = outgoing.next_unsent()
            is_caught_up = unsent_message is None
            assert text[: outgoing.sent - origin].endswith(unsent_message or b"")
        else:
            count = given_data.draw(st.integers(outgoing.base, outgoing.sent))
            outgoing.acknowledge(count, crc32(text[: count - origin]))
        assert origin <= outgoing.base <= outgoing.sent <= outgoing.end == origin + len(text)
        assert outgoing.is_full == (outgoing.kept_bytes >= 64)
    count = outgoing.base - origin
    outgoing.rewind(outgoing.base, crc32(text[:count]))
    assert b"".join(unsent(outgoing)) == text[count:]


@given(st.integers(0, 2**64), st.integers(0, 2**32 - 1))
def test_any_counts_of_a_peer_give_a_typed_error_at_most(count: int, crc: int) -> None:
    outgoing = outgoing_with(b"abc", b"defg")
    for take in (outgoing.acknowledge, outgoing.rewind):
        try:
            take(count, crc)
        except RemoteProtocolError as error:
            if error.code not in ("ack_ahead", "ack_mismatch", "ack_gap"):
                raise
