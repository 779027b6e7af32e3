"""The two answers to a token that will not do, each with the same words for all tokens of a role.

Whoever guesses at tokens learns from the answer that it was no, and nothing else. What was wrong
is in ``code``, which goes to logs and metrics and never to the peer.
"""

from __future__ import annotations

from seance.core.interfaces import TokenRole
from seance.errors import Refusal

__all__ = ["AGENT_NOT_ACCEPTED", "NOT_ACCEPTED", "NOT_ALLOWED", "not_accepted", "not_allowed"]

NOT_ACCEPTED = "A valid access token is needed here: ask whoever invited you for a new link."
AGENT_NOT_ACCEPTED = (
    "A valid access token of role agent is needed here: ask the relay's operator for one, or compare the "
    "relay's clock with that of the machine where yours was made."
)
NOT_ALLOWED = "The access token is not for this room or this role: ask for one that is."

CHALLENGE = ((b"WWW-Authenticate", b'Bearer realm="seance"'),)
"""RFC 9110, 11.6.1: a 401 says how to do better. No ``error``: see above."""


def not_accepted(code: str, role: TokenRole = TokenRole.CLIENT) -> Refusal:
    """Return the 401: something is wrong with the token itself.

    Args:
        code: What is wrong, for logs and metrics; starts with ``token_``.
        role: The role that was asked for. The sentence depends on it and on nothing else.
    """
    sentence = AGENT_NOT_ACCEPTED if role is TokenRole.AGENT else NOT_ACCEPTED
    return Refusal(401, sentence, code=code, headers=CHALLENGE)


def not_allowed(code: str) -> Refusal:
    """Return the 403: the token is good, but not for what was asked.

    Args:
        code: What it is not good for: ``token_room``, ``token_role`` or ``room_denied``.
    """
    return Refusal(403, NOT_ALLOWED, code=code)
