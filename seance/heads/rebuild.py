"""Writes the head of a request anew, and decides which fields are kept.

End-to-end fields keep their bytes, order and case: cookies, Authorization, Origin, the Sec-WebSocket
fields, and any field of an app. These fields are removed from requests:

* hop-by-hop fields (RFC 9110, 7.6.1), and every ``Proxy-`` field;
* fields that describe a body, because these requests have none;
* ``Expect``, which announces a body, and ``Proxy``, which CGI programs mistake for a setting;
* fields that describe the client: all ``X-Forwarded-`` fields, ``Forwarded`` and ``X-Real-IP``. They may be
  forged, so the relay replaces them with its own For, Proto and Host;
* ``Seance-`` fields, which relays and agents use for themselves.

A client may name further fields in Connection. They are dropped as the RFC requires, except those that an
access decision may depend on: naming ``Origin`` there must not make a request look as if it came from
a program. Names are compared with ``_`` read as ``-``, because CGI and WSGI do not distinguish
``X_Forwarded_For`` from ``X-Forwarded-For``.

The relay calls `request_for_local`, the agent `request_with_host`. `LocalResponse` writes the heads of
responses, with `end_to_end_fields`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seance.errors import LocalProtocolError
from seance.heads.fields import SWITCHING, Fields, field_values, format_head, is_valid_host, list_tokens
from seance.heads.origins import canonical_origin
from seance.heads.request import Request

__all__ = [
    "Forwarded",
    "end_to_end_fields",
    "has_public_origin",
    "replace_fields",
    "request_for_local",
    "request_with_host",
]

_HOP_BY_HOP = frozenset(
    (b"connection", b"http2-settings", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NOT_FOR_LOCAL = frozenset((b"content-length", b"expect", b"forwarded", b"proxy", b"x-real-ip"))
_HOP_BY_HOP_PREFIX = b"proxy-"
_NOT_FOR_LOCAL_PREFIXES = (_HOP_BY_HOP_PREFIX, b"x-forwarded-", b"seance-")
_PROTECTED = frozenset((b"authorization", b"cookie", b"host", b"origin"))
_TARGET = re.compile(rb"/[!-~]*")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Facts about the client that the relay sends to the local server.

    Attributes:
        client_address: The client's IP address; IPv6 without brackets.
        proto: ``"http"`` or ``"https"``: how the client reached the relay.
        host: The Host that the client sent.
    """

    client_address: str
    proto: str
    host: bytes

    def fields(self) -> Fields:
        """Return the three ``X-Forwarded-`` fields."""
        return (
            (b"X-Forwarded-For", self.client_address.encode("ascii", "replace")),
            (b"X-Forwarded-Proto", self.proto.encode("ascii", "replace")),
            (b"X-Forwarded-Host", self.host),
        )


def request_for_local(request: Request, local_target: bytes, forwarded: Forwarded) -> bytes:
    """Return the rebuilt head of the client's request, which is the first data of a stream.

    ``Host`` becomes ``localhost``. Local servers accept it, so an agent that cannot rewrite heads may
    forward it. The agent of this project replaces it; see `request_with_host`.

    Args:
        request: A request that `check_upgrade` has accepted.
        local_target: ``local`` of its `Route`.
        forwarded: Facts about the client.

    Raises:
        LocalProtocolError: ``"field_invalid"``: the target or a value in ``forwarded`` is not legal
            in a head.
    """
    if _TARGET.fullmatch(local_target) is None:
        raise LocalProtocolError("The local target is not a path.", code="field_invalid")
    ours = ((b"Host", b"localhost"), *SWITCHING, *forwarded.fields())
    dropped = _hop_by_hop(request.headers) | _NOT_FOR_LOCAL
    fields = replace_fields(request.headers, ours, dropped, _NOT_FOR_LOCAL_PREFIXES)
    return format_head(b"GET %s HTTP/1.1" % local_target, fields)


def request_with_host(request: Request, host: bytes | None, origin: bytes | None = None) -> bytes:
    """Return the request's head with another Host and, optionally, another Origin.

    Args:
        request: The request from the stream.
        host: The local server's Host, or None for the Host that the client sent. In that case
            X-Forwarded-Host is used, and without it Host is not changed.
        origin: Replaces an Origin that equals the address by which the client reached the relay. Any
            other Origin is kept, so that the local server can check it. None replaces nothing.

    Raises:
        LocalProtocolError: ``"field_invalid"``: ``host`` is not legal in a head.
    """
    if host is None:
        public_hosts = request.values(b"x-forwarded-host")
        if len(public_hosts) == 1 and is_valid_host(public_hosts[0]):
            host = public_hosts[0]
    fields = request.headers if host is None else replace_fields(request.headers, ((b"Host", host),))
    public = None if origin is None else _public_origin(request)
    if origin is not None and public is not None:
        fields = tuple(
            (name, origin if name.lower() == b"origin" and _is_origin(value, public) else value)
            for name, value in fields
        )
    return format_head(b"%s %s HTTP/1.1" % (request.method, request.target), fields)


def has_public_origin(request: Request) -> bool:
    """Return whether the Origin equals the address by which the client reached the relay."""
    public = _public_origin(request)
    return public is not None and any(_is_origin(value, public) for value in request.values(b"origin"))


def _public_origin(request: Request) -> str | None:
    protos, hosts = request.values(b"x-forwarded-proto"), request.values(b"x-forwarded-host")
    if len(protos) != 1 or len(hosts) != 1:
        return None
    return canonical_origin((protos[0] + b"://" + hosts[0]).decode("latin-1"))


def _is_origin(value: bytes, canonical: str) -> bool:
    return canonical_origin(value.decode("latin-1")) == canonical


def end_to_end_fields(fields: Fields) -> Fields:
    """Return the fields without hop-by-hop fields."""
    return replace_fields(fields, (), _hop_by_hop(fields), _HOP_BY_HOP_PREFIX)


def replace_fields(
    fields: Fields,
    ours: Fields,
    dropped: frozenset[bytes] = frozenset(),
    dropped_prefixes: bytes | tuple[bytes, ...] = (),
) -> Fields:
    """Return the fields with ``ours`` in place of those with the same name; new names come last.

    Args:
        fields: The fields.
        ours: Fields with names that differ.
        dropped: Normalized names of fields that are removed before.
        dropped_prefixes: Prefixes of such names.
    """
    pending = {_normalized(name): (name, value) for name, value in ours}
    names = frozenset(pending)
    result = []
    for name, value in fields:
        normalized = _normalized(name)
        if normalized in dropped or normalized.startswith(dropped_prefixes):
            continue
        if normalized not in names:
            result.append((name, value))
        elif normalized in pending:
            result.append(pending.pop(normalized))
    return (*result, *pending.values())


def _hop_by_hop(fields: Fields) -> frozenset[bytes]:
    named = (_normalized(option) for option in list_tokens(field_values(fields, b"connection")))
    return _HOP_BY_HOP.union(
        name for name in named if name not in _PROTECTED and not name.startswith(b"sec-websocket-")
    )


def _normalized(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")
