"""Every refusal that a relay itself sends: status, message and retry policy of each code, in one table.

Refusals of request heads and tokens are in ``seance.heads`` and ``seance.auth``. docs/protocol.md lists all
of them; a test compares the two.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from random import randint
from typing import TYPE_CHECKING, Final

from seance.errors import Refusal

if TYPE_CHECKING:
    from seance.heads.fields import Fields

__all__ = ["REFUSALS", "RefusalKind", "Retry", "refusal"]


class Retry(enum.Enum):
    """The ``Retry-After`` of a refusal: the least and the most seconds."""

    NONE = (0, 0)
    """No field: the same request will not succeed later, or the peer decides."""

    SOON = (2, 2)
    """For requests that may be an agent's: its clients wait 15 s, and 5 s would be a third of that."""

    SPREAD = (2, 5)
    """A random value for each client: clients that were refused together do not return together."""

    LATER = (5, 5)


@dataclass(frozen=True, slots=True)
class RefusalKind:
    """One row of the table.

    Attributes:
        status: The HTTP status.
        message: The body of the response, a template for ``str.format``.
        retry: The policy for ``Retry-After``.
    """

    status: int
    message: str
    retry: Retry = Retry.NONE


REFUSALS: Final[dict[str, RefusalKind]] = {
    "agent_certificate": RefusalKind(
        401, "This relay accepts agents by client certificate, and this agent has sent none."
    ),
    "sent_away": RefusalKind(401, "{reason}"),
    "agent_origin": RefusalKind(
        403, "This web page may not attach as an agent: its Origin is not allowed on this relay."
    ),
    "room_not_found": RefusalKind(404, "Room not found (agent not connected)"),
    "method.health": RefusalKind(405, "Only GET, HEAD and OPTIONS are allowed at this address."),
    "method": RefusalKind(405, "Only GET and HEAD are allowed at this address."),
    "head_timeout": RefusalKind(408, "The request head did not arrive in time; send all of it together."),
    "room_taken": RefusalKind(
        409, "This room is taken: another agent serves it. Stop that agent, or choose another name."
    ),
    "room_reserved.left": RefusalKind(
        409, "This room is reserved for the agent that has just left, for another {seconds} s."
    ),
    "room_reserved.lost": RefusalKind(
        409, "This room is reserved for its agent, whose connection was lost, for another {seconds} s."
    ),
    "room_replaced": RefusalKind(
        409, "Another process with this agent's key has taken this room; wait until it leaves."
    ),
    "address_full": RefusalKind(
        429,
        "Your address has the maximum number of connections to this relay; close some first.",
        Retry.SOON,
    ),
    "address_rate": RefusalKind(
        429, "Too many connections a second for one address; try again later.", Retry.LATER
    ),
    "relay_full": RefusalKind(
        429, "This relay has the maximum number of connections; try again later.", Retry.LATER
    ),
    "room_full": RefusalKind(
        429, "This room has the maximum number of clients; try again later.", Retry.SOON
    ),
    "room_rate": RefusalKind(
        429, "Too many connections a second for one room; try again later.", Retry.LATER
    ),
    "session_flaps": RefusalKind(429, "This session reconnects too often; wait a little.", Retry.SOON),
    "token_full": RefusalKind(429, "This token has the maximum number of connections; close one first."),
    "watchers_full": RefusalKind(
        429, "Too many status watchers for this room or relay; try again later.", Retry.LATER
    ),
    "agent_refused": RefusalKind(502, "The agent of this room did not accept the connection; try again."),
    "local_server_gone": RefusalKind(
        502, "The agent of this room closed the connection before the local server answered."
    ),
    "local_server_silent": RefusalKind(
        502, "The local server behind this room did not answer within {seconds:g} s."
    ),
    "agent_away": RefusalKind(503, "The agent of this room is offline; try again.", Retry.SPREAD),
    "agent_gone": RefusalKind(503, "The agent of this room has just disconnected; try again.", Retry.SOON),
    "agent_leaving": RefusalKind(503, "The agent of this room is leaving; try again.", Retry.SOON),
    "parking_full": RefusalKind(
        503, "The agent is offline and its wait queue is full; try again.", Retry.SPREAD
    ),
    "relay_memory": RefusalKind(
        503, "This relay has no memory for another agent; try again later.", Retry.SOON
    ),
    "relay_stopping": RefusalKind(503, "This relay is stopping; try again.", Retry.SPREAD),
    "token_wait": RefusalKind(503, "The token could not be verified in time; try again.", Retry.SOON),
}
"""By code. A part after a dot tells apart two refusals with one code."""


def refusal(
    kind: str, *, retry: Retry | None = None, retry_seconds: int = 0, headers: Fields = (), **values: object
) -> Refusal:
    """Return one refusal of the table, to be raised.

    Args:
        kind: The row of the table.
        retry: Another policy than that of the row.
        retry_seconds: The value of ``Retry-After`` in place of any policy; 0 for the policy.
        headers: Further fields of the response.
        values: The fields of the message.
    """
    row = REFUSALS[kind]
    least, most = (retry or row.retry).value
    seconds = retry_seconds or randint(least, most)  # noqa: S311  # not for security
    if seconds:
        headers = (*headers, (b"Retry-After", b"%d" % seconds))
    return Refusal(row.status, row.message.format(**values), code=kind.partition(".")[0], headers=headers)
