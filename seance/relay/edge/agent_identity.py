"""Who an agent is: what its token says, or what it proves with a key of its own.

The relay's side of ``seance.agent.identity``; the front asks when an agent wants a room. Not the place
where proofs are checked: that is the ``IdentityVerifier``. docs/protocol.md, "Proving who an agent is".
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
    """Return who an agent is, None for nobody in particular; and the header fields for its answer.

    Args:
        identities: Who checks proofs; None: nobody does here.
        request: The agent's.
        room: The room it wants.
        grant: What its token allows; one that names an agent needs no other proof.
        is_forwarded: Whether a trusted proxy has brought it, which may say where it was dialled.
        now: Seconds, monotonic.

    Raises:
        Refusal: 401, the proof is not good, or there is none yet.
    """
    named = None if grant is None else identity_of(grant)
    claims = _claims(request)
    if named is not None or identities is None or not claims:
        return named, {}
    host = request.values(b"host")[0]
    if is_forwarded:
        told = b",".join(request.values(b"x-forwarded-host")).rpartition(b",")[2].strip()
        host = told or host
    claim = b",".join(claims).decode("latin-1")
    identity = identities.check(claim, room, host.decode("latin-1"), now)
    return identity, challenge(identities, request, now)


def challenge(identities: IdentityVerifier | None, request: Request, now: float) -> dict[str, str]:
    """Return what an agent with a key will have to prove itself with next time, as header fields."""
    if identities is None or not _claims(request):
        return {}
    return {NONCE_FIELD: identities.challenge(now)}


def _claims(request: Request) -> list[bytes]:
    return request.values(AGENT_FIELD.lower().encode())
