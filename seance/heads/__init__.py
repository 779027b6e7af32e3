"""HTTP heads: read strictly, mapped, checked and rebuilt, without a socket.

What a relay and an agent need of HTTP, and no more: the request of a client or an agent comes in
as bytes and is a `Request` or a `Refusal`; its target says which room and what the local server
shall be asked; the answer of the local server passes through a `LocalAnswer`, which opens the way
for raw bytes only after a 101 that fits the key. h11 is the parser. This is not an HTTP server:
no keep-alive, no request bodies, one exchange a connection.

On the relay, in order: `RequestReader`, `resolve_target`, `check_upgrade`, `check_origin`,
`find_token`, `protocol_to_select`, `without_token`, `request_for_local` onto the stream,
`LocalAnswer` over what comes back; `refusal_response` for every `Refusal` on the way, and `redact`
for whatever is written down. On the agent: `RequestReader` over the stream, then
`request_with_host` for the local server.

No head is ever copied from one side to the other. It is parsed and written anew, because the
disagreement between two parsers over one copied head is what request smuggling lives on.
"""

from __future__ import annotations

from seance.heads.answer import LocalAnswer
from seance.heads.boundary import FIELD_LIMIT, FORWARDED_FIELDS
from seance.heads.credentials import (
    CLIENT_PROTOCOL,
    Place,
    Presented,
    find_token,
    is_seance_token,
    protocol_to_select,
    token_of_address,
    without_token,
)
from seance.heads.fields import is_valid_host
from seance.heads.forwarded import forwarded_entries, forwarded_proto, read_address
from seance.heads.origins import check_origin
from seance.heads.proxy_protocol import ProxyHeader, ProxyHeaderReader
from seance.heads.public_form import PublicForm
from seance.heads.rebuild import Forwarded, is_of_public_origin, request_for_local, request_with_host
from seance.heads.redaction import MASK, redact
from seance.heads.request import Request, RequestReader
from seance.heads.responses import plain_response, refusal_response
from seance.heads.sharing import event_stream_head, preflight_response, sharing_fields
from seance.heads.targets import Route, RouteKind, resolve_target
from seance.heads.upgrade import accept_for_key, check_upgrade, is_upgrade

__all__ = [
    "CLIENT_PROTOCOL",
    "FIELD_LIMIT",
    "FORWARDED_FIELDS",
    "MASK",
    "Forwarded",
    "LocalAnswer",
    "Place",
    "Presented",
    "ProxyHeader",
    "ProxyHeaderReader",
    "PublicForm",
    "Request",
    "RequestReader",
    "Route",
    "RouteKind",
    "accept_for_key",
    "check_origin",
    "check_upgrade",
    "event_stream_head",
    "find_token",
    "forwarded_entries",
    "forwarded_proto",
    "is_of_public_origin",
    "is_seance_token",
    "is_upgrade",
    "is_valid_host",
    "plain_response",
    "preflight_response",
    "protocol_to_select",
    "read_address",
    "redact",
    "refusal_response",
    "request_for_local",
    "request_with_host",
    "resolve_target",
    "sharing_fields",
    "token_of_address",
    "without_token",
]
