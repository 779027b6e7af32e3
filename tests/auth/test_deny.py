"""Tests of the parser of deny lists."""

from __future__ import annotations

import pytest

from seance.auth.deny import DenyList, deny_list_from_text
from seance.core.interfaces import Grant, TokenRole


def grant(**changes: str | None) -> Grant:
    return Grant(TokenRole.CLIENT, ("r",), 0.0, **changes)  # type: ignore[arg-type]


def test_all_kinds_of_lines() -> None:
    text = "\ufeff# taken back\n\n  jti:a:b \r\nsub:Zoë #1\nroom:closed\nroom:old-*\nroom:closed\n"
    assert deny_list_from_text(text.encode()) == DenyList(
        frozenset({"a:b"}), frozenset({"Zoë #1"}), frozenset({"closed"}), ("old-",)
    )


def test_empty_file_denies_nothing() -> None:
    assert deny_list_from_text(b"") == DenyList()
    assert not DenyList().denies_bearer(grant())
    assert not DenyList().denies_room("r")


@pytest.mark.parametrize(
    "line",
    [
        "jti",
        "jti:",
        "jti: ",
        "tok:x",
        "JTI:x",
        "x",
        ":x",
        "room:a b",
        "room:a*b",
        "room:",
        "sub:a\tb",
        "sub:" + "x" * 257,
    ],
)
def test_invalid_line_makes_the_file_invalid(line: str) -> None:
    with pytest.raises(ValueError, match=r"invalid entry in line 3; write jti:ID, sub:NAME or room:NAME"):
        deny_list_from_text(f"jti:x\n# no\n{line}\nsub:y\n".encode())


def test_file_that_is_not_utf_8_is_invalid() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        deny_list_from_text(b"sub:Zo\xeb\n")


def test_room_prefixes_are_bounded() -> None:
    lines = [f"room:{number}-*\n" for number in range(257)]
    with pytest.raises(ValueError, match="more than 256 rooms"):
        deny_list_from_text("".join(lines).encode())
    assert len(deny_list_from_text("".join(lines[:256]).encode()).room_prefixes) == 256


def test_denied_tokens_subjects_and_rooms() -> None:
    denied = DenyList(frozenset({"t"}), frozenset({"s"}), frozenset({"r"}), ("old-",))
    assert denied.denies_bearer(grant(token_id="t", subject="x"))
    assert denied.denies_bearer(grant(token_id="x", subject="s"))
    assert not denied.denies_bearer(grant(token_id="s", subject="t"))
    assert not denied.denies_bearer(grant())
    assert denied.denies_room("r")
    assert denied.denies_room("old-1")
    assert not denied.denies_room("r1")
    assert not denied.denies_room("old")
    assert not denied.denies_room("")
