"""Relay addresses: valid and invalid URLs, and the requests made from them."""

from __future__ import annotations

import pytest

from seance.carrier import RelayAddress
from seance.errors import ConfigError

GOOD = [
    ("ws://localhost:8080", (False, "localhost", 8080, ""), "ws://localhost:8080/agent?room=r"),
    ("ws://localhost", (False, "localhost", 80, ""), "ws://localhost/agent?room=r"),
    ("wss://relay.example", (True, "relay.example", 443, ""), "wss://relay.example/agent?room=r"),
    ("wss://relay.example:443/", (True, "relay.example", 443, ""), "wss://relay.example/agent?room=r"),
    ("wss://relay.example:80", (True, "relay.example", 80, ""), "wss://relay.example:80/agent?room=r"),
    ("ws://relay.example:443", (False, "relay.example", 443, ""), "ws://relay.example:443/agent?room=r"),
    ("WSS://Relay.Example", (True, "relay.example", 443, ""), "wss://relay.example/agent?room=r"),
    ("ws://[::1]:8080", (False, "::1", 8080, ""), "ws://[::1]:8080/agent?room=r"),
    ("wss://[2001:db8::1]", (True, "2001:db8::1", 443, ""), "wss://[2001:db8::1]/agent?room=r"),
    ("ws://h:/", (False, "h", 80, ""), "ws://h/agent?room=r"),
    ("ws://h?", (False, "h", 80, ""), "ws://h/agent?room=r"),
    ("ws://h/base/", (False, "h", 80, "/base"), "ws://h/base/agent?room=r"),
    ("ws://h/a%20b/c~;d//", (False, "h", 80, "/a%20b/c~;d"), "ws://h/a%20b/c~;d/agent?room=r"),
    ("ws://h/ä", (False, "h", 80, "/%C3%A4"), "ws://h/%C3%A4/agent?room=r"),
    (
        "wss://bücher.example",
        (True, "xn--bcher-kva.example", 443, ""),
        "wss://xn--bcher-kva.example/agent?room=r",
    ),
]

BAD = [
    ("", "not a WebSocket address"),
    ("localhost:8080", "not a WebSocket address"),
    ("http://localhost", "not a WebSocket address"),
    ("//localhost", "not a WebSocket address"),
    ("ws:localhost", "has no host"),
    ("ws://", "has no host"),
    ("ws://:8080", "has no host"),
    ("ws://a b", "has no host"),
    ("ws://local\thost", "has no host"),
    ("ws://h\r\nX: y", "cannot be read"),
    (" ws://localhost", "has no host"),
    ("ws://h:99999", "cannot be read"),
    ("ws://h:-1", "cannot be read"),
    ("ws://h:x", "cannot be read"),
    ("ws://[::1", "cannot be read"),
    ("ws://h:0", "port 0"),
    ("ws://h/?room=r", "must not contain a user, a query or a fragment"),
    ("ws://h/#top", "must not contain a user, a query or a fragment"),
    ("ws://user@h", "must not contain a user, a query or a fragment"),
    ("ws://:secret@h", "must not contain a user, a query or a fragment"),
    ("ws://u:secret@h:x/", "'ws://h:x/' cannot be read"),
    ("http://h/?token=secret", "'http://h/' is not a WebSocket address"),
    ("ws://" + "x" * 64 + ".example", "an invalid host name"),
    ("ws://a..b", "an invalid host name"),
]


@pytest.mark.parametrize(("url", "expected", "agent_url"), GOOD)
def test_an_address_is_read(url: str, expected: tuple[bool, str, int, str], agent_url: str) -> None:
    address = RelayAddress.from_url(url)
    assert (address.is_secure, address.host, address.port, address.base_path) == expected
    assert address.agent_url("r") == agent_url


@pytest.mark.parametrize(("url", "sentence"), BAD)
def test_an_invalid_address_is_rejected_with_one_message(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        RelayAddress.from_url(url)
    assert "secret" not in str(caught.value)
    assert str(caught.value).endswith("use ws://HOST:PORT or wss://HOST.")


def test_a_room_is_quoted_where_a_url_needs_it() -> None:
    address = RelayAddress.from_url("ws://h")
    assert address.agent_url("a.b_c~d-9") == "ws://h/agent?room=a.b_c~d-9"
    assert address.agent_url("a b&c=/?#ä") == "ws://h/agent?room=a%20b%26c%3D%2F%3F%23%C3%A4"
