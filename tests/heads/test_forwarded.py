"""Tests of the notations in which proxies write a client's address and scheme."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.heads import Request, forwarded_entries, forwarded_proto, read_address

READ = {
    "203.0.113.7": "203.0.113.7",
    " 203.0.113.7\t": "203.0.113.7",
    "203.0.113.7:5678": "203.0.113.7",
    "203.0.113.7:_hidden": "203.0.113.7",
    '"203.0.113.7"': "203.0.113.7",
    '"203.0.113.7:47011"': "203.0.113.7",
    "2001:db8::1": "2001:db8::1",
    "2001:DB8:0:0::1": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:db8::1]:443": "2001:db8::1",
    '"[2001:db8:cafe::17]:4711"': "2001:db8:cafe::17",
    '"[2001:db8::1]"': "2001:db8::1",
    '"2001:db8::1"': "2001:db8::1",
    "fe80::1%eth0": "fe80::1",
    "fe80::1%25eth0": "fe80::1",
    "[fe80::1%eth0]:80": "fe80::1",
    "[fe80::1%25en0]": "fe80::1",
    "::ffff:203.0.113.7": "203.0.113.7",
    "::FFFF:cb00:7107": "203.0.113.7",
    "[::ffff:203.0.113.7]:443": "203.0.113.7",
    "::1": "::1",
    "[::1]:1": "::1",
    "127.0.0.1:80": "127.0.0.1",
}

NOT_READ = [
    "",
    " ",
    '"',
    '""',
    "unknown",
    "_hidden",
    "unix:",
    "-",
    "relay.example",
    "relay.example:80",
    "203.0.113",
    "203.0.113.256",
    "203.0.113.07",
    "203.0.113.7:",
    "203.0.113.7:123456",
    "203.0.113.7:80:80",
    "203.0.113.7 80",
    "203.0.113.7%eth0",
    "[203.0.113.7]:80",
    "[2001:db8::1",
    "2001:db8::1]",
    "[2001:db8::1]443",
    "[2001:db8::1]:",
    "[]:80",
    "[[::1]]",
    '"203.0.113.7',
    "for=203.0.113.7",
    "203.0.113.7;proto=https",
    "1",
    "0x7f000001",
    "\u0661.2.3.4",
]


@pytest.mark.parametrize(("entry", "address"), READ.items())
def test_address_is_read_in_every_notation(entry: str, address: str) -> None:
    assert read_address(entry) == address
    assert read_address(address) == address


@pytest.mark.parametrize("entry", NOT_READ)
def test_text_without_an_address_is_none(entry: str) -> None:
    assert read_address(entry) is None


@given(st.ip_addresses(), st.integers(0, 65535))
def test_address_is_the_same_bare_with_a_port_and_in_quotes(address: object, port: int) -> None:
    text = str(address)
    bracketed = f"[{text}]" if ":" in text else text
    read = read_address(text)
    assert read is not None
    assert {read_address(one) for one in (f"{bracketed}:{port}", f'"{bracketed}:{port}"', f'"{text}"')} == {
        read
    }


@given(st.text(max_size=60))
def test_arbitrary_text_raises_nothing(text: str) -> None:
    read_address(text)


def sent_with(name: bytes, *values: bytes) -> Request:
    return Request(b"GET", b"/", tuple((name, value) for value in values))


@pytest.mark.parametrize(
    ("values", "entries"),
    [
        ((), []),
        ((b"",), []),
        ((b" , ,",), []),
        ((b"a",), ["a"]),
        ((b", a", b"b ,", b"", b"c,d"), ["a", "b", "c", "d"]),
    ],
)
def test_entries_of_several_fields_are_one_list_without_empty_ones(
    values: tuple[bytes, ...], entries: list[str]
) -> None:
    assert forwarded_entries(sent_with(b"X-Forwarded-For", *values)) == entries


@pytest.mark.parametrize(
    ("values", "proto"),
    [
        ((), None),
        ((b"https",), "https"),
        ((b"HTTPS",), "https"),
        ((b"wss",), "https"),
        ((b"ws",), "http"),
        ((b"http, https",), "https"),
        ((b"https", b"http"), "http"),
        ((b"https,",), "https"),
        ((b"ftp",), None),
        ((b"https, ftp",), None),
        ((b"",), None),
    ],
)
def test_scheme_is_the_last_element(values: tuple[bytes, ...], proto: str | None) -> None:
    assert forwarded_proto(sent_with(b"X-Forwarded-Proto", *values)) == proto
