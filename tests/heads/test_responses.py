"""Tests of the responses of relay and agent."""

from __future__ import annotations

import pytest

from seance.errors import LocalProtocolError, Refusal
from seance.heads import plain_response, refusal_response
from tests.heads.samples import Client


def test_response_of_a_refusal() -> None:
    refusal = Refusal(404, "Room not found (agent not connected)", code="room_not_found")
    assert refusal_response(refusal) == (
        b"HTTP/1.1 404 Not Found\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 37\r\n"
        b"Connection: close\r\n"
        b"Cache-Control: no-store\r\n"
        b"\r\n"
        b"Room not found (agent not connected)\n"
    )


def test_headers_of_a_refusal_are_written() -> None:
    refusal = Refusal(503, "Agent away.", code="agent_away", headers=((b"Retry-After", b"2"),))
    client = Client(refusal_response(refusal))
    assert client.status == 503
    assert (b"retry-after", b"2") in client.fields
    assert client.is_whole


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 426, 429, 431, 502, 503, 499])
def test_every_refusal_closes_its_connection(status: int) -> None:
    client = Client(refusal_response(Refusal(status, "Grüße.", code="x")))
    assert (client.status, client.body) == (status, "Grüße.\n".encode())
    assert (b"connection", b"close") in client.fields


def test_page_has_its_own_type_and_headers() -> None:
    raw = plain_response(
        200,
        b"<p>",
        content_type=b"text/html; charset=utf-8",
        headers=((b"Content-Security-Policy", b"default-src 'none'"),),
    )
    client = Client(raw)
    assert (client.status, client.body) == (200, b"<p>")
    assert (b"content-type", b"text/html; charset=utf-8") in client.fields
    assert (b"content-security-policy", b"default-src 'none'") in client.fields


def test_header_with_a_line_end_is_a_local_error() -> None:
    with pytest.raises(LocalProtocolError):
        refusal_response(Refusal(400, "No.", code="x", headers=((b"A", b"b\r\nC: d"),)))
