"""Tests of making tokens, and that a verifier accepts them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jwt
import pytest
from twisted.internet.task import Clock

from seance.auth.keys import Key, key_from_jwk
from seance.auth.mint import Terms, mint_token
from seance.auth.service import AuthService
from seance.core.interfaces import TokenRole
from seance.errors import ConfigError
from tests.auth.tokens import NOW, ROOM, ed_key, es_private, grant_of, rsa_private, secret_key

TERMS = Terms(TokenRole.CLIENT, (ROOM,), 60)


def named(private: Any, algorithm: str, key_id: str) -> Key:
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(private, as_dict=True)
    return key_from_jwk({**jwk, "kid": key_id})


@pytest.mark.parametrize(
    "make",
    [
        ed_key,
        secret_key,
        lambda: named(rsa_private(), "RS256", "rs"),
        lambda: named(es_private(), "ES256", "es"),
    ],
)
def test_every_kind_of_key_makes_accepted_tokens(make: Any, service: AuthService) -> None:
    token = mint_token(make(), TERMS, now=NOW)
    grant = grant_of(service.verify(token, TokenRole.CLIENT, ROOM))
    assert (grant.rooms, grant.expires_at) == ((ROOM,), NOW + 60)


def test_grant_has_all_terms(service: AuthService) -> None:
    terms = Terms(
        TokenRole.AGENT,
        (ROOM, "b-*"),
        3600,
        subject="zoe",
        token_id="t",
        origins=("https://app.example",),
        max_clients=3,
        max_bytes_per_second=4096,
        agent_identity="desk",
    )
    grant = grant_of(service.verify(mint_token(ed_key(), terms, now=NOW + 0.9), TokenRole.AGENT, ROOM))
    arrived = {field.name: getattr(grant, field.name, None) for field in dataclasses.fields(terms)}
    assert arrived == {**dataclasses.asdict(terms), "ttl_seconds": None}
    assert grant.expires_at == NOW + 3600


def test_every_token_has_an_id_of_its_own(service: AuthService) -> None:
    grants = [
        grant_of(service.verify(mint_token(ed_key(), TERMS, now=NOW), TokenRole.CLIENT, ROOM))
        for _ in range(2)
    ]
    assert all(grant.token_id for grant in grants)
    assert grants[0].token_id != grants[1].token_id


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rooms": ("a*b",)}, "the value of --room is"),
        ({"rooms": ("r",) * 65}, "the value of --room is"),
        ({"subject": ""}, "the value of --sub is"),
        ({"subject": "a\nb"}, "the value of --sub is"),
        ({"token_id": "x" * 257}, "the value of --jti is"),
        ({"origins": ("https://app.example/",)}, "the value of --origin is"),
        ({"agent_identity": " "}, "the value of --agent-identity is"),
        ({"ttl_seconds": 0}, "the value of --ttl is"),
        ({"ttl_seconds": 10**12}, "the value of --ttl is"),
        ({"max_clients": 0}, "the value of --max-clients is"),
        ({"max_bytes_per_second": -1}, "the value of --max-rate is"),
        ({"rooms": tuple(f"{number:0100}" for number in range(40))}, "Name fewer rooms"),
    ],
)
def test_invalid_terms_make_no_token(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        mint_token(ed_key(), dataclasses.replace(TERMS, **changes), now=NOW)


def test_public_key_makes_no_token() -> None:
    with pytest.raises(ConfigError, match="cannot sign"):
        mint_token(ed_key().without_signing(), TERMS, now=NOW)


def test_header_has_alg_kid_and_typ_only() -> None:
    header = jwt.get_unverified_header(mint_token(ed_key(), TERMS, now=NOW))
    assert header == {"alg": "EdDSA", "kid": "ed", "typ": "seance+jwt"}


def test_token_is_accepted_by_plain_pyjwt(clock: Clock) -> None:
    """The tokens are ordinary JWTs."""
    token = mint_token(ed_key(), dataclasses.replace(TERMS, ttl_seconds=10**9), now=NOW)
    options: Any = {"verify_iat": False}
    said = jwt.decode(token, ed_key().verifying, ["EdDSA"], audience="seance-relay", options=options)
    assert said["room"] == ROOM
