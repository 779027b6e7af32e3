"""Where our token travels in a request, and its removal before anything goes on.

Three places, best first. Each is seen by more eyes than the one before it:

* ``Authorization: Bearer TOKEN``, for agents and programs; no web page can set it on a WebSocket.
* ``Sec-WebSocket-Protocol: seance.v1, seance.token.TOKEN``, for web pages: ``new WebSocket`` and
  the ``protocols`` of y-websocket. It is in no address, hence in no history and no access log.
* ``access_token=TOKEN`` in the query, for whoever can be given nothing but an address. Addresses
  are kept, logged and passed around, so a token that travels there should live for minutes.

The app behind the tunnel may need the same places for itself: a Bearer of its own, its own
``access_token``. Both would break if we took what is not ours, and a token of ours would reach
somebody's log if we left it. So what is ours is told by its look: a JWT whose header names our type
or whose payload names us as audience (``is_seance_token``). Whatever ``seance.auth`` could accept
looks like that. ``seance.token.`` belongs to us alone and needs no look.

Nothing is verified here and nothing refused: there is neither key nor clock on this floor. What is
presented may be forged, expired or 16 KiB long, which the reader's bound for a head allows; the
verifier says so. The relay calls ``find_token`` for whoever has to show one, and ``without_token``
for everybody, because a token of ours must not go on from a relay that asks for none either.
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
    "Place",
    "Presented",
    "find_token",
    "is_seance_token",
    "protocol_to_select",
    "token_of_address",
    "without_token",
]

CLIENT_PROTOCOL = b"seance.v1"
"""What a web page offers beside its token, so that there is something to select: the token must not
be, and a browser that offered protocols fails a connection that has none."""

_TOKEN_PROTOCOL = b"seance.token."
_PARAMETER = b"access_token="
_TYPE = "seance+jwt"
_AUDIENCE = "seance-relay"

_JWT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
"""The signature may be missing: a token that claims to need none is refused, not passed on."""

_PARAMETER_STARTS = re.compile(rb"([?&])")
"""A second question mark counts: y-websocket appends ``/doc?access_token=T`` to any base."""


class Place(enum.Enum):
    """Where a token was found; the best place comes first."""

    AUTHORIZATION = "authorization"
    SUBPROTOCOL = "subprotocol"
    QUERY = "query"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Presented:
    """The token of a request, as nobody has verified it.

    Attributes:
        token: As it came, whatever it is; empty for none. Not shown in ``repr``.
        place: Where it was.
    """

    token: str = field(default="", repr=False)
    place: Place = Place.NONE


def find_token(request: Request, route: Route) -> Presented:
    """Return the token in the best place that has one, and there the first.

    Args:
        request: An agent's or a client's.
        route: Where its target leads.
    """
    target = route.local if route.kind is RouteKind.CLIENT else request.target
    for place, tokens in (
        (Place.AUTHORIZATION, _bearer_tokens(request)),
        (Place.SUBPROTOCOL, _protocol_tokens(request)),
        (Place.QUERY, _split_target(target)[1]),
    ):
        if tokens:
            return Presented(tokens[0].decode("latin-1"), place)
    return Presented()


def token_of_address(request: Request, route: Route) -> bytes:
    """Return the token that counts if it is in the query, and else nothing.

    A client that gave it there follows a redirect with nothing but the address in it.
    """
    presented = find_token(request, route)
    return presented.token.encode("latin-1") if presented.place is Place.QUERY else b""


def without_token(request: Request, route: Route) -> tuple[Request, Route]:
    """Return both without anything of ours, wherever it was and however often.

    What is the app's keeps its bytes, its order and its case. Where a token ended an address to
    which y-websocket then appended a document, as in ``/c/ID?access_token=T/doc``, the document
    becomes the path that it was meant to be: no token holds a slash.

    Args:
        request: An agent's or a client's; its target is cleaned too, for whoever writes it down.
        route: Where its target leads; `request_for_local` wants the ``local`` of the new one.
    """
    headers = tuple(kept for name, value in request.headers for kept in _cleaned_field(name, value))
    target, local = _split_target(request.target)[0], _split_target(route.local)[0]
    return replace(request, headers=headers, target=target), replace(route, local=local)


def protocol_to_select(request: Request) -> bytes | None:
    """Return what `LocalAnswer` shall select if the local server selects nothing.

    None unless the client offered ``seance.v1``; ask before `without_token` takes that away.
    """
    offered = (item for value in request.values(b"sec-websocket-protocol") for item in _items(value))
    return CLIENT_PROTOCOL if CLIENT_PROTOCOL in offered else None


def is_seance_token(token: bytes) -> bool:
    """Return whether this looks like a token made for us; true for forged ones as well."""
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
    return [token for value in request.values(b"authorization") if (token := _bearer_token(value))]


def _bearer_token(value: bytes) -> bytes:
    """Return the token of ours in an Authorization field; empty if it is the app's own."""
    scheme, _, token = value.replace(b"\t", b" ").partition(b" ")
    token = token.strip(b" ")
    return token if scheme.lower() == b"bearer" and is_seance_token(token) else b""


def _protocol_tokens(request: Request) -> list[bytes]:
    items = (item for value in request.values(b"sec-websocket-protocol") for item in _items(value))
    tokens = (item[len(_TOKEN_PROTOCOL) :] for item in items if _is_token_protocol(item))
    return [token for token in tokens if token]


def _is_token_protocol(item: bytes) -> bool:
    return item.lower().startswith(_TOKEN_PROTOCOL)


def _items(value: bytes) -> list[bytes]:
    return [item for piece in value.split(b",") if (item := piece.strip(b" \t"))]


def _cleaned_field(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """Return what is left of a field: itself, a shorter one, or nothing."""
    # "_" is read as "-" because CGI and WSGI cannot tell them apart, as in the rebuilt head.
    spelled = name.lower().replace(b"_", b"-")
    if spelled == b"authorization" and _bearer_token(value):
        return []
    if spelled == b"sec-websocket-protocol":
        items = _items(value)
        kept = [item for item in items if item != CLIENT_PROTOCOL and not _is_token_protocol(item)]
        if len(kept) < len(items):
            return [(name, b", ".join(kept))] if kept else []
    return [(name, value)]


# The target


def _split_target(target: bytes) -> tuple[bytes, list[bytes]]:
    """Return a target without our parameters, and the tokens that were in them."""
    if _PARAMETER not in target:
        return target, []
    first, *rest = _PARAMETER_STARTS.split(target)
    path = bytearray(first)
    kept: list[bytes] = []
    tokens: list[bytes] = []
    is_in_path = False
    inherited = b""
    for own_start, piece in zip(rest[::2], rest[1::2], strict=True):
        # What follows a piece that is gone takes its place: "?" wins over "&" and sorts behind it.
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
            # As after "room=ID/doc": the document's name goes on up to a question mark.
            path += start + piece
        else:
            if is_in_path:
                is_in_path, start = False, b"&" if kept else b"?"
            kept += (start, piece)
    return bytes(path) + b"".join(kept), tokens
