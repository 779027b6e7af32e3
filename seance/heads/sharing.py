"""What a web page of another origin may read of our own answers (the Fetch standard, section 3.2).

A page may open a WebSocket anywhere, but reads an HTTP answer of another origin only if that allows it in
so many words. The relay says so where pages ask for a room's status, for the same pages that may
connect there as clients; nowhere else. It never allows credentials: a token comes in a field or in the
address, and cookies mean nothing to us. ``check_origin`` has refused all other pages before this is asked.
"""

from __future__ import annotations

from seance.heads.fields import Fields, written_head
from seance.heads.request import Request
from seance.heads.responses import plain_response

__all__ = ["event_stream_head", "preflight_response", "sharing_fields"]

PREFLIGHT_SECONDS = 600
"""How long a browser need not ask again; Chrome takes two hours at most."""


def sharing_fields(request: Request, allowed: tuple[str, ...]) -> Fields:
    """Return the fields that let the page behind a request read our answer.

    Args:
        request: One that `check_origin` let pass.
        allowed: The same list; ``("*",)`` for every page.
    """
    if allowed == ("*",):
        return ((b"Access-Control-Allow-Origin", b"*"),)
    origins = request.values(b"origin")
    vary = (b"Vary", b"Origin")
    return ((b"Access-Control-Allow-Origin", origins[0]), vary) if len(origins) == 1 else (vary,)


def preflight_response(sharing: Fields) -> bytes:
    """Return the answer to a browser that asks before it sends a token in ``Authorization``."""
    fields = (
        *sharing,
        (b"Access-Control-Allow-Methods", b"GET, HEAD"),
        (b"Access-Control-Allow-Headers", b"Authorization"),
        (b"Access-Control-Max-Age", b"%d" % PREFLIGHT_SECONDS),
    )
    return plain_response(200, b"", headers=fields)


def event_stream_head(sharing: Fields) -> bytes:
    """Return the head of a stream of events, which ends with the connection (HTML, section 9.2)."""
    fields = (
        (b"Content-Type", b"text/event-stream; charset=utf-8"),
        (b"Connection", b"close"),
        (b"Cache-Control", b"no-store"),
        # nginx would hold small events back until it has a buffer full of them.
        (b"X-Accel-Buffering", b"no"),
        *sharing,
    )
    return written_head(b"HTTP/1.1 200 OK", fields)
