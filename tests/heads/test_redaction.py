"""Tests of masking secrets in text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.heads import MASK, redact
from tests.heads.samples import read, upgrade
from tests.heads.tokens import APP, OURS, OURS_BY_AUDIENCE, jwt_of

CANARY = OURS.decode()
ODD = jwt_of(b' {"alg":"EdDSA"}', b"\t{}" * 9)
CANARIES = [token.decode() for token in (OURS, OURS_BY_AUDIENCE, APP, ODD)]
"""The last one does not begin with ``eyJ``, but a verifier would accept such a header."""


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("the token {} is wrong", "the token *** is wrong"),
        ("'{}'", "'***'"),
        ("token\u2192{}.", "token\u2192***"),
        ("x{}", "***"),
        ("{} {}", "*** ***"),
        ("eyJhbGciOiJFZERTQSJ9.eyJh... cut off", "*** cut off"),
        ("access_token={}&x=1", "access_token=***&x=1"),
        ("access_token=opaque&x=1", "access_token=***&x=1"),
        ("{b'access_token': [b'opaque'], b'x': [b'1']}", "{b'access_token': [b'***'], b'x': [b'1']}"),
        ("[(b'access_token', b'opaque')]", "[(b'access_token', b'***')]"),
        ('{"access_token":"opaque","x":1}', '{"access_token":"***","x":1}'),
        ("Sec-WebSocket-Protocol: seance.v1, seance.token.opaque, yjs",
         "Sec-WebSocket-Protocol: seance.v1, seance.token.***, yjs"),
        ("[b'Seance.Token.opaque']", "[b'Seance.Token.***']"),
        ("Authorization: Bearer opaque\r\nHost: a", "Authorization: ***\r\nHost: a"),
        ("authorization:Basic eDp5; more", "authorization:***"),
        ("Proxy-Authorization = 'x' y", "Proxy-Authorization = ***"),
        ("Cookie: a=b; c=d\nHost: a", "Cookie: ***\nHost: a"),
        ("((b'Authorization', b'Basic eDp5'), (b'A', b'b'))", "((b'Authorization', b'***'), (b'A', b'b'))"),
        ("{'authorization': 'it\\'s', 'host': 'a'}", "{'authorization': '***', 'host': 'a'}"),
        ('{"authorization":"Digest a=\\"b\\"","host":"a"}', '{"authorization":"***","host":"a"}'),
        ("{b'authorization': [b'x', b'y']}", "{b'authorization': ***"),
        ('"{\\"authorization\\":\\"x\\"}"', '"{\\"authorization\\":***'),
        ("GET /client?room=ID&x=1 HTTP/1.1", "GET /client?*** HTTP/1.1"),
        ("see ws://relay.example/c/ID?x=1, please", "see ws://relay.example/c/ID?***, please"),
        ("b'/client?room=ID', b'x'", "b'/client?***', b'x'"),
        ('<a href="/c/ID?x=1">ID</a>', '<a href="/c/ID?***">ID</a>'),
        ("?x=1/doc?y=2#z", "?***"),
    ],
)  # fmt: skip
def test_secret_is_masked(text: str, redacted: str) -> None:
    assert redact(text.replace("{}", CANARY)) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "🔌 Tunnel Relay Server starting on port 8080",
        "Is the local server running? Try again!? (Really?)",
        "seance.heads.credentials, www.relay.example.com, 127.0.0.1, [::1]:8080, 1.2.3",
        "keyJournal.of.keys and eyJ.short.one",
        "authorization is needed: send a token; the cookie, too",
        "Authorization: \nHost: a",
        "access_token=&x and seance.token. hold nothing",
        'File "/srv/seance/tunnel/front.py", line 7, in dataReceived\n    re.compile(r"(?:a|b)")',
        "1700000000000.1700000000000.1700000000000",
        "A client left after 3.2 s: 10 bytes from it, 20 to it (ended)",
    ],
)
def test_harmless_text_is_not_changed(text: str) -> None:
    assert redact(text) == text


def test_traceback_shows_no_token_of_a_request() -> None:
    request = read(
        upgrade(
            b"Authorization: Bearer opaque-bearer",
            b"Sec-WebSocket-Protocol: seance.v1, seance.token.opaque-item",
            b"Cookie: id=opaque-cookie",
            start=b"GET /c/ID?access_token=opaque-parameter&x=opaque-value HTTP/1.1",
        )
    )
    for text in (repr(request), repr(dict(request.headers)), json.dumps(repr(request)), str([repr(request)])):
        assert "opaque" in text
        assert "opaque" not in redact(text)
    assert "websocket" in redact(repr(request)).lower()


BITS = st.lists(
    st.sampled_from(
        [
            *("access_token", "seance.token.", "Authorization", "cookie", "Bearer ", "eyJ", "b", MASK),
            *("eyJhbGciOiJFZERTQSJ9", "a" * 16, "q" * 32, ": ", "=", ", ", "'", '"', "\\", "?" + MASK),
            *("\n", "\r\n", " ", "\t", "?", "&", ".", "%2E", "/", *"([)]<>*", "\u2028", "\udc80"),
        ]
    )
    | st.text(max_size=3),
    max_size=10,
).map("".join)  # fmt: skip


@given(before=BITS, canary=st.sampled_from(CANARIES), after=BITS)
def test_no_token_survives_anywhere(before: str, canary: str, after: str) -> None:
    redacted = redact(before + canary + after)
    assert canary not in redacted
    assert canary.rpartition(".")[2] not in redacted


@given(text=BITS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(
    name=st.sampled_from(["Authorization: ", "cookie:", "Set-Cookie: ", "x authorization ="]),
    value=st.text(st.characters(exclude_characters="\r\n"), max_size=20),
)
def test_rest_of_a_line_after_authorization_is_masked(name: str, value: str) -> None:
    before, line, after = redact(f"a\n{name}{value}SECRET\nb").split("\n")
    assert (before, after) == ("a", "b")
    assert line.startswith(name)
    assert line[len(name) :].strip() == MASK


@given(
    path=st.text("ab/.%-:", max_size=8),
    names=st.lists(st.text("xyz=%+/?;:@!$'()*,~-._", min_size=1, max_size=8), min_size=1, max_size=4),
)
def test_no_value_of_a_query_survives(path: str, names: list[str]) -> None:
    query = "&".join(f"{name}=SECRET" for name in names)
    assert redact(f"GET /{path}?{query} HTTP/1.1") == f"GET /{path}?{MASK} HTTP/1.1"


@pytest.mark.parametrize(
    "bit",
    [
        *("eyJ", "eyJ%", "a" * 16 + ".", "a" * 40 + ".", "a", "?", "a?", "?'", "? ", "?)", "\\", " ", "'"),
        *("authorization", "authorization ", "authorization\\", "authorization'", "authorization:'\n"),
        *("authorization':'\\", "cookie\\\\", "access_token", "access_token=", "access_token=\\"),
        *("seance.token. ", '"', "seance.token."),
    ],
)
@pytest.mark.timeout(15)
def test_hostile_text_takes_linear_time(bit: str) -> None:
    """Takes a tenth of a second in linear time, and a minute with backtracking."""
    starts = ("", "authorization", "authorization':'", "access_token", "?", "eyJ")
    redacted = redact("\n".join(start + bit * (100_000 // len(bit)) for start in starts))
    assert redact(redacted) == redacted
