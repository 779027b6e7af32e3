"""HTTP heads: strict parsing, mapping, checks and rebuilding, without I/O.

This package contains the part of HTTP that relay and agent need. `RequestReader` turns bytes into a
`Request` or a `Refusal`. `resolve_target` maps the request target to a room and to the target at the
local server. `LocalResponse` reads the local server's response and allows raw bytes only after a 101
that matches the request's key. h11 is the parser; usual heads are split without it, with the same result.
This is not an HTTP server: one exchange for each connection, no keep-alive, no request bodies.

Order of the calls on the relay: `RequestReader`, `resolve_target`, `check_upgrade`, `check_origin`,
`find_token`, `protocol_to_select`, `without_token`, then `request_for_local` for the stream and
`LocalResponse` for the response. `refusals` is the table of all refusals, and `refusal_response` formats
one; `redact` masks secrets in text for logs. On the agent: `RequestReader` for the stream,
`request_with_host` for the local server.

No head is copied from one side to the other. Each one is parsed and written anew, because request
smuggling works by two parsers that read one copied head differently.
"""

from __future__ import annotations

from seance.heads.boundary import FIELD_LIMIT, FORWARDED_FIELDS
from seance.heads.cors import cors_fields, event_stream_head, preflight_response
from seance.heads.credentials import (
    CLIENT_PROTOCOL,
    PresentedToken,
    TokenLocation,
    find_token,
    is_seance_token,
    protocol_to_select,
    query_token,
    without_token,
)
from seance.heads.fields import is_valid_host
from seance.heads.forwarded import forwarded_entries, forwarded_proto, read_address
from seance.heads.local_response import LocalResponse
from seance.heads.origins import check_origin
from seance.heads.proxy_protocol import ProxyHeader, ProxyHeaderReader
from seance.heads.public_form import PublicForm
from seance.heads.rebuild import Forwarded, has_public_origin, request_for_local, request_with_host
from seance.heads.redaction import MASK, redact
from seance.heads.request import Request, RequestReader
from seance.heads.responses import plain_response, refusal_response
from seance.heads.targets import Route, RouteKind, resolve_target
from seance.heads.upgrade import accept_for_key, check_upgrade, is_upgrade

__all__ = [
    "CLIENT_PROTOCOL",
    "FIELD_LIMIT",
    "FORWARDED_FIELDS",
    "MASK",
    "Forwarded",
    "LocalResponse",
    "PresentedToken",
    "ProxyHeader",
    "ProxyHeaderReader",
    "PublicForm",
    "Request",
    "RequestReader",
    "Route",
    "RouteKind",
    "TokenLocation",
    "accept_for_key",
    "check_origin",
    "check_upgrade",
    "cors_fields",
    "event_stream_head",
    "find_token",
    "forwarded_entries",
    "forwarded_proto",
    "has_public_origin",
    "is_seance_token",
    "is_upgrade",
    "is_valid_host",
    "plain_response",
    "preflight_response",
    "protocol_to_select",
    "query_token",
    "read_address",
    "redact",
    "refusal_response",
    "request_for_local",
    "request_with_host",
    "resolve_target",
    "without_token",
]
