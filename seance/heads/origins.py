"""Checks the Origin field against a list of allowed origins (RFC 6454, section 6.2).

A browser allows any page to open a WebSocket to any server, and sends the page's origin. A server that does
not check it can be used by every page that its users visit. Programs send no Origin or any Origin, so the
check only protects users of browsers; access control is the task of tokens.

The relay calls this for clients and agents, with its own list and with the list of a token.
"""

from __future__ import annotations

import re

from seance.heads.refusals import refusal
from seance.heads.request import Request

__all__ = ["canonical_origin", "check_origin"]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]*)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_origin(request: Request, allowed: tuple[str, ...] | None) -> None:
    """Refuse a request from a web page whose origin is not on the list.

    Scheme, host and port must be equal; case is ignored, and the default port may be left out. There
    are no patterns: ``https://example.com`` allows neither ``https://www.example.com`` nor
    ``https://evil-example.com``. ``null``, the origin of sandboxed frames and files, is allowed only if
    it is on the list. An entry that is not an origin allows nothing.

    Args:
        request: The request.
        allowed: Origins as browsers write them, such as ``https://app.example``. ``("*",)`` and None
            allow every page, an empty list none.

    Raises:
        Refusal: 403 ``"origin"``.
    """
    if allowed is None or allowed == ("*",):
        return
    origins = request.values(b"origin")
    known = {canonical_origin(entry) for entry in allowed} - {None}
    # If there are several Origin fields, the local server may read any of them, so all must be allowed.
    if not all(canonical_origin(origin.decode("latin-1")) in known for origin in origins):
        raise refusal("origin")


def canonical_origin(origin: str) -> str | None:
    """Return an origin in lower case and without a default port, or None if ``origin`` is not one."""
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
