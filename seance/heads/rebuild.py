"""Heads written anew: the client's request for the local server, and which fields survive.

Everything end-to-end is kept byte for byte, in order and in its own case: cookies, Authorization,
Origin, the Sec-WebSocket fields, whatever an app invented. Taken out, from requests:

* what concerns one connection only (RFC 9110, 7.6.1), with every ``Proxy-`` field;
* what describes a body: none of our requests has one;
* ``Expect``, which announces a body, and ``Proxy``, which CGI programs mistake for a setting;
* what tells where the client is: all ``X-Forwarded-`` fields, ``Forwarded`` and ``X-Real-IP`` are
  claims of a stranger. The relay's own For, Proto and Host take their place;
* ``Seance-`` fields, which are for relays among themselves.

A client may name further fields in Connection. They are dropped as the RFC asks, except those on
which somebody's decision may rest: naming ``Origin`` there must not make a request look as if no
browser had sent it. Names are compared with ``_`` read as ``-``, because CGI and WSGI cannot tell
``X_Forwarded_For`` from the real one.

The relay calls `request_for_local`, the agent `request_with_host`. Answers are put together by
`LocalAnswer`, with `end_to_end` from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seance.errors import LocalProtocolError
from seance.heads.fields import Fields, field_values, is_valid_host, list_tokens, written_head
from seance.heads.origins import canonical_origin
from seance.heads.request import Request

__all__ = [
    "SWITCHING",
    "Forwarded",
    "end_to_end",
    "is_of_public_origin",
    "replaced",
    "request_for_local",
    "request_with_host",
]

SWITCHING: Fields = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
"""The only hop-by-hop fields that we ever write into a handshake."""

_ONE_CONNECTION = frozenset(
    (b"connection", b"http2-settings", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NOT_FOR_LOCAL = frozenset((b"content-length", b"expect", b"forwarded", b"proxy", b"x-real-ip"))
_NOT_FOR_LOCAL_PREFIXES = (b"x-forwarded-", b"seance-")
_PROTECTED = frozenset((b"authorization", b"cookie", b"host", b"origin"))
_TARGET = re.compile(rb"/[!-~]*")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the relay knows of the client and tells the local server.

    Attributes:
        client_address: The peer's address, IPv6 without brackets.
        proto: ``"http"`` or ``"https"``: how the client reached the relay.
        host: The Host that the client asked for.
    """

    client_address: str
    proto: str
    host: bytes

    def fields(self) -> Fields:
        """Return the three fields that say so."""
        return (
            (b"X-Forwarded-For", self.client_address.encode("ascii", "replace")),
            (b"X-Forwarded-Proto", self.proto.encode("ascii", "replace")),
            (b"X-Forwarded-Host", self.host),
        )


def request_for_local(request: Request, local_target: bytes, forwarded: Forwarded) -> bytes:
    """Return the head that opens a stream: the client's request, rebuilt.

    ``Host`` becomes ``localhost``, which local servers accept and which an agent that cannot
    rewrite heads may pass on as it is; our agent puts the true one there.

    Args:
        request: One that `check_upgrade` has passed.
        local_target: ``local`` of its `Route`.
        forwarded: Who asks, from where.

    Raises:
        LocalProtocolError: ``"field_invalid"``: the target or a fact in ``forwarded`` is not
            legal in a head.
    """
    if _TARGET.fullmatch(local_target) is None:
        raise LocalProtocolError("The local target is not a path.", code="field_invalid")
    kept = tuple(
        (name, value)
        for name, value in end_to_end(request.headers)
        if (spelled := _spelled(name)) not in _NOT_FOR_LOCAL
        and not spelled.startswith(_NOT_FOR_LOCAL_PREFIXES)
    )
    ours = ((b"Host", b"localhost"), *SWITCHING, *forwarded.fields())
    return written_head(b"GET %s HTTP/1.1" % local_target, replaced(kept, ours))


def request_with_host(request: Request, host: bytes | None, origin: bytes | None = None) -> bytes:
    """Return the request's head with another Host, perhaps another Origin, and otherwise as it is.

    Args:
        request: As it came over the stream.
        host: The local server's own, or None for the Host that the client asked for; if
            X-Forwarded-Host does not tell that, Host stays.
        origin: What an Origin becomes that is the one by which the client reached the relay; None
            to leave it. Any other Origin stays, so that the local server's own check protects it.

    Raises:
        LocalProtocolError: ``"field_invalid"``: ``host`` is not legal in a head.
    """
    if host is None:
        asked_for = request.values(b"x-forwarded-host")
        if len(asked_for) == 1 and is_valid_host(asked_for[0]):
            host = asked_for[0]
    fields = request.headers if host is None else replaced(request.headers, ((b"Host", host),))
    public = None if origin is None else _public_origin(request)
    if origin is not None and public is not None:
        fields = tuple(
            (name, origin if name.lower() == b"origin" and _is_origin(value, public) else value)
            for name, value in fields
        )
    return written_head(b"%s %s HTTP/1.1" % (request.method, request.target), fields)


def is_of_public_origin(request: Request) -> bool:
    """Return whether a page asks that came from where the client reached the relay, as the relay says."""
    public = _public_origin(request)
    return public is not None and any(_is_origin(value, public) for value in request.values(b"origin"))


def _public_origin(request: Request) -> str | None:
    protos, hosts = request.values(b"x-forwarded-proto"), request.values(b"x-forwarded-host")
    if len(protos) != 1 or len(hosts) != 1:
        return None
    return canonical_origin((protos[0] + b"://" + hosts[0]).decode("latin-1"))


def _is_origin(value: bytes, canonical: str) -> bool:
    return canonical_origin(value.decode("latin-1")) == canonical


def end_to_end(fields: Fields) -> Fields:
    """Return the fields without those that concern one connection only."""
    named = (_spelled(option) for option in list_tokens(field_values(fields, b"connection")))
    gone = _ONE_CONNECTION.union(
        name for name in named if name not in _PROTECTED and not name.startswith(b"sec-websocket-")
    )
    return tuple(
        (name, value)
        for name, value in fields
        if (spelled := _spelled(name)) not in gone and not spelled.startswith(b"proxy-")
    )


def replaced(fields: Fields, ours: Fields) -> Fields:
    """Return the fields with ours in place of any of the same name; new ones come last."""
    pending = {_spelled(name): (name, value) for name, value in ours}
    names = frozenset(pending)
    result = []
    for name, value in fields:
        spelled = _spelled(name)
        if spelled not in names:
            result.append((name, value))
        elif spelled in pending:
            result.append(pending.pop(spelled))
    return (*result, *pending.values())


def _spelled(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")
