"""Finds the Seance token in a request, and removes it before the request is forwarded.

A token is read from three locations, in this order. Each one exposes the token more than the one before:

* ``Authorization: Bearer TOKEN``, for agents and programs. Web pages cannot set it for a WebSocket.
* ``Sec-WebSocket-Protocol: seance.v1, seance.token.TOKEN``, for web pages: ``new WebSocket`` and
  the ``protocols`` of y-websocket. It is not part of the address, so histories and access logs do not
  contain it.
* ``access_token=TOKEN`` in the query, for clients that can be given only an address. Addresses are
  stored, logged and shared, so such a token should expire within minutes.

The app behind the tunnel may use ``Authorization`` and ``access_token`` for its own tokens. Those must be
forwarded, and a Seance token must not be, since it could end up in a log. A Seance token is recognized by
its form: a JWT with the type ``seance+jwt`` in its header or the audience ``seance-relay`` in its payload
(``is_seance_token``). ``seance.auth`` accepts no other tokens. The subprotocol prefix ``seance.token.``
is reserved, so its value is not examined.

This module verifies and refuses nothing, because it has neither keys nor a clock. The token may be
forged, expired, or as long as a head may be (16 KiB); the verifier checks that. The relay calls
``find_token`` for requests that need a token, and ``without_token`` for all requests, because a relay that
requires no tokens must not forward them either.
"""

from __future__ import annotations

import enum
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_to_bytes

from seance.heads.request import Request
from seance.heads.targets import Route, RouteKind

__all__ = [
    "CLIENT_PROTOCOL",
    "PresentedToken",
    "TokenLocation",
    "find_token",
    "is_seance_token",
    "protocol_to_select",
    "query_token",
    "without_token",
]

CLIENT_PROTOCOL = b"seance.v1"
"""Subprotocol that a web page offers together with its token. The server must select one, or the browser
closes the connection, and it must not select the token."""

_AUTHORIZATION = b"authorization"
_PROTOCOL = b"sec-websocket-protocol"
_TOKEN_PROTOCOL = b"seance.token."
_PARAMETER = b"access_token="
_TYPE = "seance+jwt"
_AUDIENCE = "seance-relay"

_JWT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
"""The signature may be empty, so that unsigned tokens are found and refused, not forwarded."""

_PARAMETER_STARTS = re.compile(rb"([?&])")
"""Includes a second question mark: y-websocket appends ``/doc?access_token=T`` to any base."""


class TokenLocation(enum.Enum):
    """Where a token was found, in order of preference."""

    AUTHORIZATION = "authorization"
    SUBPROTOCOL = "subprotocol"
    QUERY = "query"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """The unverified token of a request.

    Attributes:
        token: The token as received; empty if there is none. Not shown in ``repr``.
        location: Where it was found.
    """

    token: str = field(default="", repr=False)
    location: TokenLocation = TokenLocation.NONE


def find_token(request: Request, route: Route) -> PresentedToken:
    """Return the first token in the most preferred location that has one.

    Args:
        request: The request of an agent or a client.
        route: The route of its target.
    """
    target = route.local if route.kind is RouteKind.CLIENT else request.target
    for location, tokens in (
        (TokenLocation.AUTHORIZATION, _bearer_tokens(request)),
        (TokenLocation.SUBPROTOCOL, _protocol_tokens(request)),
        (TokenLocation.QUERY, _split_target(target)[1]),
    ):
        if tokens:
            return PresentedToken(tokens[0].decode("latin-1"), location)
    return PresentedToken()


def query_token(request: Request, route: Route) -> bytes:
    """Return the token of the request if its location is the query, else an empty string.

    Such a client has only the address, so a redirect must contain the token.
    """
    presented = find_token(request, route)
    return presented.token.encode("latin-1") if presented.location is TokenLocation.QUERY else b""


def without_token(request: Request, route: Route) -> tuple[Request, Route]:
    """Return request and route without Seance tokens, in all locations.

    Everything else keeps its bytes, order and case. If y-websocket has appended a document to an
    address that ends in a token, as in ``/c/ID?access_token=T/doc``, the document becomes the path:
    tokens contain no slash.

    Args:
        request: The request of an agent or a client. Its target is cleaned too, because it may be logged.
        route: The route of its target. Give the ``local`` of the returned route to `request_for_local`.
    """
    names = {_normalized(name) for name, _ in request.headers}
    if names.isdisjoint((_AUTHORIZATION, _PROTOCOL)) and _PARAMETER not in request.target + route.local:
        return request, route
    headers = tuple(kept for name, value in request.headers for kept in _cleaned_field(name, value))
    target, local = _split_target(request.target)[0], _split_target(route.local)[0]
    return replace(request, headers=headers, target=target), replace(route, local=local)


