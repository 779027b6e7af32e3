"""The local server sees the client's request as if it were connected directly, and the client sees its answer
so.

The same exchange runs twice, directly and through the tunnel, and the two records are compared. Allowed
differences: ``Host`` is the local server's, ``X-Forwarded-*`` are the relay's, and hop-by-hop fields are
rebuilt.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.e2e.wire import KEY, Exchange, Head, Listener, Wire, accept_for, frame, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Tunnel, TunnelMaker
    from tests.processes import RelayProcess

REBUILT = (b"Host", b"Connection", b"Upgrade", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host")


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def shared(listener: Listener, tunnel: TunnelMaker) -> Tunnel:
    return tunnel(listener.port)


TARGETS = [
    # The targets that y-websocket 3.1 requests for the URLs in tests/e2e/test_links.py, and unusual ones.
    ("/client/doc?room={room}&token=T", "/doc?token=T"),
    ("/client?room={room}/doc", "/doc"),
    ("/client?room={room}/doc?token=T", "/doc?token=T"),
    ("/client?room={room}/folder/doc%201?yauth=a%20b", "/folder/doc%201?yauth=a%20b"),
    ("/c/{room}/folder/doc%201?yauth=a%20b", "/folder/doc%201?yauth=a%20b"),
    ("/c/{room}", "/"),
    ("/c/{room}/", "/"),
    ("/c/{room}?x=1", "/?x=1"),
    ("/client?room={room}", "/"),
    ("/client/?room={room}", "/"),
    ("/client?room={room}&x=1", "/?x=1"),
    ("/client?x=1&room={room}", "/?x=1"),
    ("/client/%C3%BCn%C3%AF/100%?room={room}", "/%C3%BCn%C3%AF/100%"),
    ("/client/a//b/../c/./d?room={room}", "/a//b/../c/./d"),
    ("/client/d?x=&x=2&=y&a+b=c+d&roomy=1&room={room}&&z", "/d?x=&x=2&=y&a+b=c+d&roomy=1&&z"),
    ("/client/json:notebook:5f?room={room}&sessionId=1-2", "/json:notebook:5f?sessionId=1-2"),
    ("/c/{room}/d?room=the-app-has-rooms-too", "/d?room=the-app-has-rooms-too"),
    ("/c/{room}/client?room=x", "/client?room=x"),
]


@pytest.mark.parametrize(("public", "local"), TARGETS)
def test_a_target_arrives_byte_for_byte_after_mapping(
    public: str, local: str, listener: Listener, shared: Tunnel, relay: RelayProcess
) -> None:
    target = public.format(room=shared.room)
    with Exchange.open(("127.0.0.1", relay.port), target, listener) as exchange:
        assert exchange.request.first_line == f"GET {local} HTTP/1.1".encode()


CLIENT_FIELDS = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"Origin: https://app.example\r\n"
    b"accept-language: de-AT,de;q=0.9\r\n"
    b"Authorization: Bearer of-the-app\r\n"
    b"Sec-WebSocket-Protocol: y.two, y.chosen\r\n"
    b"SEC-WEBSOCKET-PROTOCOL: y.three\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    b"X-Twice: one\r\n"
    b"x-between: \t spaced out \t\r\n"
    b"X-Twice: two\r\n"
    b"X-Empty:\r\n"
    b"X-Latin: caf\xe9\r\n"
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\n"
)

SERVER_FIELDS = (
    b"Server: Raw/1.0\r\n"
    b"sec-websocket-protocol: y.chosen\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
    b"X-Twice: one\r\n"
    b"x-Between: 1\r\n"
    b"X-Twice: two\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
)


def both_heads(way: Tunnel, listener: Listener) -> tuple[Head, Head]:
    """The request as the local server received it, and the answer as the client received it."""
    opening = Exchange.open(
        way.address, way.target("/doc?x=1"), listener, offered=CLIENT_FIELDS, chosen=SERVER_FIELDS
    )
    with opening as exchange:
        return exchange.request, exchange.answer


def test_headers_arrive_in_order_case_and_number(listener: Listener, shared: Tunnel) -> None:
    request, answer = both_heads(shared, listener)
    request_direct, answer_direct = both_heads(shared.without(), listener)
    assert request.first_line == request_direct.first_line
    assert request.without(*REBUILT) == request_direct.without(*REBUILT)
    assert answer.first_line == answer_direct.first_line
    assert answer.without(b"Connection", b"Upgrade") == answer_direct.without(b"Connection", b"Upgrade")
    assert answer.all(b"Sec-WebSocket-Accept") == [accept_for(KEY)]


def test_host_and_forwarded_fields_are_set_by_the_tunnel(
    listener: Listener, shared: Tunnel, relay: RelayProcess
) -> None:
    """A client's own claims about its address do not reach the local server."""
    forged = (
        b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: forged\r\nX-Forwarded-Proto: https\r\n"
        b"X-Private: 1\r\nTE: trailers\r\nKeep-Alive: 300\r\n"
    )
    target = shared.target("/doc")
    with Wire.dial(shared.address) as client:
        head = upgrade(target, forged).replace(b"Connection: Upgrade", b"Connection: Upgrade, X-Private")
        client.send(head)
        with listener.accept() as server:
            request = server.read_head()
    assert request.all(b"Host") == [f"127.0.0.1:{listener.port}".encode()]
    assert request.all(b"X-Forwarded-For") == [b"127.0.0.1"]
    assert request.all(b"X-Forwarded-Host") == [b"relay.example"]
    assert request.all(b"X-Forwarded-Proto") == [b"http"]
    assert [value.lower() for value in request.all(b"Connection")] == [b"upgrade"]
    assert request.all(b"Upgrade") == [b"websocket"]
    for name in (b"X-Private", b"TE", b"Keep-Alive"):
        assert request.all(name) == [], name


