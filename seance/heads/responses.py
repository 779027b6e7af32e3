"""Whole answers of our own: refusals, the health check, pages.

Every one closes its connection. The bytes that a refused client has already sent would otherwise be
read as its next request, which is how a refusal becomes a smuggled one. Answers that come from the
local server are `LocalAnswer`'s.
"""

from __future__ import annotations

from http import HTTPStatus

from seance.errors import Refusal
from seance.heads.fields import Fields, written_head

__all__ = ["plain_response", "refusal_response"]

_TEXT = b"text/plain; charset=utf-8"


def refusal_response(refusal: Refusal) -> bytes:
    """Return the answer that tells the peer why; write it and close."""
    return plain_response(refusal.status, refusal.sentence + "\n", headers=refusal.headers)


def plain_response(
    status: int, body: str | bytes, *, content_type: bytes = _TEXT, headers: Fields = ()
) -> bytes:
    """Return a whole HTTP/1.1 answer; write it and close.

    Args:
        status: The HTTP status, 200 to 599.
        body: Text is sent as UTF-8.
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
    return written_head(b"HTTP/1.1 %d %s" % (status, _reason(status)), fields) + content


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
