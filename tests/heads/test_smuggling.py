"""Known attacks on proxies, as raw bytes through the whole way of a request and of its answer.

The numbers are those of the project's threat table. What counts is
always the same: either the relay refuses and closes, or the local server sees exactly one request,
without a body, that says what the relay meant. Two other parsers say what it sees.
"""

from __future__ import annotations

import http.client
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import h11
import pytest

from seance.errors import Refusal
from seance.heads import (
    LocalResponse,
    RequestReader,
    check_upgrade,
    refusal_response,
    request_for_local,
    resolve_target,
)
from tests.heads.samples import ACCEPT, FORWARDED, KEY, SWITCHING, Client, fields_of, head, outcome, upgrade
from tests.tools import require

INNER = b"GET /admin HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"0\r\n\r\n" + INNER


def relay(raw: bytes) -> tuple[bytes, bytes]:
    """Return the head for the stream, and what is held back until the 101."""
    reader = RequestReader()
    request = reader.receive(raw)
    assert request is not None
    route = resolve_target(request.target)
    check_upgrade(request)
    return request_for_local(request, route.local, FORWARDED), reader.trailing


BODIES = {
    "A14 CL": upgrade(b"Content-Length: 40") + INNER,
    "A14 CL 0 and CL": upgrade(b"Content-Length: 0", b"Content-Length: 40") + INNER,
    "A14 CL list": upgrade(b"Content-Length: 40, 40") + INNER,
    "A14 CL list that differs": upgrade(b"Content-Length: 0, 40") + INNER,
    "A14 CL plus": upgrade(b"Content-Length: +40") + INNER,
    "A14 CL minus": upgrade(b"Content-Length: -0") + INNER,
    "A14 CL hex": upgrade(b"Content-Length: 0x0") + INNER,
    "A14 CL float": upgrade(b"Content-Length: 0.0") + INNER,
    "A14 CL exponent": upgrade(b"Content-Length: 0e1") + INNER,
    "A14 CL space": upgrade(b"Content-Length: 4 0") + INNER,
    "A14 CL empty": upgrade(b"Content-Length:") + INNER,
    "A14 CL huge": upgrade(b"Content-Length: " + b"9" * 30) + INNER,
    "A14 CL overflow": upgrade(b"Content-Length: 18446744073709551616") + INNER,
    "A14 CL octal": upgrade(b"Content-Length: 00") + INNER,
    "A14 CL not ascii": upgrade(b"Content-Length: \xd9\xa0") + INNER,
    "A14 CL space before colon": upgrade(b"Content-Length : 40") + INNER,
    "A14 CL folded": upgrade(b"Content-Length:", b" 40") + INNER,
    "A14 CL after NUL": upgrade(b"Content-Length: 0\x0040") + INNER,
    "A14 TE": upgrade(b"Transfer-Encoding: chunked") + CHUNKED,
    "A14 CL.TE": upgrade(b"Content-Length: 6", b"Transfer-Encoding: chunked") + CHUNKED,
    "A14 TE.CL": upgrade(b"Transfer-Encoding: chunked", b"Content-Length: 4") + CHUNKED,
    "A14 TE.TE": upgrade(b"Transfer-Encoding: chunked", b"Transfer-encoding: x") + CHUNKED,
    "A14 TE identity": upgrade(b"Transfer-Encoding: identity") + CHUNKED,
    "A14 TE xchunked": upgrade(b"Transfer-Encoding: xchunked") + CHUNKED,
    "A14 TE list": upgrade(b"Transfer-Encoding: chunked, identity") + CHUNKED,
    "A14 TE quoted": upgrade(b'Transfer-Encoding: "chunked"') + CHUNKED,
    "A14 TE case": upgrade(b"tRANSFER-eNCODING: cHUNKED") + CHUNKED,
    "A14 TE tab": upgrade(b"Transfer-Encoding:\tchunked") + CHUNKED,
    "A14 TE vertical tab": upgrade(b"Transfer-Encoding: \x0bchunked") + CHUNKED,
    "A14 TE space before colon": upgrade(b"Transfer-Encoding : chunked") + CHUNKED,
    "A14 TE tab before colon": upgrade(b"Transfer-Encoding\t: chunked") + CHUNKED,
    "A14 TE space before name": upgrade(b"A: b", b" Transfer-Encoding: chunked") + CHUNKED,
    "A14 TE behind bare LF": upgrade(b"A: b\nTransfer-Encoding: chunked") + CHUNKED,
    "A14 TE behind bare CR": upgrade(b"A: b\rTransfer-Encoding: chunked") + CHUNKED,
    "A14 TE folded": upgrade(b"Transfer-Encoding:", b" chunked") + CHUNKED,
    "A14 TE empty": upgrade(b"Transfer-Encoding:") + CHUNKED,
    "A14 TE extension": upgrade(b"Transfer-Encoding: chunked;x=y") + CHUNKED,
}