REFUSALS = [
    (b"401 Unauthorized", b"WWW-Authenticate: Basic realm=app\r\nX-Why: a\r\nX-Why: b\r\n", b"who are you?"),
    (b"403 Forbidden", b"Content-Type: text/html; charset=utf-8\r\n", "<p>nö</p>".encode()),
    (b"404 Not Found", b"", b""),
    (b"503 Sorry Later", b"Retry-After: 7\r\n", b"x" * 300_000),
    (b"302 Found", b"Location: /elsewhere\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", b""),
    (b"200 OK", b"Content-Type: text/plain\r\n", b"okay"),
]


def refusal_seen(
    way: Tunnel, listener: Listener, status: bytes, fields: bytes, body: bytes, *, chunked: bool
) -> tuple[Head, bytes]:
    """Return an answer of the local server other than 101, as a client receives it."""
    with Wire.dial(way.address) as client:
        client.send(upgrade(way.target("/doc")))
        with listener.accept() as server:
            server.read_head()
            if chunked:
                framing = b"Transfer-Encoding: chunked\r\n"
                sent = (b"%x\r\n" % len(body) + body + b"\r\n" if body else b"") + b"0\r\n\r\n"
            else:
                framing, sent = b"Content-Length: %d\r\n" % len(body), body
            server.send(b"HTTP/1.1 " + status + b"\r\n" + fields + framing + b"\r\n" + sent)
            with contextlib.suppress(OSError):
                # A client that has the whole answer may have closed already.
                server.finish()
            head = client.read_head()
            rest = client.read_to_end()
    if head.all(b"Transfer-Encoding") == [b"chunked"]:
        rest = unchunked(rest)
    return head, rest


def unchunked(raw: bytes) -> bytes:
    """Return the body of a chunked answer that has arrived completely."""
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        body, raw = body + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("status", "fields", "body"), REFUSALS, ids=[row[0].decode() for row in REFUSALS])
def test_a_refusal_of_the_local_server_passes_completely(
    status: bytes, fields: bytes, body: bytes, chunked: bool, listener: Listener, shared: Tunnel
) -> None:
    head, seen = refusal_seen(shared, listener, status, fields, body, chunked=chunked)
    head_direct, _ = refusal_seen(shared.without(), listener, status, fields, body, chunked=chunked)
    per_hop = (b"Connection", b"Keep-Alive", b"Transfer-Encoding", b"Content-Length")
    assert head.first_line == head_direct.first_line
    expected = head_direct.without(*per_hop)
    if shared.relay is not None:
        # URLs and cookies are limited to the room; all other fields are unchanged.
        room = shared.target("/doc").removesuffix("/doc").encode()
        added = {(b"Location", b"/elsewhere"): (b"Location", room + b"/elsewhere")}
        added |= {(b"Set-Cookie", one): (b"Set-Cookie", one + b"; Path=" + room) for one in (b"a=1", b"b=2")}
        expected = tuple(added.get(field, field) for field in expected)
    assert head.without(*per_hop) == expected
    assert seen == body


def test_a_101_that_does_not_fit_the_key_opens_nothing(listener: Listener, shared: Tunnel) -> None:
    """A local server that answers 101 without reading the key is not a WebSocket server."""
    if shared.relay is None:
        pytest.skip("needs a relay, and this is the control run without one")
    with Wire.dial(shared.address) as client:
        client.send(upgrade(shared.target("/doc")) + frame(1, b"smuggled", masked=True))
        with listener.accept() as server:
            server.read_head()
            server.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
            )
            assert client.read_head().status == 502
            client.read_to_end()
            with pytest.raises((EOFError, ConnectionResetError)):
                server.read_exactly(1)


def test_no_early_bytes_of_the_client_pass_before_the_101(listener: Listener, shared: Tunnel) -> None:
    """A second request behind the first never reaches a local server that refuses."""
    if shared.relay is None:
        pytest.skip("needs a relay, and this is the control run without one")
    with Wire.dial(shared.address) as client:
        client.send(upgrade(shared.target("/doc")) + b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n")
        with listener.accept() as server:
            server.read_head()
            server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            assert client.read_head().status == 403
            assert client.read_to_end() == b"no"
            seen = b""
            with contextlib.suppress(ConnectionResetError):
                seen = server.read_to_end()
            assert seen == b""


def test_a_frame_in_the_same_segment_as_the_101_arrives(listener: Listener, shared: Tunnel) -> None:
    for number in range(100):
        first = frame(2, b"step one %d" % number)
        opening = Exchange.open(shared.address, shared.target("/doc"), listener, after_answer=first)
        with opening as exchange:
            assert exchange.client.read_exactly(len(first)) == first


def test_a_frame_in_the_same_segment_as_the_request_arrives(listener: Listener, shared: Tunnel) -> None:
    for number in range(100):
        first = frame(2, b"step one %d" % number, masked=True)
        opening = Exchange.open(shared.address, shared.target("/doc"), listener, after_request=first)
        with opening as exchange:
            assert exchange.server.read_exactly(len(first)) == first
