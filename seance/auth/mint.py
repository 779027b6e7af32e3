"""Makes tokens. What it makes, ``seance.auth.claims`` takes: each is read back before it is handed out.

For programs that invite people: ``mint_token(signing_key_from_file(path), Terms(...), now=time.time())``.
Any JWT library can do the same; nothing here is known to the relay but the key.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

import jwt

from seance.auth.claims import AUDIENCE, grant_from_claims
from seance.auth.keys import Key
from seance.auth.verifier import LONGEST_TOKEN, TYPES
from seance.core.interfaces import TokenRole
from seance.errors import ConfigError, Refusal

__all__ = ["Terms", "mint_token"]

TOKEN_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class Terms:
    """What a token shall allow. The fields are those of ``Grant``.

    Attributes:
        role: What the bearer may be.
        rooms: Names, or beginnings of names that end in one ``*``.
        ttl_seconds: It ends so many seconds after it was made.
        subject: Whom it is for.
        token_id: Its own name, for the deny list; random by default.
        origins: Web pages that may use it; none named means any.
        max_clients: Clients at a time.
        max_bytes_per_second: As it says.
        agent_identity: The one agent that its rooms belong to.
    """

    role: TokenRole
    rooms: tuple[str, ...]
    ttl_seconds: int
    subject: str | None = None
    token_id: str | None = None
    origins: tuple[str, ...] = ()
    max_clients: int | None = None
    max_bytes_per_second: int | None = None
    agent_identity: str | None = None


def mint_token(key: Key, terms: Terms, *, now: float) -> str:
    """Return a token.

    Args:
        key: A key that can sign; see ``signing_key_from_file``.
        terms: What it shall allow.
        now: Unix seconds.

    Raises:
        ConfigError: A term is not one that a relay would take, or there are too many.
    """
    payload = json.dumps(_claims(terms, int(now)), separators=(",", ":")).encode()
    try:
        grant_from_claims(payload, key_id=key.key_id, now=now)
    except Refusal as refusal:
        wrong = refusal.code.removeprefix("token_claim_")
        msg = f"No relay would take such a token: what {_WORDS.get(wrong, wrong)} says will not do."
        raise ConfigError(msg, code="token_terms") from refusal
    names = {"typ": TYPES[0], "kid": key.key_id}
    signer = jwt.PyJWS(algorithms=[key.algorithm.value])
    if key.signing is None:
        msg = "This is the public part of a key, which cannot sign."
        raise ConfigError(msg, code="token_key")
    token = signer.encode(payload, key.signing, algorithm=key.algorithm.value, headers=names)
    if len(token) > LONGEST_TOKEN:
        msg = (
            f"The token would have {len(token)} characters; a relay takes {LONGEST_TOKEN}. Name fewer rooms."
        )
        raise ConfigError(msg, code="token_terms")
    return token


def _claims(terms: Terms, now: int) -> dict[str, object]:
    limits = {"clients": terms.max_clients, "bps": terms.max_bytes_per_second}
    claims: dict[str, object] = {
        "aud": AUDIENCE,
        "role": terms.role.value,
        "room": terms.rooms[0] if len(terms.rooms) == 1 else list(terms.rooms),
        "iat": now,
        "exp": now + terms.ttl_seconds,
        "jti": terms.token_id or secrets.token_urlsafe(TOKEN_ID_BYTES),
        "sub": terms.subject,
        "org": list(terms.origins) or None,
        "max": {name: limit for name, limit in limits.items() if limit is not None} or None,
        "agt": terms.agent_identity,
    }
    return {name: value for name, value in claims.items() if value is not None}


_WORDS = {
    "room": "--room",
    "sub": "--sub",
    "jti": "--jti",
    "org": "--origin",
    "agt": "--agent-identity",
    "exp": "--ttl",
    "token_expired": "--ttl",
    "clients": "--max-clients",
    "bps": "--max-rate",
}