OTHERS = {
    "A11 version 7": upgrade().replace(b"Version: 13", b"Version: 7"),
    "A11 version 777": upgrade().replace(b"Version: 13", b"Version: 777"),
    "A11 no version": upgrade().replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "A11 two versions": upgrade(b"Sec-WebSocket-Version: 7"),
    "A11 version list": upgrade().replace(b"Version: 13", b"Version: 13, 7"),
    "A11 two keys": upgrade(b"Sec-WebSocket-Key: " + KEY),
    "A13 h2c": upgrade().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "A13 h2c and websocket": upgrade().replace(b"Upgrade: websocket", b"Upgrade: h2c,websocket"),
    "A13 websocket and h2c": upgrade(b"Upgrade: h2c"),
    "A13 TLS": upgrade().replace(b"Upgrade: websocket", b"Upgrade: TLS/1.3"),
    "A13 prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "A13 no connection token": upgrade().replace(b"Connection: Upgrade", b"Connection: keep-alive"),
    "A15 CR LF in the room": upgrade(start=b"GET /client?room=a\r\nX-Evil: 1 HTTP/1.1"),
    "A15 CR LF escaped in the room": upgrade(start=b"GET /client?room=a%0d%0aX-Evil:1 HTTP/1.1"),
    "A15 huge room": upgrade(start=b"GET /client?room=" + b"a" * 9000 + b" HTTP/1.1"),
    "A15 two hosts": upgrade(b"Host: localhost"),
    "A15 no host": upgrade().replace(b"Host: relay.example\r\n", b""),
    "A15 host with a path": upgrade().replace(b"relay.example", b"relay.example/admin"),
    "A15 absolute form with a user": upgrade(start=b"GET http://u@localhost/client?room=a HTTP/1.1"),
    "A15 absolute form with two hosts": upgrade(start=b"GET http://a:80@b/client?room=a HTTP/1.1"),
    "A15 absolute form without a host": upgrade(start=b"GET http:///client?room=a HTTP/1.1"),
    "A15 absolute form of another scheme": upgrade(start=b"GET file://a/client?room=a HTTP/1.1"),
    "A15 absolute form with a backslash": upgrade(start=b"GET http://a\\@b/client?room=a HTTP/1.1"),
    "A15 absolute form and two hosts": upgrade(b"Host: b", start=b"GET http://a/client?room=a HTTP/1.1"),
    "A15 absolute form and no host": upgrade(start=b"GET http://a/client?room=a HTTP/1.1").replace(
        b"Host: relay.example\r\n", b""
    ),
    "A15 absolute form and a bad host": upgrade(start=b"GET http://a/client?room=a HTTP/1.1").replace(
        b"Host: relay.example", b"Host: relay.example/x"
    ),
    "A15 absolute form in a room": upgrade(start=b"GET http://a/c/http://b/x HTTP/1.1"),
    "A15 authority form": upgrade(start=b"CONNECT localhost:1234 HTTP/1.1"),
    "A15 asterisk form": upgrade(start=b"OPTIONS * HTTP/1.1"),
    "A15 not ascii": upgrade(start=b"GET /client?room=\xff HTTP/1.1"),
    "A15 HTTP/0.9": b"GET /client?room=a\r\n\r\n",
    "A15 HTTP/1.0": upgrade(start=b"GET /client?room=a HTTP/1.0"),
    "A15 space in the target": upgrade(start=b"GET /client?room=a /admin HTTP/1.1"),
    "A15 tab in the target": upgrade(start=b"GET /client?room=a\t/admin HTTP/1.1"),
    "A21 dots for a room": upgrade(start=b"GET /client?room=../../ HTTP/1.1"),
    "A21 escaped slash in a room": upgrade(start=b"GET /client?room=..%2f..%2f HTTP/1.1"),
    "method in another case": upgrade(start=b"get /client?room=a HTTP/1.1"),
    "override by a post": upgrade(b"X-HTTP-Method-Override: GET", start=b"POST /client?room=a HTTP/1.1"),
}


