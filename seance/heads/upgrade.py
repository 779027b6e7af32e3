"""Checks both halves of the WebSocket opening handshake.

The relay checks request and response although it splices bytes and does not speak WebSocket with a client.
A proxy that splices after a handshake that one side did not accept gives the client a raw connection to the
local server (CVE-2018-1002105; RFC 9931 describes this class of attacks).
"""

from __future__ import annotations

import base64
import hashlib
import re

from seance.heads.fields import Fields, field_values, list_tokens
from seance.heads.refusals import refusal
from seance.heads.request import Request

__all__ = ["accept_for_key", "check_upgrade", "is_upgrade"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[0-9A-Za-z+/]{22}==")
"""Sixteen bytes in base64 (RFC 6455, 4.1)."""


def check_upgrade(request: Request) -> bytes:
    """Check that the request is an upgrade to WebSocket only.

    A request that offers two protocols is refused, because the local server could choose the other one.

    Returns:
        The value of Sec-WebSocket-Key, for `accept_for_key` and `LocalResponse`.

    Raises:
        Refusal: 405 for another method than GET, 426 for a request that is no upgrade to
            WebSocket version 13, 400 for HTTP/1.0 and for a bad key.
    """
    if request.http_version != b"1.1":
        # RFC 9110, 7.8: a server ignores Upgrade in HTTP/1.0. Such a request comes from a proxy.
        raise refusal("http_version")
    if request.method != b"GET":
        raise refusal("method_not_allowed")
    if not is_upgrade(request.headers):
        raise refusal("not_a_websocket")
    if request.values(b"sec-websocket-version") != [b"13"]:
        raise refusal("websocket_version")
    keys = request.values(b"sec-websocket-key")
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise refusal("websocket_key")
    return keys[0]


def is_upgrade(fields: Fields) -> bool:
    """Return whether the fields of a request or response upgrade to WebSocket and nothing else."""
    protocols = [value.lower() for value in field_values(fields, b"upgrade")]
    return protocols == [b"websocket"] and b"upgrade" in list_tokens(field_values(fields, b"connection"))


def accept_for_key(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept for a key (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(key + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)
