"""The identity of an agent: named by its token, or proven with its own key.

The relay's side of ``seance.agent.identity``. The ``IdentityVerifier`` checks the proof. Wire format:
docs/protocol.md, "Proving who an agent is".
"""

from __future__ import annotations

from seance.core.handshake_fields import AGENT_FIELD, NONCE_FIELD
from seance.core.interfaces import Grant, IdentityVerifier, identity_of
from seance.heads import Request

__all__ = ["authenticate_agent", "challenge"]


def authenticate_agent(
    identities: IdentityVerifier | None,
    request: Request,
    room: str,
    grant: Grant | None,
    *,
    is_forwarded: bool,
    now: float,
) -> tuple[str | None, dict[str, str]]:
    """Return the identity of an agent, or None, and the header fields for the response.

    Args:
        identities: Verifies proofs; None: this relay asks for none.
        request: The request of the agent.
        room: The room that it asks for.
        grant: What its token allows; a token that names an agent needs no other proof.
        is_forwarded: Whether the request came through a trusted proxy, whose ``X-Forwarded-Host`` then
            counts.
        now: Seconds, monotonic.

    Raises:
        Refusal: 401, the proof is missing or invalid.
    """
    named = None if grant is None else identity_of(grant)
    claims = _claims(request)
    if named is not None or identities is None or not claims:
        return named, {}
    host = request.values(b"host")[0]
    if is_forwarded:
        forwarded = b",".join(request.values(b"x-forwarded-host")).rpartition(b",")[2].strip()
        host = forwarded or host
    claim = b",".join(claims).decode("latin-1")
    identity = identities.check(claim, room, host.decode("latin-1"), now)
    return identity, challenge(identities, request, now)


def challenge(identities: IdentityVerifier | None, request: Request, now: float) -> dict[str, str]:
    """Return the header fields with the nonce for the next proof of an agent with a key."""
    if identities is None or not _claims(request):
        return {}
    return {NONCE_FIELD: identities.challenge(now)}


def _claims(request: Request) -> list[bytes]:
    return request.values(AGENT_FIELD.lower().encode())
