"""Tests of the conversion from claims to a grant, and of the strict JSON parser."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seance.auth.claims import grant_from_claims
from seance.auth.strict_json import object_from_json
from seance.core.interfaces import Grant, TokenRole
from tests.auth.tokens import NOW, ROOM, claims


def grant(**changes: Any) -> Grant:
    return grant_from_claims(json.dumps(claims(**changes)).encode(), key_id="k", now=NOW)


def test_required_claims_only() -> None:
    assert grant() == Grant(TokenRole.CLIENT, (ROOM,), NOW + 3600, key_id="k")


def test_all_claims() -> None:
    said = grant(
        role="agent",
        room=["a", "b-*"],
        sub="Zoë",
        jti="t-1",
        org=["https://app.example", "http://[::1]:8080"],
        max={"clients": 5, "bps": 1_000_000},
        agt="desk",
        nbf=int(NOW),
        iat=int(NOW),
    )
    assert said == Grant(
        TokenRole.AGENT,
        ("a", "b-*"),
        NOW + 3600,
        subject="Zoë",
        token_id="t-1",
        key_id="k",
        origins=("https://app.example", "http://[::1]:8080"),
        max_clients=5,
        max_bytes_per_second=1_000_000,
        agent_identity="desk",
    )


def test_empty_origins_differ_from_missing_origins() -> None:
    assert grant(org=[]).origins == ()
    assert grant().origins is None


def test_one_origin_needs_no_list() -> None:
    assert grant(org="https://app.example").origins == ("https://app.example",)


@pytest.mark.parametrize("role", list(TokenRole))
def test_every_role_is_accepted(role: TokenRole) -> None:
    assert grant(role=role.value).role is role


@pytest.mark.parametrize(
    ("rooms", "room", "is_allowed"),
    [
        (("a",), "a", True),
        (("a",), "ab", False),
        (("a*",), "a", True),
        (("a*",), "ab", True),
        (("a*",), "b", False),
        (("a", "b"), "b", True),
        (("*",), "a", True),
        (("*",), "", False),
        ((), "a", False),
        ((), "", False),
        (("a.c",), "abc", False),
    ],
)
def test_rooms_of_a_grant(rooms: tuple[str, ...], room: str, is_allowed: bool) -> None:
    assert Grant(TokenRole.CLIENT, rooms, NOW).allows_room(room) is is_allowed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"a": 1, "a": 1}', "twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a": 1} {"a": 1}', "not JSON"),
        (b"\xff", "not JSON"),
        (b"", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
    ],
)
def test_ambiguous_json_is_rejected(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        object_from_json(text)


def test_valid_json_object_is_returned() -> None:
    assert object_from_json(b' {"a": [1, {"b": null}], "c": "\\u00e9"} ') == {"a": [1, {"b": None}], "c": "é"}
