"""Tests of the head for the local server: kept, dropped and replaced fields."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import LocalProtocolError
from seance.heads import Forwarded, Request, RequestReader, request_for_local, request_with_host
from tests.heads.samples import FORWARDED, KEY, UPGRADE, fields_of, head, read, upgrade

OURS = [
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"X-Forwarded-For", b"203.0.113.7"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"relay.example"),
]


def rebuilt(*lines: bytes) -> list[tuple[bytes, bytes]]:
    return fields_of(request_for_local(read(upgrade(*lines)), b"/doc", FORWARDED))


def added(*lines: bytes) -> list[tuple[bytes, bytes]]:
    """Return the lines that additional lines of the client add to a rebuilt head."""
    return [field for field in rebuilt(*lines) if field not in rebuilt()]


def test_rebuilt_head() -> None:
    assert request_for_local(read(upgrade(b"Origin: https://app.example")), b"/doc?x=1", FORWARDED) == (
        b"GET /doc?x=1 HTTP/1.1\r\n"
        b"Host: localhost\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + KEY + b"\r\n"
        b"Origin: https://app.example\r\n"
        b"Connection: Upgrade\r\n"
        b"Upgrade: websocket\r\n"
        b"X-Forwarded-For: 203.0.113.7\r\n"
        b"X-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: relay.example\r\n"
        b"\r\n"
    )


def test_host_keeps_its_position() -> None:
    raw = b"GET / HTTP/1.1\r\nA: 1\r\nhOsT: relay.example\r\nB: 2\r\n\r\n"
    assert fields_of(request_for_local(read(raw), b"/", FORWARDED))[:3] == [
        (b"A", b"1"),
        (b"Host", b"localhost"),
        (b"B", b"2"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"Cookie: a=b; c=d",
        b"Authorization: Bearer x.y.z",
        b"Origin: null",
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
        b"Accept-Language: de, en;q=0.5",
        b"sec-websocket-PROTOCOL: a, b",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "X-Name: Zoë".encode(),
        b"X-Empty: ",
        b"x_underscored: 1",
        b"Cache-Control: no-cache",
        b"Via: 1.1 proxy",
        b"X-Request-Id: 7",
        b"Content-Type: text/plain",
    ],
)
def test_end_to_end_field_is_kept(line: bytes) -> None:
    name, _, value = line.partition(b": ")
    assert added(line) == [(name, value)]


def test_repeated_fields_keep_their_order_and_case() -> None:
    assert added(b"X-A: 1", b"x-b: 2", b"x-a: 3", b"X-A: 1") == [
        (b"X-A", b"1"),
        (b"x-b", b"2"),
        (b"x-a", b"3"),
        (b"X-A", b"1"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"X-Forwarded-For: 6.6.6.6",
        b"x-forwarded-proto: https",
        b"X-FORWARDED-HOST: evil.example",
        b"X-Forwarded-Port: 1",
        b"X-Forwarded-Server: evil",
        b"X-Forwarded-Prefix: /evil",
        b"X-Forwarded-User: root",
        b"X_Forwarded_For: 6.6.6.6",
        b"X-Forwarded_For: 6.6.6.6",
        b"Forwarded: for=6.6.6.6",
        b"X-Real-IP: 6.6.6.6",
        b"X_Real_IP: 6.6.6.6",
        b"Seance-Fwd: v1; from=evil",
        b"seance_anything: 1",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Trailer: X-Late",
        b"HTTP2-Settings: AAMAAABkAARAAAAA",
        b"Proxy-Authorization: Basic eDp5",
        b"Proxy-Connection: keep-alive",
        b"Proxy: http://evil.example",
        b"Content-Length: 0",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"Expect: 100-continue",
    ],
)
def test_reserved_field_of_the_client_is_dropped(line: bytes) -> None:
    assert added(line) == []
    assert rebuilt(line)[-5:] == OURS


@pytest.mark.parametrize("option", [b"X-Mine", b"x-mine", b"x_mine", b"close, X-MINE,"])
def test_field_named_in_connection_is_dropped(option: bytes) -> None:
    assert added(b"X-Mine: 1", b"X-Other: 2", b"Connection: " + option) == [(b"X-Other", b"2")]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        (b"Origin: https://evil.example", b"Origin"),
        (b"Cookie: a=b", b"cookie"),
        (b"Authorization: Bearer x", b"AUTHORIZATION"),
        (b"Sec-WebSocket-Protocol: a", b"sec-websocket-protocol"),
        (b"Sec-WebSocket-Protocol: a", b"sec_websocket_protocol"),
    ],
)
def test_security_relevant_field_cannot_be_removed_by_connection(line: bytes, option: bytes) -> None:
    name, _, value = line.partition(b": ")
    assert added(line, b"Connection: " + option) == [(name, value)]


@pytest.mark.parametrize(
    "option", [b"x-forwarded-for", b"x-forwarded-host", b"host", b"sec-websocket-key", b"upgrade"]
)
def test_fields_of_the_relay_cannot_be_removed_by_connection(option: bytes) -> None:
    assert rebuilt(b"Connection: close, " + option) == rebuilt()


def test_client_address_may_be_ipv6_or_unknown() -> None:
    request = read(upgrade())
    for address in ("2001:db8::1", ""):
        fields = fields_of(request_for_local(request, b"/", Forwarded(address, "http", b"a")))
        assert (b"X-Forwarded-For", address.encode()) in fields


@pytest.mark.parametrize("local", [b"", b"doc", b"/a b", b"/a\r\nX: y", b"/\x00", "/ü".encode(), b"/a\n"])
def test_local_target_that_is_not_a_path_is_a_local_error(local: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        request_for_local(read(upgrade()), local, FORWARDED)


@pytest.mark.parametrize(
    "forwarded",
    [
        Forwarded("1.2.3.4\r\nX-Evil: 1", "http", b"a"),
        Forwarded("1.2.3.4", "http\nX-Evil: 1", b"a"),
        Forwarded("1.2.3.4", "http", b"a\r\nX-Evil: 1"),
        Forwarded("1.2.3.4", "http", b"a\x00"),
    ],
)
def test_no_forwarded_value_can_end_a_line(forwarded: Forwarded) -> None:
    with pytest.raises(LocalProtocolError):
        request_for_local(read(upgrade()), b"/", forwarded)


def test_invalid_field_name_is_not_written() -> None:
    with pytest.raises(LocalProtocolError):
        request_with_host(Request(b"GET", b"/", ((b"A b", b"c"),)), None)


def test_start_line_with_a_line_end_is_not_written() -> None:
    with pytest.raises(LocalProtocolError):
        request_with_host(Request(b"GET", b"/\r\nX: y", ()), None)


class TestRequestWithHost:
    def test_host_is_replaced_and_the_rest_stays(self) -> None:
        raw = head(
            b"x-a: 1", b"X-Forwarded-Host: relay.example", b"Content-Length: 0", *UPGRADE, host=b"localhost"
        )
        assert request_with_host(read(raw), b"127.0.0.1:1234") == raw.replace(
            b"localhost", b"127.0.0.1:1234", 1
        )

    def test_default_host_is_the_public_one(self) -> None:
        raw = head(b"X-Forwarded-Host: relay.example:8443", host=b"localhost")
        assert request_with_host(read(raw), None) == raw.replace(b"localhost", b"relay.example:8443", 1)

    @pytest.mark.parametrize(
        "lines",
        [
            (),
            (b"X-Forwarded-Host: a b",),
            (b"X-Forwarded-Host:",),
            (b"X-Forwarded-Host: a, b",),
            (b"X-Forwarded-Host: a", b"X-Forwarded-Host: b"),
        ],
    )
    def test_host_is_kept_without_a_public_one(self, lines: tuple[bytes, ...]) -> None:
        raw = head(*lines, host=b"localhost")
        assert fields_of(request_with_host(read(raw), None))[0] == (b"Host", b"localhost")

    def test_two_hosts_become_one(self) -> None:
        request = Request(b"GET", b"/", ((b"Host", b"a"), (b"A", b"1"), (b"host", b"b")))
        assert fields_of(request_with_host(request, b"c")) == [(b"Host", b"c"), (b"A", b"1")]

    def test_invalid_host_is_a_local_error(self) -> None:
        with pytest.raises(LocalProtocolError):
            request_with_host(read(head()), b"a\r\nX-Evil: 1")

    def test_agent_can_read_the_head_of_the_relay(self) -> None:
        written = request_for_local(read(upgrade(b"Cookie: a=b")), b"/doc?x=1", FORWARDED)
        reader = RequestReader()
        request = reader.receive(written + b"glued")
        assert request is not None
        assert request_with_host(request, b"localhost") == written
        assert reader.trailing == b"glued"


NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.!~", min_size=1, max_size=12).map(str.encode)
SEEN = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
VALUES = st.lists(st.sampled_from(SEEN), max_size=20).map(lambda raw: bytes(raw).strip(b" \t"))
TELLING = st.sampled_from(
    [
        b"X-Forwarded-For",
        b"x_forwarded_host",
        b"Forwarded",
        b"Connection",
        b"Te",
        b"Proxy-X",
        b"Content_Length",
        b"Seance-A",
    ]
)
FIELDS = st.lists(st.tuples(NAMES | TELLING, VALUES), max_size=8)


def is_read_whole(fields: list[tuple[bytes, bytes]]) -> bool:
    return not {name.lower() for name, _ in fields} & {b"host", b"content-length", b"transfer-encoding"}


@given(fields=FIELDS.filter(is_read_whole))
def test_another_parser_reads_the_same_head(fields: list[tuple[bytes, bytes]]) -> None:
    written = request_for_local(read(upgrade(*(b"%s: %s" % field for field in fields))), b"/", FORWARDED)
    stream = io.BytesIO(written)
    assert stream.readline() == b"GET / HTTP/1.1\r\n"
    seen = http.client.parse_headers(stream)
    assert [(name.encode(), value.encode("latin-1")) for name, value in seen.raw_items()] == fields_of(
        written
    )
    assert stream.read() == b""


@given(fields=FIELDS.filter(is_read_whole))
def test_fields_of_the_relay_occur_once(fields: list[tuple[bytes, bytes]]) -> None:
    written = fields_of(
        request_for_local(read(upgrade(*(b"%s: %s" % field for field in fields))), b"/", FORWARDED)
    )
    assert written[-5:] == OURS
    spelled = [name.lower().replace(b"_", b"-") for name, _ in written]
    assert not {b"te", b"forwarded", b"content-length", b"transfer-encoding"} & {*spelled}
    for name in (b"host", b"connection", b"upgrade", b"x-forwarded-for", b"x-forwarded-host"):
        assert spelled.count(name) == 1
