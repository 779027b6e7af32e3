"""Keys of every kind, and functions that make valid and invalid tokens."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from seance.auth.keys import Key, key_from_jwk
from seance.auth.service import AuthService
from seance.core.interfaces import Grant, TokenRole, Verifier
from seance.errors import Refusal

__all__ = [
    "NOW",
    "ROOM",
    "SECRET",
    "auth_service",
    "base64",
    "claims",
    "code",
    "ed_key",
    "enter",
    "es_private",
    "grant_of",
    "jwk_of",
    "pem",
    "public_pem",
    "refusal_of",
    "rsa_private",
    "secret_key",
    "sign",
    "sign_raw",
    "token",
    "write_jwks",
]

NOW = 1_800_000_000.0
ROOM = "team-1"
SECRET = bytes(range(32))


def ed_key(key_id: str = "ed") -> Key:
    """Return the Ed25519 key with this name; it is the same in every call."""
    return _ed_key(key_id)


@cache
def _ed_key(key_id: str) -> Key:
    # Derived from the name, so that signatures in files stay valid.
    private = ed25519.Ed25519PrivateKey.from_private_bytes(sha256(key_id.encode()).digest())
    jwk = jwt.get_algorithm_by_name("EdDSA").to_jwk(private, as_dict=True)
    return key_from_jwk({**jwk, "kid": key_id})


@cache
def rsa_private(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def es_private() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def secret_key(key_id: str = "hs", secret: bytes = SECRET) -> Key:
    return key_from_jwk({"kty": "oct", "kid": key_id, "k": base64(secret)})


def jwk_of(private: Any, algorithm: str, **members: str) -> dict[str, Any]:
    """Return the public JWK of a private key."""
    return {**jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True), **members}


def pem(private: Any) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(private: Any) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a valid client's token; ``...`` leaves a claim out."""
    good = {"aud": "seance-relay", "role": "client", "room": ROOM, "exp": int(NOW) + 3600}
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def sign_raw(header: bytes, payload: bytes, *, material: Any, algorithm: str) -> str:
    """Return a signed token with any header and payload."""
    algorithm_object = jwt.get_algorithm_by_name(algorithm)
    signed = f"{base64(header)}.{base64(payload)}"
    signature = algorithm_object.sign(signed.encode(), material)
    return f"{signed}.{base64(signature)}"


def sign(
    payload: dict[str, Any] | bytes,
    *,
    material: Any = None,
    algorithm: str = "EdDSA",
    header: dict[str, Any] | bytes | None = None,
    **names: Any,
) -> str:
    """Return a token, signed by the Ed25519 key by default; ``names`` change its header."""
    usual = {"alg": algorithm, "typ": "seance+jwt", "kid": "ed"}
    if header is None:
        header = {name: value for name, value in {**usual, **names}.items() if value is not ...}
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return sign_raw(head, body, material=material or ed_key().signing, algorithm=algorithm)


def token(**changes: Any) -> str:
    """Return a token with valid claims except for ``changes``."""
    return sign(claims(**changes))


def auth_service(clock: Clock, **options: Any) -> AuthService:
    """Return a service whose time starts at ``NOW`` and follows the clock."""
    return AuthService(clock, now=lambda: NOW + clock.seconds(), **options)


def write_jwks(path: Path, *keys: Key | dict[str, Any]) -> Path:
    """Write a JWK set; a ``Key`` is written with its private part."""
    members = [key.private_jwk() if isinstance(key, Key) else key for key in keys]
    path.write_text(json.dumps({"keys": members}))
    path.chmod(0o600)
    return path


def grant_of(verifying: Deferred[Grant]) -> Grant:
    result = _result_of(verifying)
    if isinstance(result, Failure):
        result.raiseException()
    assert isinstance(result, Grant)
    return result


def refusal_of(verifying: Deferred[Grant]) -> Refusal:
    result = _result_of(verifying)
    assert isinstance(result, Failure), f"granted: {result}"
    assert type(result.value) is Refusal, repr(result.value)
    return result.value


def _result_of(verifying: Deferred[Grant]) -> object:
    results: list[object] = []
    verifying.addBoth(results.append)
    assert results, "the verification is still waiting"
    return results[0]


def enter(service: Verifier, text: str, room: str = ROOM) -> Grant:
    """Return the grant of a client."""
    return grant_of(service.verify(text, TokenRole.CLIENT, room))


def code(service: Verifier, text: str, room: str = ROOM) -> str:
    """Return the code of the refusal of a client."""
    return refusal_of(service.verify(text, TokenRole.CLIENT, room)).code