def protocol_to_select(request: Request) -> bytes | None:
    """Return the subprotocol to select if the local server selects none.

    It is ``seance.v1`` if the client has offered that, else None. Call this before `without_token`,
    which removes the offer.
    """
    offered = (item for value in request.values(_PROTOCOL) for item in _items(value))
    return CLIENT_PROTOCOL if CLIENT_PROTOCOL in offered else None


def is_seance_token(token: bytes) -> bool:
    """Return whether ``token`` has the form of a Seance token, which includes forged ones."""
    match = _JWT.fullmatch(token)
    if match is None:
        return False
    header = _json_object(match[1])
    if header is None:
        return False
    if header.get("typ") == _TYPE:
        return True
    audience = (_json_object(match[2]) or {}).get("aud")
    return audience == _AUDIENCE or (isinstance(audience, list) and _AUDIENCE in audience)


def _json_object(part: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(urlsafe_b64decode(part + b"=="))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# Fields


def _bearer_tokens(request: Request) -> list[bytes]:
    return [token for value in request.values(_AUTHORIZATION) if (token := _bearer_token(value))]


def _bearer_token(value: bytes) -> bytes:
    """Return the Seance token in an Authorization field, or an empty string if there is none."""
    scheme, _, token = value.replace(b"\t", b" ").partition(b" ")
    token = token.strip(b" ")
    return token if scheme.lower() == b"bearer" and is_seance_token(token) else b""


def _protocol_tokens(request: Request) -> list[bytes]:
    items = (item for value in request.values(_PROTOCOL) for item in _items(value))
    tokens = (item[len(_TOKEN_PROTOCOL) :] for item in items if _is_token_protocol(item))
    return [token for token in tokens if token]


def _is_token_protocol(item: bytes) -> bool:
    return item.lower().startswith(_TOKEN_PROTOCOL)


def _items(value: bytes) -> list[bytes]:
    return [item for piece in value.split(b",") if (item := piece.strip(b" \t"))]


def _cleaned_field(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """Return a field without Seance tokens, or an empty list if nothing is left."""
    spelled = _normalized(name)
    if spelled == _AUTHORIZATION and _bearer_token(value):
        return []
    if spelled == _PROTOCOL:
        items = _items(value)
        kept = [item for item in items if item != CLIENT_PROTOCOL and not _is_token_protocol(item)]
        if len(kept) < len(items):
            return [(name, b", ".join(kept))] if kept else []
    return [(name, value)]


def _normalized(name: bytes) -> bytes:
    # "_" is read as "-", because CGI and WSGI do not distinguish them; `rebuild` does the same.
    return name.lower().replace(b"_", b"-")


# The target


def _split_target(target: bytes) -> tuple[bytes, list[bytes]]:
    """Return a target without parameters that hold Seance tokens, and these tokens."""
    if _PARAMETER not in target:
        return target, []
    first, *rest = _PARAMETER_STARTS.split(target)
    path = bytearray(first)
    kept: list[bytes] = []
    tokens: list[bytes] = []
    is_in_path = False
    inherited = b""
    for own_start, piece in zip(rest[::2], rest[1::2], strict=True):
        # The piece after a removed one gets its separator, and "?" (the greater byte) wins over "&".
        start = max(inherited, own_start)
        inherited = b""
        value, slash, document = piece.removeprefix(_PARAMETER).partition(b"/")
        token = unquote_to_bytes(value) if piece.startswith(_PARAMETER) else b""
        if is_seance_token(token):
            tokens.append(token)
            if slash:
                path = path.removesuffix(b"/") + slash + document
                is_in_path = True
            else:
                inherited = start
        elif is_in_path and start == b"&":
            # As after "room=ID/doc": the document's name extends to the next question mark.
            path += start + piece
        else:
            if is_in_path:
                is_in_path, start = False, b"&" if kept else b"?"
            kept += (start, piece)
    return bytes(path) + b"".join(kept), tokens
