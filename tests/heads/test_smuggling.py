"""Known attacks on proxies, as raw bytes through all steps of a request and of its response.

The requirement is the same for each: either the relay refuses the request and closes the connection, or the
local server sees exactly one request without a body, with the relay's meaning. Two other parsers verify this.
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
    """Return the head for the stream, and the bytes that are buffered until the 101."""
    reader = RequestReader()
    request = reader.receive(raw)
    assert request is not None
    route = resolve_target(request.target)
    check_upgrade(request)
    return request_for_local(request, route.local, FORWARDED), reader.trailing


BODIES = {
    "body: CL": upgrade(b"Content-Length: 40") + INNER,
    "body: CL 0 and CL": upgrade(b"Content-Length: 0", b"Content-Length: 40") + INNER,
    "body: CL list": upgrade(b"Content-Length: 40, 40") + INNER,
    "body: CL list that differs": upgrade(b"Content-Length: 0, 40") + INNER,
    "body: CL plus": upgrade(b"Content-Length: +40") + INNER,
    "body: CL minus": upgrade(b"Content-Length: -0") + INNER,
    "body: CL hex": upgrade(b"Content-Length: 0x0") + INNER,
    "body: CL float": upgrade(b"Content-Length: 0.0") + INNER,
    "body: CL exponent": upgrade(b"Content-Length: 0e1") + INNER,
    "body: CL space": upgrade(b"Content-Length: 4 0") + INNER,
    "body: CL empty": upgrade(b"Content-Length:") + INNER,
    "body: CL huge": upgrade(b"Content-Length: " + b"9" * 30) + INNER,
    "body: CL overflow": upgrade(b"Content-Length: 18446744073709551616") + INNER,
    "body: CL octal": upgrade(b"Content-Length: 00") + INNER,
    "body: CL not ascii": upgrade(b"Content-Length: \xd9\xa0") + INNER,
    "body: CL space before colon": upgrade(b"Content-Length : 40") + INNER,
    "body: CL folded": upgrade(b"Content-Length:", b" 40") + INNER,
    "body: CL after NUL": upgrade(b"Content-Length: 0\x0040") + INNER,
    "body: TE": upgrade(b"Transfer-Encoding: chunked") + CHUNKED,
    "body: CL.TE": upgrade(b"Content-Length: 6", b"Transfer-Encoding: chunked") + CHUNKED,
    "body: TE.CL": upgrade(b"Transfer-Encoding: chunked", b"Content-Length: 4") + CHUNKED,
    "body: TE.TE": upgrade(b"Transfer-Encoding: chunked", b"Transfer-encoding: x") + CHUNKED,
    "body: TE identity": upgrade(b"Transfer-Encoding: identity") + CHUNKED,
    "body: TE xchunked": upgrade(b"Transfer-Encoding: xchunked") + CHUNKED,
    "body: TE list": upgrade(b"Transfer-Encoding: chunked, identity") + CHUNKED,
    "body: TE quoted": upgrade(b'Transfer-Encoding: "chunked"') + CHUNKED,
    "body: TE case": upgrade(b"tRANSFER-eNCODING: cHUNKED") + CHUNKED,
    "body: TE tab": upgrade(b"Transfer-Encoding:\tchunked") + CHUNKED,
    "body: TE vertical tab": upgrade(b"Transfer-Encoding: \x0bchunked") + CHUNKED,
    "body: TE space before colon": upgrade(b"Transfer-Encoding : chunked") + CHUNKED,
    "body: TE tab before colon": upgrade(b"Transfer-Encoding\t: chunked") + CHUNKED,
    "body: TE space before name": upgrade(b"A: b", b" Transfer-Encoding: chunked") + CHUNKED,
    "body: TE behind bare LF": upgrade(b"A: b\nTransfer-Encoding: chunked") + CHUNKED,
    "body: TE behind bare CR": upgrade(b"A: b\rTransfer-Encoding: chunked") + CHUNKED,
    "body: TE folded": upgrade(b"Transfer-Encoding:", b" chunked") + CHUNKED,
    "body: TE empty": upgrade(b"Transfer-Encoding:") + CHUNKED,
    "body: TE extension": upgrade(b"Transfer-Encoding: chunked;x=y") + CHUNKED,
}

OTHERS = {
    "handshake: version 7": upgrade().replace(b"Version: 13", b"Version: 7"),
    "handshake: version 777": upgrade().replace(b"Version: 13", b"Version: 777"),
    "handshake: no version": upgrade().replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "handshake: two versions": upgrade(b"Sec-WebSocket-Version: 7"),
    "handshake: version list": upgrade().replace(b"Version: 13", b"Version: 13, 7"),
    "handshake: two keys": upgrade(b"Sec-WebSocket-Key: " + KEY),
    "protocol: h2c": upgrade().replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "protocol: h2c and websocket": upgrade().replace(b"Upgrade: websocket", b"Upgrade: h2c,websocket"),
    "protocol: websocket and h2c": upgrade(b"Upgrade: h2c"),
    "protocol: TLS": upgrade().replace(b"Upgrade: websocket", b"Upgrade: TLS/1.3"),
    "protocol: prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "protocol: no connection token": upgrade().replace(b"Connection: Upgrade", b"Connection: keep-alive"),
    "target: CR LF in the room": upgrade(start=b"GET /client?room=a\r\nX-Evil: 1 HTTP/1.1"),
    "target: CR LF escaped in the room": upgrade(start=b"GET /client?room=a%0d%0aX-Evil:1 HTTP/1.1"),
    "target: huge room": upgrade(start=b"GET /client?room=" + b"a" * 9000 + b" HTTP/1.1"),
    "target: two hosts": upgrade(b"Host: localhost"),
    "target: no host": upgrade().replace(b"Host: relay.example\r\n", b""),
    "target: host with a path": upgrade().replace(b"relay.example", b"relay.example/admin"),
    "target: absolute form with a user": upgrade(start=b"GET http://u@localhost/client?room=a HTTP/1.1"),
    "target: absolute form with two hosts": upgrade(start=b"GET http://a:80@b/client?room=a HTTP/1.1"),
    "target: absolute form without a host": upgrade(start=b"GET http:///client?room=a HTTP/1.1"),
    "target: absolute form of another scheme": upgrade(start=b"GET file://a/client?room=a HTTP/1.1"),
    "target: absolute form with a backslash": upgrade(start=b"GET http://a\\@b/client?room=a HTTP/1.1"),
    "target: absolute form and two hosts": upgrade(b"Host: b", start=b"GET http://a/client?room=a HTTP/1.1"),
    "target: absolute form and no host": upgrade(start=b"GET http://a/client?room=a HTTP/1.1").replace(
        b"Host: relay.example\r\n", b""
    ),
    "target: absolute form and a bad host": upgrade(start=b"GET http://a/client?room=a HTTP/1.1").replace(
        b"Host: relay.example", b"Host: relay.example/x"
    ),
    "target: absolute form in a room": upgrade(start=b"GET http://a/c/http://b/x HTTP/1.1"),
    "target: authority form": upgrade(start=b"CONNECT localhost:1234 HTTP/1.1"),
    "target: asterisk form": upgrade(start=b"OPTIONS * HTTP/1.1"),
    "target: not ascii": upgrade(start=b"GET /client?room=\xff HTTP/1.1"),
    "target: HTTP/0.9": b"GET /client?room=a\r\n\r\n",
    "target: HTTP/1.0": upgrade(start=b"GET /client?room=a HTTP/1.0"),
    "target: space in the target": upgrade(start=b"GET /client?room=a /admin HTTP/1.1"),
    "target: tab in the target": upgrade(start=b"GET /client?room=a\t/admin HTTP/1.1"),
    "room: dots for a room": upgrade(start=b"GET /client?room=../../ HTTP/1.1"),
    "room: escaped slash in a room": upgrade(start=b"GET /client?room=..%2f..%2f HTTP/1.1"),
    "method in another case": upgrade(start=b"get /client?room=a HTTP/1.1"),
    "override by a post": upgrade(b"X-HTTP-Method-Override: GET", start=b"POST /client?room=a HTTP/1.1"),
}


@pytest.mark.parametrize("raw", [*BODIES.values(), *OTHERS.values()], ids=[*BODIES, *OTHERS])
def test_attack_is_refused_and_closes_the_connection(raw: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        relay(raw)
    client = Client(refusal_response(caught.value), is_ended=False)
    assert client.status == caught.value.status
    assert client.is_whole
    assert b"close" in [value for name, value in client.fields if name == b"connection"]
    assert b"evil" not in refusal_response(caught.value).lower()


PASSING = {
    "pipelined: request behind the upgrade": upgrade() + INNER,
    "body: CL 0": upgrade(b"Content-Length: 0") + INNER,
    "body: CL 0 twice": upgrade(b"Content-Length: 0", b"content-length: 0") + INNER,
    "body: expectation": upgrade(b"Expect: 100-continue") + INNER,
    "body: underscored": upgrade(b"Content_Length: 40", b"Transfer_Encoding: chunked") + INNER,
    "connection: names the fields of a proxy": upgrade(
        b"Connection: X-Forwarded-For, X-Forwarded-User, X-Forwarded-Host", b"X-Forwarded-User: evil"
    ),
    "connection: names its own": upgrade(b"Connection: x-evil", b"X-Evil: 1"),
    "connection: names the handshake": upgrade(
        b"Connection: host, sec-websocket-key, sec-websocket-version, upgrade"
    ),
    "target: absolute form": upgrade(start=b"GET http://localhost/client?room=a HTTP/1.1"),
    "target: absolute form of another host": upgrade(start=b"GET ws://other.example/c/a/x HTTP/1.1").replace(
        b"Host: relay.example", b"Host: evil.example"
    ),
    "connection: close": upgrade(b"Connection: close, keep-alive", b"Keep-Alive: evil"),
    "forwarded: spoofed": upgrade(b"X-Forwarded-For: evil", b"Forwarded: for=evil", b"X-Real-IP: evil"),
    "forwarded: spoofed with underscores": upgrade(b"X_Forwarded_For: evil", b"X_Real_IP: evil"),
    "forwarded: for relays only": upgrade(b"Seance-Fwd: v1; from=evil"),
    "protocol: settings": upgrade(b"HTTP2-Settings: evil"),
    "httpoxy": upgrade(b"Proxy: http://evil"),
    "values of any byte": upgrade(b"X-Any: " + bytes(range(0x80, 0x100)), b"X-Colon: a: b: c"),
    "target of any sign": upgrade(start=b"GET /c/a/" + bytes(range(0x24, 0x7F)) + b" HTTP/1.1"),
}


@pytest.mark.parametrize("raw", PASSING.values(), ids=PASSING)
def test_accepted_head_is_one_request_with_the_same_meaning(raw: bytes) -> None:
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


def test_node_reads_the_same_request() -> None:
    """Most local servers are written in Node, so its parser must agree."""
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
def test_refusing_local_server_does_not_switch(refusing: bytes) -> None:
    """Its response to a request that is smuggled behind the upgrade is dropped too."""
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
def test_forged_101_does_not_switch(forged: bytes) -> None:
    """A client may provoke the local server into a 101 that does not match the key."""
    answer = LocalResponse(KEY)
    assert outcome(lambda: answer.receive(forged + b"secret")) in (
        b"",
        outcome(lambda: LocalResponse(KEY).receive(b"\x00")),
        outcome(lambda: LocalResponse(KEY).receive(SWITCHING.replace(ACCEPT, b""))),
    )
    assert not answer.is_switched


def test_response_cannot_add_fields_for_the_client() -> None:
    """A value of the agent cannot end its field."""
    for evil in (b"a\r\n b", b"a\nSet-Cookie: x=y", b"a\rSet-Cookie: x=y", b"a\x00", b"a\x0b"):
        with pytest.raises(Refusal):
            LocalResponse(KEY).receive(b"HTTP/1.1 200 OK\r\nX-A: " + evil + b"\r\n\r\n")


def test_plain_head_of_these_tests_is_valid() -> None:
    """Shows that the refusals above are caused by the attacks only."""
    assert relay(upgrade())[0].startswith(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    with pytest.raises(Refusal, match="speaks WebSocket"):
        relay(head())
