"""Tests of the check of origins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.heads import check_origin
from tests.heads.samples import outcome, read, upgrade


def passes(*origins: str, allowed: tuple[str, ...] | None) -> bool:
    request = read(upgrade(*(b"Origin: " + origin.encode() for origin in origins)))
    refused = outcome(lambda: check_origin(request, allowed))
    assert refused is None or refused[:2] == (403, "origin")
    return refused is None


@pytest.mark.parametrize(
    ("origin", "entry"),
    [
        ("https://app.example", "https://app.example"),
        ("https://app.example", "HTTPS://App.Example:443"),
        ("https://app.example:443", "https://app.example"),
        ("HTTP://APP.example", "http://app.example:80"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://[::1]", "https://[::1]:443"),
        ("null", "null"),
        ("file://", "file://"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_listed_page_may_connect(origin: str, entry: str) -> None:
    assert passes(origin, allowed=("https://first.example", entry))
    assert passes(origin, allowed=(entry,))


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil-example.com", "https://example.com.evil", "https://sub.example.com"),
        *("http://example.com", "wss://example.com", "https://example.com:8443", "https://example.com:80"),
        *("https://example.com.", "https://example.com/", "https://example.com:", "https://example"),
        *("https://example.com@evil.example", "https://user@example.com", "https://evil#example.com"),
        *("https://example.com evil", "https://example.com https://example.com", "https://example.com,x"),
        *("null", "", "*", "https://", "https://*", "example.com", "//example.com", "https:example.com"),
        *("https://example.com:443443", "https://example.com:0x1bb", "https://example.com\\.evil"),
        "https://ex\xe4mple.com",
    ],
)
def test_any_other_page_may_not(origin: str) -> None:
    assert not passes(origin, allowed=("https://example.com",))
    assert not passes(origin, allowed=("https://*.com", "*", "https://example.com", "example.com", ""))


def test_every_origin_of_a_request_must_be_allowed() -> None:
    allowed = ("https://a.example", "https://b.example")
    assert passes("https://a.example", "https://b.example", allowed=allowed)
    assert not passes("https://a.example", "https://c.example", allowed=allowed)
    assert not passes("https://c.example", "https://a.example", allowed=allowed)


@pytest.mark.parametrize("allowed", [None, ("*",)])
@pytest.mark.parametrize("origin", ["https://any.example", "null", "nonsense", ""])
def test_no_list_and_the_star_allow_every_page(origin: str, allowed: tuple[str, ...] | None) -> None:
    assert passes(origin, allowed=allowed)


def test_empty_list_allows_no_page() -> None:
    assert not passes("https://a.example", allowed=())
    assert not passes("null", allowed=())


@pytest.mark.parametrize("allowed", [None, ("*",), (), ("https://a.example",)])
def test_program_without_an_origin_passes(allowed: tuple[str, ...] | None) -> None:
    assert passes(allowed=allowed)


@given(
    origin=st.text("htps:/.a[]*", max_size=12),
    allowed=st.lists(st.text("htps:/.a[]*", max_size=12), max_size=3).map(tuple),
)
def test_only_listed_origins_pass(origin: str, allowed: tuple[str, ...]) -> None:
    assert passes(origin, allowed=allowed) <= (origin in allowed or allowed == ("*",))
