"""Makes tokens.

Programs that invite users call ``mint_token(signing_key_from_file(path), Terms(...), now=time.time())``. Any
JWT library can make tokens too; the relay only needs the key. Each token is checked with
``seance.auth.claims`` before it is returned.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

import jwt

from seance.auth.claims import AUDIENCE, grant_from_claims
from seance.auth.keys import Key
from seance.auth.verifier import MAX_TOKEN_LENGTH, TYPES
from seance.core.interfaces import TokenRole
from seance.errors import ConfigError, Refusal

__all__ = ["Terms", "mint_token"]

TOKEN_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class Terms:
    """The permissions of a token. The fields correspond to those of ``Grant``.

    Attributes:
        role: The role of the bearer.
        rooms: Names of rooms, or prefixes of names followed by ``*``.
        ttl_seconds: Validity of the token in seconds.
        subject: Name of the bearer.
        token_id: ID of the token, for the deny list; random by default.
        origins: Origins of web pages that may use the token; empty means any.
        max_clients: Maximum number of clients at a time.
        max_bytes_per_second: Maximum rate in bytes per second.
        agent_identity: The agent that owns the rooms.
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
        terms: The permissions.
        now: Unix seconds.

    Raises:
        ConfigError: A relay would not accept a value, or the token would be too long.
    """
    payload = json.dumps(_claims(terms, int(now)), separators=(",", ":")).encode()
    try:
        grant_from_claims(payload, key_id=key.key_id, now=now)
    except Refusal as refusal:
        wrong = refusal.code.removeprefix("token_claim_")
        msg = f"A relay would not accept this token: the value of {_OPTIONS.get(wrong, wrong)} is not valid."
        raise ConfigError(msg, code="token_terms") from refusal
    if key.signing is None:
        msg = f"The key {key.key_id} is a public key, which cannot sign; use the private key."
        raise ConfigError(msg, code="token_key")
    header = {"typ": TYPES[0], "kid": key.key_id}
    signer = jwt.PyJWS(algorithms=[key.algorithm.value])
    token = signer.encode(payload, key.signing, algorithm=key.algorithm.value, headers=header)
    if len(token) > MAX_TOKEN_LENGTH:
        msg = (
            f"The token would have {len(token)} characters; the limit is {MAX_TOKEN_LENGTH}. "
            "Name fewer rooms."
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


_OPTIONS = {
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
