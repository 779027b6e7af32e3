"""Requests, responses and splitting strategies shared by the tests in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeVar

import h11
from hypothesis import strategies as st

from seance.errors import Refusal
from seance.heads import Forwarded, LocalResponse, Request, RequestReader

Result = TypeVar("Result")

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Key and accept value of RFC 6455, 1.3."""

FORWARDED = Forwarded("203.0.113.7", "https", b"relay.example")

UPGRADE = (
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
)


def head(
    *lines: bytes, start: bytes = b"GET /client?room=a HTTP/1.1", host: bytes = b"relay.example"
) -> bytes:
    """Return a request head with a Host and additional lines."""
    return b"\r\n".join((start, b"Host: " + host, *lines, b"", b""))


def upgrade(*lines: bytes, start: bytes = b"GET /client?room=a HTTP/1.1") -> bytes:
    """Return the head of a valid upgrade with additional lines."""
    return head(*UPGRADE, *lines, start=start)


def read(raw: bytes) -> Request:
    """Parse a complete request head."""
    request = RequestReader().receive(raw)
    assert request is not None
    return request


def fields_of(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a head written by `format_head`."""
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def single_bytes(raw: bytes) -> Iterator[bytes]:
    """Split into single bytes."""
    return (raw[i : i + 1] for i in range(len(raw)))


@st.composite
def cut_anywhere(draw: st.DrawFn, raw: bytes) -> list[bytes]:
    """Split at random positions; pieces may be empty."""
    positions = draw(st.lists(st.integers(0, len(raw)), max_size=8).map(sorted))
    return [raw[a:b] for a, b in pairwise([0, *positions, len(raw)])]


def outcome(act: Callable[[], Result]) -> Result | tuple[int, str, str]:
    """Return the result of a call, or the contents of its refusal."""
    try:
        return act()
    except Refusal as refusal:
        return (refusal.status, refusal.code, refusal.message)


class Client:
    """The response as a client reads it, with h11."""

    def __init__(self, raw: bytes, *, is_ended: bool = True) -> None:
        connection = h11.Connection(h11.CLIENT)
        connection.send(
            h11.Request(method="GET", target="/", headers=[("Host", "a"), ("Upgrade", "websocket")])
        )
        connection.send(h11.EndOfMessage())
        connection.receive_data(raw)
        if is_ended:
            connection.receive_data(b"")
        response = connection.next_event()
        assert isinstance(response, h11.Response | h11.InformationalResponse)
        self.status = response.status_code
        self.fields = list(response.headers)
        self.body = b""
        self.is_whole = False
        while isinstance(event := connection.next_event(), h11.Data):
            self.body += event.data
        self.is_whole = isinstance(event, h11.EndOfMessage)
        self.rest = connection.trailing_data[0]


def answer(*pieces: bytes, limit_bytes: int = 16384, is_ended: bool = False) -> tuple[LocalResponse, bytes]:
    """Feed pieces to a `LocalResponse`; return it and the bytes that it passed on."""
    local = LocalResponse(KEY, limit_bytes)
    passed = b"".join([local.receive(piece) for piece in pieces])
    if is_ended:
        passed += local.receive_end()
    return local, passed
