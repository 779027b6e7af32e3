"""Fields that allow web pages of other origins to read the status of a room (CORS; Fetch standard, 3.2).

A page may open a WebSocket to any server, but may read an HTTP response of another origin only if the
response allows it. The relay allows it only for the status of a room, and for the pages that may connect
to the room as clients. It never allows credentials: tokens are sent in a field or in the address, and
cookies are not used. ``check_origin`` refuses all other pages before these functions are called.
"""

from __future__ import annotations

from seance.heads.fields import Fields, format_head
from seance.heads.request import Request
from seance.heads.responses import plain_response

__all__ = ["cors_fields", "event_stream_head", "preflight_response"]

PREFLIGHT_SECONDS = 600
"""How long a browser may cache the response to a preflight; Chrome limits it to two hours."""


def cors_fields(request: Request, allowed: tuple[str, ...]) -> Fields:
    """Return the fields that allow the page that sent ``request`` to read the response.

    Args:
        request: A request that `check_origin` has accepted.
        allowed: The list that `check_origin` used; ``("*",)`` for every page.
    """
    if allowed == ("*",):
        return ((b"Access-Control-Allow-Origin", b"*"),)
    origins = request.values(b"origin")
    vary = (b"Vary", b"Origin")
    return ((b"Access-Control-Allow-Origin", origins[0]), vary) if len(origins) == 1 else (vary,)


def preflight_response(sharing: Fields) -> bytes:
    """Return the response to the preflight of a page that sends a token in ``Authorization``."""
    fields = (
        *sharing,
        (b"Access-Control-Allow-Methods", b"GET, HEAD"),
        (b"Access-Control-Allow-Headers", b"Authorization"),
        (b"Access-Control-Max-Age", b"%d" % PREFLIGHT_SECONDS),
    )
    return plain_response(200, b"", headers=fields)


def event_stream_head(sharing: Fields) -> bytes:
    """Return the head of an event stream, which ends with the connection (HTML, section 9.2)."""
    fields = (
        (b"Content-Type", b"text/event-stream; charset=utf-8"),
        (b"Connection", b"close"),
        (b"Cache-Control", b"no-store"),
        # Without this, nginx buffers small events.
        (b"X-Accel-Buffering", b"no"),
        *sharing,
    )
    return format_head(b"HTTP/1.1 200 OK", fields)
