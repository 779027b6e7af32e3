"""The messages of y-protocols on the wire, and bytes that are none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.yserver.messages import (
    MAX_STATE_BYTES,
    MAX_STATES,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode,
    encode,
)
from tests.yserver.client import awareness

HELLO = bytes.fromhex("0101ddb5ced7db91bf0e000401017405 68656c6c6f00".replace(" ", ""))
"""An update of Yjs: one client, who wrote "hello" into the text "t"."""

WIRE = [
    (SyncStep1(b"\0"), "00 00 01 00"),
    (SyncStep2(b"\0\0"), "00 01 02 0000"),
    (SyncUpdate(HELLO), f"00 02 {len(HELLO):02x} {HELLO.hex()}"),
    (awareness((300, 1, "{}")), "01 07 01 ac02 01 02 7b7d"),
]
"""As lib0 0.2 and y-protocols 1.0 write them."""

integers = st.integers(0, 2**53 - 1)
states = st.tuples(integers, integers, st.sampled_from(["{}", "null", '{"user": {"name": "Ada"}}']))
vectors = st.builds(lambda rest: b"\1" + rest, st.binary(min_size=1, max_size=99))
updates = st.builds(lambda rest: b"\1" + rest, st.binary(min_size=2, max_size=200))
messages = st.one_of(
    st.builds(SyncStep1, vectors),
    st.builds(SyncStep2, updates),
    st.builds(SyncUpdate, updates),
    st.lists(states, max_size=5).map(lambda some: awareness(*some)),
)


def refused(payload: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(payload)
    return caught.value.code


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=[type(one).__name__ for one, _ in WIRE])
def test_messages_are_those_of_y_protocols(message: Message, wire: str) -> None:
    assert encode(message) == bytes.fromhex(wire)
    assert decode(bytes.fromhex(wire)) == message


@given(messages, st.binary(max_size=9))
def test_encoded_message_is_decoded_and_bytes_after_it_are_ignored(message: Message, more: bytes) -> None:
    assert decode(encode(message) + more) == message


@given(messages, st.integers(min_value=1))
def test_message_cut_short_is_refused(message: Message, cut: int) -> None:
    whole = encode(message)
    with pytest.raises(RemoteProtocolError):
        decode(whole[: -(cut % len(whole)) or -len(whole)])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(payload: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(payload)


@pytest.mark.parametrize("wire", ["02 00", "03", "04", "66 01 00", "00 03 00"])
def test_other_types_of_message_are_ignored(wire: str) -> None:
    assert decode(bytes.fromhex(wire)) is None


def test_largest_integer_of_javascript_is_the_limit() -> None:
    largest = awareness((2**53 - 1, 0, "null"))
    assert decode(encode(largest)) == largest
    assert refused(encode(awareness((2**53, 0, "null")))) == "bad_message"


@pytest.mark.parametrize("length", [8, 9, 1000])
def test_integer_without_an_end_is_refused(length: int) -> None:
    assert refused(b"\0\0" + b"\x80" * length + b"\0") == "bad_message"


@pytest.mark.parametrize("step", [0, 1, 2])
def test_count_that_the_bytes_cannot_hold_never_reaches_pycrdt(step: int) -> None:
    """pycrdt would reserve memory for as many clients: gigabytes for these five bytes."""
    huge = b"\xff\xff\xff\xff\x0f"
    with pytest.raises(RemoteProtocolError, match="claims to hold 4294967295 clients"):
        decode(bytes([0, step, len(huge)]) + huge)


def test_states_in_one_message_are_limited() -> None:
    one = (1, 1, "{}")
    assert decode(encode(awareness(*[one] * MAX_STATES))) is not None
    assert refused(encode(awareness(*[one] * (MAX_STATES + 1)))) == "too_many_states"


def test_size_of_a_state_is_limited() -> None:
    assert decode(encode(awareness((1, 1, f'"{"x" * (MAX_STATE_BYTES - 2)}"'))))
    assert refused(encode(awareness((1, 1, f'"{"x" * (MAX_STATE_BYTES - 1)}"')))) == "state_too_big"


@pytest.mark.parametrize("text", ["", "{", "{a:1}", "NaN", "-Infinity", "[1e999]", "[" * 9000, "'x'", "nul"])
def test_state_that_is_not_json_is_refused(text: str) -> None:
    """A browser that received it would fail."""
    assert refused(encode(awareness((1, 1, text)))) == "bad_message"


def test_text_that_is_not_utf_8_is_refused() -> None:
    assert refused(bytes.fromhex("01 05 01 01 01 01 ff")) == "bad_message"
