"""May this web page open a WebSocket here? The Origin field against a list (RFC 6454, section 6.2).

A browser lets any page open a WebSocket to anybody and says only who asks: whoever does not look is
open to every page that one of its people visits. Programs send no Origin and may send any, so this
protects browsers and nobody else; who may enter is for tokens to say.

The relay calls this for clients and agents, with its own list and with that of a token.
"""

from __future__ import annotations

import re

from seance.errors import Refusal
from seance.heads.request import Request

__all__ = ["canonical_origin", "check_origin"]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]*)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_origin(request: Request, allowed: tuple[str, ...] | None) -> None:
    """Refuse a web page that is not on the list.

    Scheme, host and port have to be the same, in any case and with the default port told or not.
    There are no patterns: ``https://example.com`` allows neither ``https://www.example.com`` nor
    ``https://evil-example.com``. ``null``, which is what sandboxed frames and files say, has to be on
    the list like any other. An entry that is no origin allows nothing.

    Args:
        request: Any.
        allowed: Origins as browsers write them, such as ``https://app.example``; the list
            ``("*",)`` and None allow every page, the empty list none.

    Raises:
        Refusal: 403 ``"origin"``.
    """
    if allowed is None or allowed == ("*",):
        return
    origins = request.values(b"origin")
    known = {canonical_origin(entry) for entry in allowed} - {None}
    # Of two that differ the local server may read the other one, so all have to be allowed.
    if not all(canonical_origin(origin.decode("latin-1")) in known for origin in origins):
        raise Refusal(
            403, "This web page may not connect here: its Origin is not on the list.", code="origin"
        )


def canonical_origin(origin: str) -> str | None:
    """Return an origin in small letters and without a default port; None if it is no origin."""
    lowered = origin.lower()
    if lowered == "null":
        return lowered
    match = _ORIGIN.fullmatch(lowered)
    if match is None:
        return None
    scheme, host, port = match.groups()
    if port is None or int(port) == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"