@pytest.mark.parametrize("raw", [*BODIES.values(), *OTHERS.values()], ids=[*BODIES, *OTHERS])
def test_attack_is_refused_and_the_connection_closed(raw: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        relay(raw)
    client = Client(refusal_response(caught.value), is_ended=False)
    assert client.status == caught.value.status
    assert client.is_whole
    assert b"close" in [value for name, value in client.fields if name == b"connection"]
    assert b"evil" not in refusal_response(caught.value).lower()


PASSING = {
    "A10 request behind the upgrade": upgrade() + INNER,
    "A14 CL 0": upgrade(b"Content-Length: 0") + INNER,
    "A14 CL 0 twice": upgrade(b"Content-Length: 0", b"content-length: 0") + INNER,
    "A14 expectation": upgrade(b"Expect: 100-continue") + INNER,
    "A14 underscored": upgrade(b"Content_Length: 40", b"Transfer_Encoding: chunked") + INNER,
    "A16 names the fields of a proxy": upgrade(
        b"Connection: X-Forwarded-For, X-Forwarded-User, X-Forwarded-Host", b"X-Forwarded-User: evil"
    ),
    "A16 names its own": upgrade(b"Connection: x-evil", b"X-Evil: 1"),
    "A16 names the handshake": upgrade(
        b"Connection: host, sec-websocket-key, sec-websocket-version, upgrade"
    ),
    "A15 absolute form": upgrade(start=b"GET http://localhost/client?room=a HTTP/1.1"),
    "A15 absolute form of another host": upgrade(start=b"GET ws://other.example/c/a/x HTTP/1.1").replace(
        b"Host: relay.example", b"Host: evil.example"
    ),
    "A16 close": upgrade(b"Connection: close, keep-alive", b"Keep-Alive: evil"),
    "A18 spoofed": upgrade(b"X-Forwarded-For: evil", b"Forwarded: for=evil", b"X-Real-IP: evil"),
    "A18 spoofed with underscores": upgrade(b"X_Forwarded_For: evil", b"X_Real_IP: evil"),
    "A18 for relays only": upgrade(b"Seance-Fwd: v1; from=evil"),
    "A13 settings": upgrade(b"HTTP2-Settings: evil"),
    "httpoxy": upgrade(b"Proxy: http://evil"),
    "values of any byte": upgrade(b"X-Any: " + bytes(range(0x80, 0x100)), b"X-Colon: a: b: c"),
    "target of any sign": upgrade(start=b"GET /c/a/" + bytes(range(0x24, 0x7F)) + b" HTTP/1.1"),
}


@pytest.mark.parametrize("raw", PASSING.values(), ids=PASSING)
def test_what_passes_is_one_request_that_says_what_we_meant(raw: bytes) -> None:
    written, held_back = relay(raw)
    assert raw.endswith(held_back)
    assert b"evil" not in written.lower()
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(written)
    assert isinstance(connection.next_event(), h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    stream = io.BytesIO(written.partition(b"\r\n")[2])
    assert len(http.client.parse_headers(stream)) == len(fields_of(written))
    assert stream.read() == b""


def test_node_reads_what_we_meant() -> None:
    """The servers people run are written in Node; its parser is the one to agree with."""
    require("node")
    heads = [relay(raw)[0] for raw in PASSING.values()]
    script = Path(__file__).with_name("parsers.js")
    asked = json.dumps([(written + b"glued").decode("latin-1") for written in heads])
    run = subprocess.run(
        ["node", str(script)], input=asked, capture_output=True, encoding="utf-8", check=True, timeout=60
    )
    results: list[list[dict[str, Any]]] = json.loads(run.stdout)
    assert len(results) == len(heads)
    for written, requests in zip(heads, results, strict=True):
        flat = [text.decode("latin-1") for field in fields_of(written) for text in field]
        method, target, _ = written.split(b" ", 2)
        assert requests == [
            {"method": method.decode(), "url": target.decode(), "headers": flat, "rest": "glued"}
        ]


@pytest.mark.parametrize(
    "refusing",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nSec-WebSocket-Version: 8\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ],
)
def test_local_server_that_refuses_never_opens_the_way(refusing: bytes) -> None:
    """A10: its answer to a request smuggled behind the upgrade goes nowhere either."""
    answer = LocalResponse(KEY)
    passed = answer.receive(refusing + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret" + SWITCHING)
    assert answer.is_finished
    assert not answer.is_switched
    assert b"secret" not in passed
    assert b"close" in [value for name, value in Client(passed).fields if name == b"connection"]


@pytest.mark.parametrize(
    "forged",
    [
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        SWITCHING.replace(ACCEPT, b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        SWITCHING.replace(ACCEPT, ACCEPT + b"x"),
        SWITCHING.replace(b"101", b"100"),
        SWITCHING.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCHING.replace(b"\r\n", b"\n"),
    ],
)
def test_forged_101_never_opens_the_way(forged: bytes) -> None:
    """A12: a 101 that somebody talked the local server into does not fit the key."""
    answer = LocalResponse(KEY)
    assert outcome(lambda: answer.receive(forged + b"secret")) in (
        b"",
        outcome(lambda: LocalResponse(KEY).receive(b"\x00")),
        outcome(lambda: LocalResponse(KEY).receive(SWITCHING.replace(ACCEPT, b""))),
    )
    assert not answer.is_switched


def test_answer_cannot_write_into_the_clients_head() -> None:
    """A22: what the agent puts into its fields stays in its fields."""
    for evil in (b"a\r\n b", b"a\nSet-Cookie: x=y", b"a\rSet-Cookie: x=y", b"a\x00", b"a\x0b"):
        with pytest.raises(Refusal):
            LocalResponse(KEY).receive(b"HTTP/1.1 200 OK\r\nX-A: " + evil + b"\r\n\r\n")


def test_plain_head_of_these_tests_is_sound() -> None:
    """Otherwise every refusal above would prove nothing."""
    assert relay(upgrade())[0].startswith(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    with pytest.raises(Refusal, match="speaks WebSocket"):
        relay(head())
