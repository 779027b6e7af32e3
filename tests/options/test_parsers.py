"""The parsers of option values: valid texts, and messages for invalid ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.options import parsers

GOOD: list[tuple[Callable[[str], object], str, object]] = [
    (parsers.boolean, "Yes", True),
    (parsers.boolean, "0", False),
    (parsers.seconds, "2.5", 2.5),
    (parsers.seconds, "86400", 86400.0),
    (parsers.count, "1", 1),
    (parsers.byte_count, "16384", 16384),
    (parsers.byte_count, "16KiB", 16384),
    (parsers.byte_count, "1 MiB", 1 << 20),
    (parsers.room_name, "a.b_c~d-9", "a.b_c~d-9"),
    (parsers.room_name, "x" * 128, "x" * 128),
    (parsers.relay_url, "ws://localhost:8080", "ws://localhost:8080"),
    (parsers.relay_url, "WSS://Relay.Example/", "WSS://Relay.Example"),
    (parsers.relay_url, "wss://relay.example/Base/path/", "wss://relay.example/Base/path"),
    (parsers.relay_url, "https://relay.example:444", "wss://relay.example:444"),
    (parsers.relay_url, "http://[::1]:8080", "ws://[::1]:8080"),
    (parsers.local_server, "localhost:1234", "localhost:1234"),
    (parsers.local_server, "1234", "localhost:1234"),
    (parsers.local_server, "[::1]:1234", "[::1]:1234"),
    (parsers.local_server, "unix:/run/y.sock", "unix:/run/y.sock"),
    (parsers.local_server, "tls://y.example:443", "tls://y.example:443"),
    (parsers.local_server, "tls://[::1]:443", "tls://[::1]:443"),
    (parsers.web_origin, "https://pad.example:444", "https://pad.example:444"),
    (parsers.web_origin, "http://[::1]", "http://[::1]"),
    (parsers.listen_endpoint, "8080", "8080"),
    (parsers.listen_endpoint, "0", "0"),
    (parsers.listen_endpoint, "0.0.0.0:80", "tcp:80:interface=0.0.0.0"),
    (parsers.listen_endpoint, "[::]:80", "tcp:80:interface=\\:\\:"),
    (parsers.listen_endpoint, "tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1"),
    (parsers.listen_endpoint, "unix:/run/relay.sock", "unix:/run/relay.sock"),
]

BAD: list[tuple[Callable[[str], object], str]] = [
    (parsers.boolean, "maybe"),
    (parsers.boolean, ""),
    (parsers.seconds, ""),
    (parsers.seconds, "nan"),
    (parsers.seconds, "inf"),
    (parsers.seconds, "-1"),
    (parsers.seconds, "0"),
    (parsers.seconds, "86401"),
    (parsers.seconds, "5s"),
    (parsers.count, "0"),
    (parsers.count, "-1"),
    (parsers.count, "1.5"),
    (parsers.count, "٣"),
    (parsers.count, "16777217"),
    (parsers.byte_count, "0"),
    (parsers.byte_count, "1GiB"),
    (parsers.byte_count, "64KB"),
    (parsers.byte_count, "9999MiB"),
    (parsers.room_name, ""),
    (parsers.room_name, "a b"),
    (parsers.room_name, "x" * 129),
    (parsers.room_name, "räume"),
    (parsers.room_name, "a\n"),
    (parsers.relay_url, ""),
    (parsers.relay_url, "relay.example"),
    (parsers.relay_url, "localhost:8080"),
    (parsers.relay_url, "ftp://relay.example"),
    (parsers.relay_url, "ws://"),
    (parsers.relay_url, "ws:///path"),
    (parsers.relay_url, "ws://relay.example:0"),
    (parsers.relay_url, "ws://relay.example:65536"),
    (parsers.relay_url, "ws://relay.example:port"),
    (parsers.relay_url, "ws://relay.example/?room=x"),
    (parsers.relay_url, "ws://relay.example/#x"),
    (parsers.relay_url, "ws://user:word@relay.example"),
    (parsers.relay_url, "ws://relay example"),
    (parsers.relay_url, "ws://relay.example\r\nX: y"),
    (parsers.relay_url, "ws://relay.example\\@x"),
    (parsers.relay_url, "ws://[::1"),
    (parsers.relay_url, "ws://[nonsense]"),
    (parsers.relay_url, "ws://räume.example"),
    (parsers.local_server, ""),
    (parsers.local_server, ":1234"),
    (parsers.local_server, "localhost"),
    (parsers.local_server, "localhost:"),
    (parsers.local_server, "localhost:0"),
    (parsers.local_server, "localhost:65536"),
    (parsers.local_server, "0"),
    (parsers.local_server, "::1:1234"),
    (parsers.local_server, "[localhost]:1234"),
    (parsers.local_server, "ws://localhost:1234"),
    (parsers.local_server, "user@localhost:1234"),
    (parsers.local_server, "local host:1234"),
    (parsers.local_server, "tls://localhost"),
    (parsers.local_server, "tls://localhost:443/path"),
    (parsers.local_server, "unix:"),
    (parsers.local_server, "unix:" + "x" * 108),
    (parsers.local_server, "unix:/a\0b"),
    (parsers.web_origin, "pad.example"),
    (parsers.web_origin, "https://pad.example/"),
    (parsers.web_origin, "*"),
    (parsers.listen_endpoint, ""),
    (parsers.listen_endpoint, "65536"),
    (parsers.listen_endpoint, "0.0.0.0:65536"),
    (parsers.listen_endpoint, "0.0.0.0:"),
    (parsers.listen_endpoint, "[::]:http"),
    (parsers.listen_endpoint, "::1:8080"),
    (parsers.listen_endpoint, "localhost"),
    (parsers.listen_endpoint, "tcp:port"),
    (parsers.listen_endpoint, "tcp:65536"),
    (parsers.listen_endpoint, "tcp6:port=65536"),
    (parsers.listen_endpoint, "nosuch:8080"),
    (parsers.listen_endpoint, "ssl:443:privateKey=/no/such/file"),
]


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("parse", "text", "value"), GOOD, ids=name_of)
def test_a_valid_text_is_parsed(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text"), BAD, ids=name_of)
def test_an_invalid_text_is_rejected_with_a_remedy(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"(write|use|leave out)") as raised:
        parse(text)
    assert "\n" not in str(raised.value)
    assert not str(raised.value).endswith(".")


@pytest.mark.parametrize(
    "parse", sorted({row[0] for row in BAD}, key=lambda parse: parse.__name__), ids=name_of
)
def test_any_text_is_parsed_or_rejected(parse: Callable[[str], object]) -> None:
    @given(st.text())
    def check(text: str) -> None:
        with suppress(ValueError):
            parse(text)

    check()


def test_the_message_for_a_url_does_not_show_its_password_or_query() -> None:
    with pytest.raises(ValueError, match="must not contain a user") as raised:
        parsers.relay_url("ws://user:hidden@relay.example/path?token=secret#x")
    assert "hidden" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_parsed_value_can_be_parsed_again() -> None:
    """Settings can therefore be written to a file and read again."""
    for parse, _, value in GOOD:
        if isinstance(value, str):
            assert parse(value) == value
