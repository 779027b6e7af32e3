"""The two refusals for tokens, 401 and 403.

The response is the same for all invalid tokens of a role, so that an attacker who guesses tokens learns
nothing from it. The reason is in ``code``, which is used in logs and metrics and not sent to the peer.
"""

from __future__ import annotations

from seance.core.interfaces import TokenRole
from seance.errors import Refusal

__all__ = ["AGENT_NOT_ACCEPTED", "NOT_ACCEPTED", "NOT_ALLOWED", "not_accepted", "not_allowed"]

NOT_ACCEPTED = "A valid access token is required: ask the person who invited you for a new link."
AGENT_NOT_ACCEPTED = (
    "A valid access token of role agent is required: ask the relay's operator for one, or compare the "
    "relay's clock with that of the machine where yours was made."
)
NOT_ALLOWED = "The access token does not allow this room or this role: ask for one that does."

CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="seance"'),)
"""Required in a 401 (RFC 9110, 11.6.1). The parameter ``error`` is left out, because it names the reason."""


def not_accepted(code: str, role: TokenRole = TokenRole.CLIENT) -> Refusal:
    """Return the 401 for a missing or invalid token.

    Args:
        code: The reason, for logs and metrics; starts with ``token_``.
        role: The role of the request. The message depends only on it.
    """
    message = AGENT_NOT_ACCEPTED if role is TokenRole.AGENT else NOT_ACCEPTED
    return Refusal(401, message, code=code, headers=CHALLENGE)


def not_allowed(code: str) -> Refusal:
    """Return the 403 for a valid token that does not allow the request.

    Args:
        code: The reason: ``token_room``, ``token_role`` or ``room_denied``.
    """
    return Refusal(403, NOT_ALLOWED, code=code)
