"""Writes complete responses of relay and agent: refusals, the health check, pages.

Each one closes its connection. Otherwise, bytes that a refused client has already sent would be read as
its next request, which allows request smuggling. `LocalResponse` handles responses of the local server.
"""

from __future__ import annotations

from http import HTTPStatus

from seance.errors import Refusal
from seance.heads.fields import Fields, format_head

__all__ = ["plain_response", "refusal_response"]

_TEXT = b"text/plain; charset=utf-8"


def refusal_response(refusal: Refusal) -> bytes:
    """Return the response for a refusal. Write it and close the connection."""
    return plain_response(refusal.status, refusal.message + "\n", headers=refusal.headers)


def plain_response(
    status: int, body: str | bytes, *, content_type: bytes = _TEXT, headers: Fields = ()
) -> bytes:
    """Return a complete HTTP/1.1 response. Write it and close the connection.

    Args:
        status: The HTTP status, 200 to 599.
        body: The body; text is sent as UTF-8.
        content_type: The value of Content-Type.
        headers: Further fields, written last.

    Raises:
        LocalProtocolError: ``"field_invalid"``: a further field is not legal.
    """
    content = body.encode() if isinstance(body, str) else body
    fields = (
        (b"Content-Type", content_type),
        (b"Content-Length", b"%d" % len(content)),
        (b"Connection", b"close"),
        (b"Cache-Control", b"no-store"),
        *headers,
    )
    return format_head(b"HTTP/1.1 %d %s" % (status, _reason(status)), fields) + content


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
