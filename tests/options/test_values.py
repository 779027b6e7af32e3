"""What a person may write for each kind of option, and what is said when it will not do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.options import values

GOOD: list[tuple[Callable[[str], object], str, object]] = [
    (values.truth, "Yes", True),
    (values.truth, "0", False),
    (values.seconds, "2.5", 2.5),
    (values.seconds, "86400", 86400.0),
    (values.count, "1", 1),
    (values.byte_count, "16384", 16384),
    (values.byte_count, "16KiB", 16384),
    (values.byte_count, "1 MiB", 1 << 20),
    (values.room_name, "a.b_c~d-9", "a.b_c~d-9"),
    (values.room_name, "x" * 128, "x" * 128),
    (values.relay_url, "ws://localhost:8080", "ws://localhost:8080"),
    (values.relay_url, "WSS://Relay.Example/", "WSS://Relay.Example"),
    (values.relay_url, "wss://relay.example/Base/path/", "wss://relay.example/Base/path"),
    (values.relay_url, "https://relay.example:444", "wss://relay.example:444"),
    (values.relay_url, "http://[::1]:8080", "ws://[::1]:8080"),
    (values.local_server, "localhost:1234", "localhost:1234"),
    (values.local_server, "1234", "localhost:1234"),
    (values.local_server, "[::1]:1234", "[::1]:1234"),
    (values.local_server, "unix:/run/y.sock", "unix:/run/y.sock"),
    (values.local_server, "tls://y.example:443", "tls://y.example:443"),
    (values.local_server, "tls://[::1]:443", "tls://[::1]:443"),
    (values.web_origin, "https://pad.example:444", "https://pad.example:444"),
    (values.web_origin, "http://[::1]", "http://[::1]"),
    (values.listen_endpoint, "8080", "8080"),
    (values.listen_endpoint, "0", "0"),
    (values.listen_endpoint, "0.0.0.0:80", "tcp:80:interface=0.0.0.0"),
    (values.listen_endpoint, "[::]:80", "tcp:80:interface=\\:\\:"),
    (values.listen_endpoint, "tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1"),
    (values.listen_endpoint, "unix:/run/relay.sock", "unix:/run/relay.sock"),
]

BAD: list[tuple[Callable[[str], object], str]] = [
    (values.truth, "maybe"),
    (values.truth, ""),
    (values.seconds, ""),
    (values.seconds, "nan"),
    (values.seconds, "inf"),
    (values.seconds, "-1"),
    (values.seconds, "0"),
    (values.seconds, "86401"),
    (values.seconds, "5s"),
    (values.count, "0"),
    (values.count, "-1"),
    (values.count, "1.5"),
    (values.count, "٣"),
    (values.count, "16777217"),
    (values.byte_count, "0"),
    (values.byte_count, "1GiB"),
    (values.byte_count, "64KB"),
    (values.byte_count, "9999MiB"),
    (values.room_name, ""),
    (values.room_name, "a b"),
    (values.room_name, "x" * 129),
    (values.room_name, "räume"),
    (values.room_name, "a\n"),
    (values.relay_url, ""),
    (values.relay_url, "relay.example"),
    (values.relay_url, "localhost:8080"),
    (values.relay_url, "ftp://relay.example"),
    (values.relay_url, "ws://"),
    (values.relay_url, "ws:///path"),
    (values.relay_url, "ws://relay.example:0"),
    (values.relay_url, "ws://relay.example:65536"),
    (values.relay_url, "ws://relay.example:port"),
    (values.relay_url, "ws://relay.example/?room=x"),
    (values.relay_url, "ws://relay.example/#x"),
    (values.relay_url, "ws://user:word@relay.example"),
    (values.relay_url, "ws://relay example"),
    (values.relay_url, "ws://relay.example\r\nX: y"),
    (values.relay_url, "ws://relay.example\\@x"),
    (values.relay_url, "ws://[::1"),
    (values.relay_url, "ws://[nonsense]"),
    (values.relay_url, "ws://räume.example"),
    (values.local_server, ""),
    (values.local_server, ":1234"),
    (values.local_server, "localhost"),
    (values.local_server, "localhost:"),
    (values.local_server, "localhost:0"),
    (values.local_server, "localhost:65536"),
    (values.local_server, "0"),
    (values.local_server, "::1:1234"),
    (values.local_server, "[localhost]:1234"),
    (values.local_server, "ws://localhost:1234"),
    (values.local_server, "user@localhost:1234"),
    (values.local_server, "local host:1234"),
    (values.local_server, "tls://localhost"),
    (values.local_server, "tls://localhost:443/path"),
    (values.local_server, "unix:"),
    (values.local_server, "unix:" + "x" * 108),
    (values.local_server, "unix:/a\0b"),
    (values.web_origin, "pad.example"),
    (values.web_origin, "https://pad.example/"),
    (values.web_origin, "*"),
    (values.listen_endpoint, ""),
    (values.listen_endpoint, "65536"),
    (values.listen_endpoint, "0.0.0.0:65536"),
    (values.listen_endpoint, "0.0.0.0:"),
    (values.listen_endpoint, "[::]:http"),
    (values.listen_endpoint, "::1:8080"),
    (values.listen_endpoint, "localhost"),
    (values.listen_endpoint, "tcp:port"),
    (values.listen_endpoint, "tcp:65536"),
    (values.listen_endpoint, "tcp6:port=65536"),
    (values.listen_endpoint, "nosuch:8080"),
    (values.listen_endpoint, "ssl:443:privateKey=/no/such/file"),
]


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("parse", "text", "value"), GOOD, ids=name_of)
def test_what_a_person_may_write(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text"), BAD, ids=name_of)
def test_what_will_not_do_is_refused_in_half_a_sentence(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"(write|use|go from|leave out)") as refused:
        parse(text)
    assert "\n" not in str(refused.value)
    assert not str(refused.value).endswith(".")


@pytest.mark.parametrize(
    "parse", sorted({row[0] for row in BAD}, key=lambda parse: parse.__name__), ids=name_of
)
def test_any_text_is_taken_or_refused(parse: Callable[[str], object]) -> None:
    @given(st.text())
    def check(text: str) -> None:
        with suppress(ValueError):
            parse(text)

    check()


def test_a_refused_url_does_not_show_its_password_or_query() -> None:
    with pytest.raises(ValueError, match="holds more") as refused:
        values.relay_url("ws://user:hidden@relay.example/path?token=secret#x")
    assert "hidden" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_normal_form_is_taken_as_it_is() -> None:
    """What comes out goes in again, so that settings can be written down and read back."""
    for parse, _, value in GOOD:
        if isinstance(value, str):
            assert parse(value) == value
