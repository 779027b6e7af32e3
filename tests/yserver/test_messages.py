"""The messages of y-protocols: what they are on the wire, and what is not taken for one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.yserver.messages import (
    AwarenessQuery,
    AwarenessUpdate,
    ClientState,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode,
    encode,
)

HELLO = bytes.fromhex("0101ddb5ced7db91bf0e000401017405 68656c6c6f00".replace(" ", ""))
"""An update of Yjs: one client, who wrote "hello" into the text "t"."""

WIRE = [
    (SyncStep1(b"\0"), "00 00 01 00"),
    (SyncStep2(b"\0\0"), "00 01 02 0000"),
    (SyncUpdate(HELLO), f"00 02 {len(HELLO):02x} {HELLO.hex()}"),
    (AwarenessUpdate((ClientState(300, 1, "{}"),)), "01 07 01 ac02 01 02 7b7d"),
    (AwarenessQuery(), "03"),
]
"""As lib0 0.2 and y-protocols 1.0 write them."""

integers = st.integers(0, 2**53 - 1)
states = st.builds(ClientState, integers, integers, st.text(st.characters(codec="utf-8"), max_size=20))
vectors = st.builds(lambda rest: b"\1" + rest, st.binary(min_size=1, max_size=99))
updates = st.builds(lambda rest: b"\1" + rest, st.binary(min_size=2, max_size=99))
messages = st.one_of(
    st.builds(SyncStep1, vectors),
    st.builds(SyncStep2, updates),
    st.builds(SyncUpdate, updates),
    st.builds(AwarenessUpdate, st.lists(states, max_size=5).map(tuple)),
    st.just(AwarenessQuery()),
)


@pytest.mark.parametrize(("message", "wire"), WIRE, ids=[type(one).__name__ for one, _ in WIRE])
def test_messages_are_what_y_protocols_says(message: Message, wire: str) -> None:
    assert encode(message) == bytes.fromhex(wire)
    assert decode(bytes.fromhex(wire)) == message


@given(messages)
def test_what_is_written_is_read_again(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages, st.binary(min_size=1, max_size=9))
def test_bytes_after_a_message_are_ignored(message: Message, more: bytes) -> None:
    assert decode(encode(message) + more) == message


@given(messages, st.integers(min_value=1))
def test_a_message_cut_short_is_refused(message: Message, cut: int) -> None:
    whole = encode(message)
    with pytest.raises(RemoteProtocolError):
        decode(whole[: -(cut % len(whole)) or -len(whole)])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(payload: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode(payload)


@pytest.mark.parametrize("wire", ["02 00", "04", "66 01 00", "00 03 00"])
def test_kinds_of_message_that_we_do_not_know_are_nothing(wire: str) -> None:
    assert decode(bytes.fromhex(wire)) is None


def test_the_biggest_integer_of_javascript_is_the_limit() -> None:
    state = ClientState(2**53 - 1, 0, "null")
    assert decode(encode(AwarenessUpdate((state,)))) == AwarenessUpdate((state,))
    with pytest.raises(RemoteProtocolError, match=r"2\^53"):
        decode(encode(AwarenessUpdate((ClientState(2**53, 0, "null"),))))


@pytest.mark.parametrize("length", [8, 9, 1000])
def test_an_integer_that_goes_on_and_on_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(b"\x80" * length + b"\0")


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_count_that_the_bytes_cannot_hold_never_reaches_pycrdt(step: int) -> None:
    """pycrdt would reserve memory for so many clients: a gigabyte for these five bytes."""
    huge = b"\xff\xff\xff\xff\x0f"
    with pytest.raises(RemoteProtocolError, match="claims to hold 4294967295 clients"):
        decode(bytes([0, step, len(huge)]) + huge)


def test_too_many_states_in_one_message_are_refused_unread() -> None:
    one = ClientState(1, 1, "{}")
    assert decode(encode(AwarenessUpdate((one,) * 4096))) is not None
    with pytest.raises(RemoteProtocolError) as refused:
        decode(encode(AwarenessUpdate((one,) * 4097)))
    assert refused.value.code == "too_many_states"


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="UTF-8"):
        decode(bytes.fromhex("01 05 01 01 01 01 ff"))
