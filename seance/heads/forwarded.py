"""Reads the fields in which a proxy names its client: X-Forwarded-For and X-Forwarded-Proto.

There is no specification of ``X-Forwarded-For``. Proxies write an address bare, with a port (Azure
Application Gateway), in brackets with and without a port, with a zone, in quotes, or as an IPv4 address
mapped into IPv6. All of these are read. ``Forwarded`` (RFC 7239) and ``X-Real-IP`` are ignored: if several
fields were read, a client could forge the one that its proxy does not set.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address

from seance.heads.fields import list_tokens
from seance.heads.request import Request

__all__ = ["forwarded_entries", "forwarded_proto", "read_address"]

_PORT = r"(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?"
_FORM = re.compile(rf"\[([^\[\]]+)\]{_PORT}|([0-9.]+){_PORT}|([^\[\]]+)")
"""Brackets with or without a port, IPv4 with or without a port, or a bare address. In RFC 7239 a port may
start with ``_``."""

_PROTO = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
"""Traefik writes ``ws`` and ``wss`` for WebSocket requests."""


def read_address(text: str) -> str | None:
    """Return the IP address of one entry in canonical form, or None if the entry has no address.

    The port and the zone are dropped. An IPv4 address mapped into IPv6 becomes the IPv4 address.

    Args:
        text: One element of the list, such as ``"[2001:db8::1]:443"``.
    """
    bare = text.strip(" \t")
    if len(bare) > 1 and bare[0] == bare[-1] == '"':
        bare = bare[1:-1]
    match = _FORM.fullmatch(bare)
    if match is None:
        return None
    found: str = match[1] or match[2] or match[3]
    if ":" in found:
        found = found.partition("%")[0]
    elif match[1]:
        return None  # an IPv4 address in brackets
    try:
        address = ip_address(found)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def forwarded_entries(request: Request) -> list[str]:
    """Return the entries of all X-Forwarded-For fields in order, without empty ones (RFC 9110, 5.6.1)."""
    joined = b",".join(request.values(b"x-forwarded-for")).decode("latin-1")
    return [entry for part in joined.split(",") if (entry := part.strip(" \t"))]


def forwarded_proto(request: Request) -> str | None:
    """Return ``http`` or ``https`` from the last element of X-Forwarded-Proto; None for any other value."""
    protos = list_tokens(request.values(b"x-forwarded-proto"))
    return _PROTO.get(protos[-1]) if protos else None
