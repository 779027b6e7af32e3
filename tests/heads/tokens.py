"""Unsigned tokens in the form of Seance tokens, and tokens of an app."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode

__all__ = ["APP", "OURS", "OURS_BY_AUDIENCE", "jwt_of"]


def jwt_of(header: object, payload: object, signature: bytes = b"s" * 86) -> bytes:
    """Return a JWT with these parts; bytes are used without JSON encoding."""
    return b".".join((_part(header), _part(payload), signature))


def _part(content: object) -> bytes:
    raw = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


OURS = jwt_of({"alg": "EdDSA", "typ": "seance+jwt", "kid": "k1"}, {"aud": "seance-relay", "room": "ID"})
OURS_BY_AUDIENCE = jwt_of({"alg": "HS256", "typ": "JWT"}, {"aud": "seance-relay", "sub": "ada"}, b"S" * 43)
APP = jwt_of({"alg": "HS256", "typ": "JWT"}, {"aud": "app", "sub": "ada"}, b"A" * 43)
