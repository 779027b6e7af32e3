"""Every refusal of relay and agent: code, status, message, header fields and retry policy, in one table.

The public address, the agent's streams and the admin port use it. docs/protocol.md and docs/admin-port.md
list the refusals; tests compare them with the table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from seance.errors import Refusal
from seance.heads.fields import SWITCHING, Fields

__all__ = ["ADMIN_REFUSALS", "ALLOW_HEALTH", "REFUSALS", "TOKEN_REFUSALS", "Entry", "Retry", "refusal"]

ALLOW_HEALTH = (b"Allow", b"GET, HEAD, OPTIONS")
"""The methods of the health check."""

_BEARER = (b"WWW-Authenticate", b'Bearer realm="seance"')
"""Required in a 401 (RFC 9110, 11.6.1). The parameter ``error`` is left out, because it names the reason."""

_BASIC = (b"WWW-Authenticate", b'Basic realm="seance: any name, and a token of role admin", charset="UTF-8"')


class Retry(enum.Enum):
    """The ``Retry-After`` of a refusal: the minimum and the maximum in seconds."""

    NONE = (0, 0)
    """No field: the same request will not succeed later, or the peer decides."""

    SOON = (2, 2)
    """For requests that may be an agent's: its clients wait 15 s, and 5 s would be a third of that."""

    SPREAD = (2, 5)
    """A random value for each client: clients that were refused together do not return together."""

    LATER = (5, 5)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the table.

    Attributes:
        status: The HTTP status.
        message: The body of the response, a template for ``str.format``.
        retry: The policy for ``Retry-After``.
        headers: Further fields of the response.
    """

    status: int
    message: str
    retry: Retry = Retry.NONE
    headers: Fields = ()


_CLAIMS = ("exp", "nbf", "iat", "role", "room", "sub", "jti", "agt", "org", "max", "clients", "bps")

_INVALID_TOKEN = (
    "token_missing",
    "token_form",
    "token_header",
    "token_key_unknown",
    "token_algorithm",
    "token_signature",
    "token_claims",
    *(f"token_claim_{name}" for name in _CLAIMS),
    "token_audience",
    "token_expired",
    "token_not_yet_valid",
    "token_denied",
)
"""Why a token is invalid. The response does not depend on it, so that guessing tokens reveals nothing."""

TOKEN_REFUSALS: Final[dict[str, Entry]] = {
    **dict.fromkeys(
        _INVALID_TOKEN,
        Entry(
            401,
            "A valid access token is required: ask the person who invited you for a new link.",
            headers=(_BEARER,),
        ),
    ),
    **dict.fromkeys(
        (f"{code}.agent" for code in _INVALID_TOKEN),
        Entry(
            401,
            "A valid access token of role agent is required: ask the relay's operator for one, or compare the"
            " relay's clock with that of the machine where yours was made.",
            headers=(_BEARER,),
        ),
    ),
    **dict.fromkeys(
        ("token_role", "token_room", "room_denied"),
        Entry(403, "The access token does not allow this room or this role: ask for one that does."),
    ),
}
"""For tokens. ``.agent`` is for requests of agents."""

ADMIN_REFUSALS: Final[dict[str, Entry]] = {
    "admin_parameter": Entry(400, "Unknown query parameter."),
    "admin_parameter.number": Entry(400, "{name} must be a number from 1 to {maximum}."),
    "admin_parameter.twice": Entry(400, "The parameter {name} occurs twice."),
    "admin_token": Entry(
        401,
        "A valid token of role admin is required, as Authorization: Bearer or as a password.",
        headers=(_BEARER, _BASIC),
    ),
    "admin_host": Entry(
        403, "This port accepts only Host: localhost; configure a proxy in front of it to send that."
    ),
    "admin_change": Entry(403, "This request needs the header field {field}, with any value."),
    "admin_role": Entry(403, "{reason}"),
    "admin_rooms": Entry(403, "The metrics cover all rooms, but the token is limited to some rooms."),
    "admin_path": Entry(404, "Not found."),
    "admin_room": Entry(404, "This room has no agent, or the token does not permit access to it."),
    "admin_client": Entry(404, "This room has no such client."),
    "admin_method": Entry(405, "Use {methods}."),
    "admin_watchers": Entry(
        429, "Too many event streams of this relay; close another dashboard first.", Retry.LATER
    ),
    "admin_failed": Entry(500, "The request failed; the relay's log has the details."),
    "token_wait.admin": Entry(503, "The token could not be verified in time; try again."),
}
"""For requests to the admin port."""

REFUSALS: Final[dict[str, Entry]] = {
    # Requests
    "malformed_request": Entry(400, "This is not a well-formed HTTP/1.1 request: {reason}."),
    "http_version": Entry(400, "HTTP/1.1 is needed; this request uses another version."),
    "malformed_target": Entry(
        400,
        "The request target must be a path, such as /client?room=ID, or an address with this relay's host:"
        " {reason}.",
    ),
    "malformed_host": Entry(
        400, "The Host header is not valid; send a host name or an IP address, with an optional port."
    ),
    "body_not_allowed": Entry(400, "A request with a body cannot be served here; send none."),
    "room_missing": Entry(400, "Missing room parameter: name the room, as in /client?room=ID or /c/ID/."),
    "room_invalid": Entry(400, "Bad room name: 1 to 128 letters, digits or any of . _ ~ - are allowed."),
    "room_ambiguous": Entry(400, "The room parameter has several different values; name one room."),
    "target_ambiguous": Entry(
        400,
        "The start of the document's name is ambiguous: use /c/ID as the base address, or give the room as a"
        " parameter of the provider, or write a slash inside a value as %2F.",
    ),
    "websocket_key": Entry(400, "Exactly one Sec-WebSocket-Key of sixteen bytes in base64 is needed."),
    "head_timeout.stream": Entry(400, "No request head came within {seconds:g} s."),
    "tls_expected": Entry(
        400, "This address speaks TLS: write wss:// or https:// in place of ws:// or http://."
    ),
    "origin": Entry(403, "This web page may not connect here: its Origin is not on the list."),
    "unknown_path": Entry(
        404, "Unknown path: this relay serves /client?room=ID, /c/ID/, /agent?room=ID and /health."
    ),
    "method_not_allowed": Entry(405, "Only GET is served here.", headers=((b"Allow", b"GET"),)),
    "method.health": Entry(
        405, "Only GET, HEAD and OPTIONS are allowed at this address.", headers=(ALLOW_HEALTH,)
    ),
    "method": Entry(
        405, "Only GET and HEAD are allowed at this address.", headers=((b"Allow", b"GET, HEAD"),)
    ),
    "head_timeout": Entry(408, "The request head did not arrive in time; send all of it together."),
    "not_a_websocket": Entry(
        426,
        "A WebSocket is needed: this address speaks WebSocket, and the request does not ask for it.",
        headers=SWITCHING,
    ),
    "websocket_version": Entry(
        426,
        "WebSocket version 13 is needed: this address speaks WebSocket as in RFC 6455.",
        headers=(*SWITCHING, (b"Sec-WebSocket-Version", b"13")),
    ),
    "head_too_long": Entry(
        431,
        "The request head is too large: the limits are {limit_bytes} bytes and {limit_fields} header fields.",
    ),
    # Identities
    "token_wait": Entry(503, "The token could not be verified in time; try again.", Retry.SOON),
    "identity_question": Entry(
        401,
        "This relay requires a proof of the agent's identity: sign the value of Seance-Nonce and send the"
        " request again.",
        headers=((b"WWW-Authenticate", b"Seance-Agent"),),
    ),
    "identity_proof": Entry(
        401,
        "The proof of the agent's identity is not valid: it was used before, has expired, or is for another"
        " room or host; a proxy in front of the relay must not change Host.",
        headers=((b"WWW-Authenticate", b"Seance-Agent"),),
    ),
    # Limits and rooms of the relay
    "agent_certificate": Entry(
        401, "This relay accepts agents by client certificate, and this agent has sent none."
    ),
    "sent_away": Entry(401, "{reason}"),
    "agent_origin": Entry(
        403, "This web page may not attach as an agent: its Origin is not allowed on this relay."
    ),
    "room_not_found": Entry(404, "Room not found (agent not connected)"),
    "room_taken": Entry(
        409, "This room is taken: another agent serves it. Stop that agent, or choose another name."
    ),
    "room_reserved.left": Entry(
        409, "This room is reserved for the agent that has just left, for another {seconds} s."
    ),
    "room_reserved.lost": Entry(
        409, "This room is reserved for its agent, whose connection was lost, for another {seconds} s."
    ),
    "room_replaced": Entry(
        409, "Another process with this agent's key has taken this room; wait until it leaves."
    ),
    "address_full": Entry(
        429, "Your address has the maximum number of connections to this relay; close some first.", Retry.SOON
    ),
    "address_rate": Entry(
        429, "Too many connections a second for one address; try again later.", Retry.LATER
    ),
    "relay_full": Entry(
        429, "This relay has the maximum number of connections; try again later.", Retry.LATER
    ),
    "room_full": Entry(429, "This room has the maximum number of clients; try again later.", Retry.SOON),
    "room_rate": Entry(429, "Too many connections a second for one room; try again later.", Retry.LATER),
    "session_flaps": Entry(429, "This session reconnects too often; wait a little.", Retry.SOON),
    "token_full": Entry(429, "This token has the maximum number of connections; close one first."),
    "watchers_full": Entry(
        429, "Too many status watchers for this room or relay; try again later.", Retry.LATER
    ),
    "agent_refused": Entry(502, "The agent of this room did not accept the connection; try again."),
    "local_server_gone": Entry(
        502, "The agent of this room closed the connection before the local server answered."
    ),
    "local_server_silent": Entry(
        502, "The local server behind this room did not answer within {seconds:g} s."
    ),
    "agent_away": Entry(503, "The agent of this room is offline; try again.", Retry.SPREAD),
    "agent_gone": Entry(503, "The agent of this room has just disconnected; try again.", Retry.SOON),
    "agent_leaving": Entry(503, "The agent of this room is leaving; try again.", Retry.SOON),
    "parking_full": Entry(503, "The agent is offline and its wait queue is full; try again.", Retry.SPREAD),
    "relay_memory": Entry(503, "This relay has no memory for another agent; try again later.", Retry.SOON),
    "relay_stopping": Entry(503, "This relay is stopping; try again.", Retry.SPREAD),
    # The local server and its agent
    "local_server_gone.head": Entry(502, "The local server closed the connection before it answered."),
    "local_server_malformed": Entry(502, "The local server sent a response that is not well-formed HTTP."),
    "accept_mismatch": Entry(
        502, "The local server sent a Sec-WebSocket-Accept that does not match the key of this request."
    ),
    "local_server_refused": Entry(
        502, "The local server behind this room does not take connections: is it running?"
    ),
    "agent_limit": Entry(
        503,
        "The agent of this room has reached a limit of its process or machine; try again later.",
        Retry.LATER,
    ),
    **TOKEN_REFUSALS,
    **ADMIN_REFUSALS,
}
"""All refusals by code. A part after a dot tells apart two refusals with one code."""


def refusal(
    kind: str,
    *,
    retry: Retry | None = None,
    retry_seconds: int = 0,
    random: Callable[[int, int], int] = min,
    headers: Fields = (),
    **values: object,
) -> Refusal:
    """Return one refusal of the table, to be raised.

    Args:
        kind: The key of the entry in the table.
        retry: Another policy than that of the entry.
        retry_seconds: The value of ``Retry-After`` in place of any policy; 0 for the policy.
        random: Returns an integer between two bounds, both included, for ``Retry-After``.
        headers: Further fields of the response, after those of the entry.
        values: The fields of the message.
    """
    entry = REFUSALS[kind]
    headers = (*entry.headers, *headers)
    seconds = retry_seconds or random(*(retry or entry.retry).value)
    if seconds:
        headers = (*headers, (b"Retry-After", b"%d" % seconds))
    return Refusal(entry.status, entry.message.format(**values), code=kind.partition(".")[0], headers=headers)
