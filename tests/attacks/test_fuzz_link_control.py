"""Any link control message of an agent is understood, or ends that link and nothing else."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from twisted.internet.task import Clock

from seance.auth.service import AuthService
from seance.carrier.link_control import MAX_TEXT_BYTES, parse_control
from seance.core.interfaces import TokenRole
from seance.errors import Refusal, RemoteProtocolError
from tests.auth.tokens import ROOM, auth_service, secret_key, token, write_jwks
from tests.carrier.peers import CLOSE, CONTINUATION, TEXT, Answered, frame

JSON: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("tnx") | st.text(max_size=4), inner)
    ),
    max_leaves=8,
)

SCRAPS = st.lists(
    st.sampled_from(
        [b'{"t"', b":", b'"token"', b",", b"}", b"[", b"\\ud800", b"1e999", b"NaN", b"\xff", b"9" * 5000]
    )
    | st.binary(max_size=6),
    max_size=12,
).map(b"".join)  # fmt: skip

PAYLOADS = (
    SCRAPS
    | st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.integers(0, MAX_TEXT_BYTES).map(lambda depth: b'{"t":' * depth)
)


def is_understood(payload: bytes) -> bool:
    try:
        message = parse_control(payload)
    except RemoteProtocolError as error:
        return error.code != "link_control_malformed"
    assert isinstance(message["t"], str)
    return True


@given(PAYLOADS)
def test_any_payload_is_understood_or_refused(payload: bytes) -> None:
    is_understood(payload)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.text(max_size=20))
def test_any_object_with_a_type_is_understood_or_refused(message: dict[str, Any], word: str) -> None:
    assert is_understood(json.dumps({**message, "t": word}).encode())


@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.lists(st.integers(0, 200), max_size=4))
def test_any_fragments_deliver_the_messages_before_the_first_wrong_one(
    payloads: list[bytes], cuts: list[int]
) -> None:
    """The carrier delivers the messages before the first wrong one, and closes at that one."""
    ends = Answered()
    heard: list[dict[str, object]] = []
    ends.carrier.on_control = heard.append
    said = []
    for payload in payloads:
        marks = sorted({0, *(cut for cut in cuts if cut < len(payload)), len(payload)})
        pieces = [payload[start:end] for start, end in pairwise(marks)] or [b""]
        for number, piece in enumerate(pieces):
            opcode = CONTINUATION if number else TEXT
            said.append(frame(piece, opcode, is_final=number == len(pieces) - 1))
    answers = ends.hear(*said)
    good = [is_understood(payload) and len(payload) <= MAX_TEXT_BYTES for payload in payloads]
    first_wrong = good.index(False) if False in good else len(good)
    assert len(heard) <= first_wrong
    assert [answer.opcode for answer in answers] == ([] if all(good) else [CLOSE])
    if all(good):
        assert repr(heard) == repr([parse_control(payload) for payload in payloads])
    elif answers:
        assert answers[0].close_code in (1002, 1007, 1009)
    ends.end()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> AuthService:
    """One relay service for all examples."""
    keys = write_jwks(tmp_path_factory.mktemp("fuzz") / "keys", secret_key())
    service = auth_service(Clock(), keys=[Path(keys)])
    service.startService()
    return service


@given(SCRAPS | st.binary(max_size=50), st.integers(0, 300))
def test_any_token_that_json_can_encode_is_understood_or_refused(
    service: AuthService, scrap: bytes, start: int
) -> None:
    """Includes tokens that no header can carry: JSON has lone surrogates and NUL."""
    good = token(role="agent")
    text = good[:start] + scrap.decode("latin-1").replace("\xff", "\ud800") + good[start:]
    results: list[Any] = []
    service.verify(text, TokenRole.AGENT, ROOM).addBoth(results.append)
    assert [type(result.value) for result in results] == [Refusal]
