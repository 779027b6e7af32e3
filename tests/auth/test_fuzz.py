"""Fuzzing: the result for any token is a grant or one of the two refusals."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from twisted.internet.task import Clock

from seance.auth.deny import deny_list_from_text
from seance.auth.jwks import keys_from_jwks
from seance.auth.keys import keys_from_text
from seance.auth.service import AuthService
from seance.core.interfaces import Grant, TokenRole
from seance.errors import Refusal
from tests.auth.tokens import ROOM, auth_service, claims, ed_key, secret_key, sign, token, write_jwks

ROLES = st.sampled_from(TokenRole)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> AuthService:
    """One service for all examples."""
    keys = write_jwks(tmp_path_factory.mktemp("fuzz") / "keys", ed_key(), secret_key())
    service = auth_service(Clock(), keys=[Path(keys)])
    service.startService()
    return service


def answer(service: AuthService, text: str, role: TokenRole = TokenRole.CLIENT) -> Grant | Refusal:
    results: list[Any] = []
    service.verify(text, role, ROOM).addErrback(lambda failure: failure.value).addCallback(results.append)
    [result] = results
    assert isinstance(result, Grant) or type(result) is Refusal, repr(result)
    return result


JSON: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.just("clients"), inner, max_size=4)
    ),
    max_leaves=10,
)

NAMES = ("aud", "exp", "nbf", "iat", "role", "room", "sub", "jti", "org", "max", "agt")
HEADER_NAMES = ("alg", "kid", "typ", "crit", "b64", "jwk", "x5t", "cty")


@given(st.text(), ROLES)
def test_any_text(fuzzed: AuthService, text: str, role: TokenRole) -> None:
    assert isinstance(answer(fuzzed, text, role), Refusal)


@given(st.lists(st.text("ABab01_-", max_size=30), min_size=1, max_size=5))
def test_any_text_in_the_form_of_a_token(fuzzed: AuthService, parts: list[str]) -> None:
    assert isinstance(answer(fuzzed, ".".join(parts)), Refusal)


@given(st.binary(max_size=200), st.sampled_from(["EdDSA", "HS256"]))
def test_any_bytes_that_were_signed(fuzzed: AuthService, payload: bytes, algorithm: str) -> None:
    key = ed_key() if algorithm == "EdDSA" else secret_key()
    text = sign(payload, material=key.signing, algorithm=algorithm, kid=key.key_id)
    assert isinstance(answer(fuzzed, text), Refusal)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, min_size=1), ROLES)
def test_any_claims_that_were_signed(fuzzed: AuthService, changes: dict[str, Any], role: TokenRole) -> None:
    result = answer(fuzzed, token(**changes), role)
    if isinstance(result, Grant):
        assert result.allows_room(ROOM)
        assert result.role is role
        assert fuzzed.is_still_good(result)


@given(st.dictionaries(st.sampled_from(HEADER_NAMES), JSON, min_size=1) | JSON)
def test_any_header_that_was_signed(fuzzed: AuthService, header: object) -> None:
    answer(fuzzed, sign(claims(), header=json.dumps(header).encode()))


@given(st.integers(0, 400), st.integers(0, 6), st.text("Aa0.-_=% ", max_size=6))
def test_any_changed_part_of_a_good_token(fuzzed: AuthService, start: int, length: int, piece: str) -> None:
    good = token()
    changed = good[:start] + piece + good[start + length :]
    assert isinstance(answer(fuzzed, changed), Grant if changed == good else Refusal)


@given(
    st.sampled_from([keys_from_text, keys_from_jwks, deny_list_from_text]),
    st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_file(read: Any, content: bytes) -> None:
    """The result is a value or ValueError."""
    with suppress(ValueError):
        read(content)


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "d", "n", "e", "k", "alg", "use", "kid", "p"]), JSON
    ),
    st.sampled_from(
        [{"kty": "OKP", "crv": "Ed25519"}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"kty": "oct"}]
    ),
)
def test_any_jwk(members: dict[str, Any], kind: dict[str, str]) -> None:
    for read in (keys_from_text, keys_from_jwks):
        with suppress(ValueError):
            read(json.dumps({"keys": [{**members, **kind}]}).encode())
