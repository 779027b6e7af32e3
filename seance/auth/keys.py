"""Keys that sign and verify tokens, and their forms in files.

A key determines its algorithm; tokens cannot choose another one:

=======================  =========  =======================================================
kind                     algorithm  written as
=======================  =========  =======================================================
Ed25519                  EdDSA      JWK or PEM; ``seance keygen`` makes these
shared secret, >= 32 B   HS256      JWK only. As plain text, any file would be accepted as a
                                    secret, even a public key, and then anyone could sign
RSA, 2048 to 8192 bits   RS256      JWK or PEM
P-256                    ES256      JWK or PEM
=======================  =========  =======================================================

A key without a ``kid``, such as every PEM key, gets its RFC 7638 thumbprint as name. A file with several
keys is a JWK set. ``seance.auth.key_files`` reads and writes files. ``seance.auth.jwks`` reads sets of other
issuers, which may contain keys for other purposes. PyJWT parses and writes the JWK.
"""

from __future__ import annotations

import enum
import json
import re
import secrets
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.utils import base64url_encode

from seance.auth.strict_json import object_from_json

__all__ = [
    "KEY_ID",
    "MAX_KEYS",
    "Key",
    "KeyAlgorithm",
    "key_from_jwk",
    "keys_from_text",
    "make_key",
    "make_secret",
]

KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A name, not a path or a query (RFC 8725, section 3.10)."""

MAX_KEYS = 64
"""Maximum number of keys in one file or set. Rotation needs two."""

SECRET_BYTES = range(32, 1025)
RSA_BITS = range(2048, 8193)
"""Minimum: RFC 7518, sections 3.2 and 3.3. Maximum: limits the cost of verifying a signature."""

PublicKey: TypeAlias = Ed25519PublicKey | RSAPublicKey | EllipticCurvePublicKey | bytes
PrivateKey: TypeAlias = Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey | bytes


class KeyAlgorithm(enum.Enum):
    """Signature algorithms, with their JWA names (RFC 7518, RFC 8037) as values."""

    EDDSA = "EdDSA"
    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


_ALGORITHMS: dict[type[Any], KeyAlgorithm] = {
    Ed25519PublicKey: KeyAlgorithm.EDDSA,
    bytes: KeyAlgorithm.HS256,
    RSAPublicKey: KeyAlgorithm.RS256,
    EllipticCurvePublicKey: KeyAlgorithm.ES256,
}

_SUPPORTED = "Ed25519 (EdDSA), RSA (RS256), P-256 (ES256) or a shared secret (HS256)"

_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e", "k")


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Two keys are equal if they have the same name and accept the same signatures.

    Attributes:
        key_id: Name of the key in tokens (``kid``).
        algorithm: The only algorithm for this key.
        fingerprint: SHA-256 of the part that verifies.
        verifying: The part that verifies: the public key or the shared secret.
        signing: The part that signs, or None if only the public part is known.
    """

    key_id: str
    algorithm: KeyAlgorithm
    fingerprint: bytes = field(repr=False)
    verifying: PublicKey = field(repr=False, compare=False)
    signing: PrivateKey | None = field(repr=False, compare=False)

    @property
    def is_shared(self) -> bool:
        """Whether the key is a shared secret, so that verifiers can sign too."""
        return self.algorithm is KeyAlgorithm.HS256

    def without_signing(self) -> Key:
        """Return the part that a relay needs."""
        return replace(self, signing=None)

    def public_jwk(self) -> dict[str, str]:
        """Return the public part as JWK. Do not publish that of a shared secret, which is the secret."""
        return self._named(_public_members(self.algorithm, self.verifying))

    def private_jwk(self) -> dict[str, str]:
        """Return an Ed25519 key or a shared secret as JWK, including the private part."""
        if isinstance(self.signing, Ed25519PrivateKey):
            return {**self.public_jwk(), "d": base64url_encode(self.signing.private_bytes_raw()).decode()}
        return self.public_jwk()

    def _named(self, members: dict[str, str]) -> dict[str, str]:
        return {"kid": self.key_id, "alg": self.algorithm.value, "use": "sig", **members}


def make_key() -> Key:
    """Return a new Ed25519 key."""
    return _key(Ed25519PrivateKey.generate(), None)


def make_secret() -> Key:
    """Return a new shared secret of 32 bytes. Its name is random, not derived from the secret."""
    return _key(secrets.token_bytes(SECRET_BYTES[0]), secrets.token_urlsafe(12))


def keys_from_text(text: bytes) -> tuple[Key, ...]:
    """Return the keys of a file: one PEM key, one JWK, or a JWK set.

    A set without keys is valid; it revokes the keys that the file contained before.

    Raises:
        ValueError: A key is missing, malformed or not accepted. The message is a predicate that follows the
            file's name.
    """
    if b"-----BEGIN " in text:
        return (_key_from_pem(text),)
    jwk = object_from_json(text)
    if "keys" not in jwk:
        return (key_from_jwk(jwk),)
    members = jwk["keys"]
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        msg = f"is not a JWK set of at most {MAX_KEYS} keys"
        raise ValueError(msg)
    keys = tuple(key_from_jwk(one) for one in members)
    if len({key.key_id for key in keys}) != len(keys):
        msg = "contains two keys with the same kid"
        raise ValueError(msg)
    return keys


def key_from_jwk(jwk: object) -> Key:
    """Return the key that a JWK describes.

    Raises:
        ValueError: It is not a JWK or not an accepted key; see ``keys_from_text``.
    """
    if not isinstance(jwk, dict):
        msg = "contains a key that is not a JWK"
        raise ValueError(msg)
    if jwk.get("use", "sig") != "sig":
        msg = f"contains a key with the use {jwk['use']!r}; only keys for signatures (sig) are accepted"
        raise ValueError(msg)
    key_id = jwk.get("kid")
    if "kid" in jwk and not (isinstance(key_id, str) and KEY_ID.fullmatch(key_id)):
        msg = "contains a key with a kid that is not 1 to 64 characters of A-Z a-z 0-9 . _ -"
        raise ValueError(msg)
    # Without ``alg`` PyJWT selects the algorithm by the kind of the key. Its errors may contain the key.
    members = {name: value for name, value in jwk.items() if isinstance(value, str) and name != "alg"}
    try:
        key = _key(jwt.PyJWK(members).key, key_id)
    except (jwt.PyJWTError, KeyError, UnsupportedAlgorithm):
        msg = f"contains a JWK that is damaged or of an unsupported kind; use {_SUPPORTED}"
        raise ValueError(msg) from None
    if jwk.get("crv", "") != key.public_jwk().get("crv", ""):
        msg = "contains a JWK with a crv that does not belong to its kty"
        raise ValueError(msg)
    if jwk.get("alg", key.algorithm.value) != key.algorithm.value:
        msg = f"contains a key with an unsupported alg; use {_SUPPORTED}"
        raise ValueError(msg)
    if key_id is None and key.is_shared:
        msg = "contains a shared secret without a kid; add one"
        raise ValueError(msg)
    return key


def _key_from_pem(text: bytes) -> Key:
    if text.count(b"-----BEGIN ") != 1:
        msg = "contains several PEM blocks; write one key to each file"
        raise ValueError(msg)
    if b"PRIVATE KEY-----" not in text and b"PUBLIC KEY-----" not in text:
        msg = "contains neither a private nor a public key; certificates are not accepted"
        raise ValueError(msg)
    material: Any  # any kind of key
    try:
        if b"PRIVATE KEY-----" in text:
            material = load_pem_private_key(text, password=None)
        else:
            material = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        msg = "contains a damaged key"
        raise ValueError(msg) from None
    except TypeError:
        msg = "is encrypted with a password; decrypt it first"
        raise ValueError(msg) from None
    return _key(material, None)


def _key(material: Any, key_id: str | None) -> Key:  # noqa: ANN401  # any kind of key
    """Return a key made of a private key, a public key or a secret, if it is of a supported kind and size."""
    signing, verifying = None, material
    if isinstance(material, bytes):
        _check_secret(material)
        signing = material
    elif hasattr(material, "public_key"):
        signing, verifying = material, material.public_key()
    algorithm = next((one for kind, one in _ALGORITHMS.items() if isinstance(verifying, kind)), None)
    if algorithm is None:
        msg = f"contains a key of an unsupported kind; use {_SUPPORTED}"
        raise ValueError(msg)
    if isinstance(verifying, RSAPublicKey) and verifying.key_size not in RSA_BITS:
        msg = f"contains an RSA key of {verifying.key_size} bits; use {RSA_BITS[0]} to {RSA_BITS[-1]}"
        raise ValueError(msg)
    if isinstance(verifying, EllipticCurvePublicKey) and not isinstance(verifying.curve, SECP256R1):
        msg = f"contains a key on the curve {verifying.curve.name}; use P-256"
        raise ValueError(msg)
    canonical = json.dumps(_public_members(algorithm, verifying), separators=(",", ":"), sort_keys=True)
    fingerprint = sha256(canonical.encode()).digest()
    return Key(key_id or base64url_encode(fingerprint).decode(), algorithm, fingerprint, verifying, signing)


def _check_secret(secret: bytes) -> None:
    if len(secret) not in SECRET_BYTES:
        msg = f"contains a secret of {len(secret)} bytes; use {SECRET_BYTES[0]} to {SECRET_BYTES[-1]}"
        raise ValueError(msg)
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.PyJWTError:
        msg = "contains a secret that is itself a key of another kind"
        raise ValueError(msg) from None


def _public_members(algorithm: KeyAlgorithm, verifying: PublicKey) -> dict[str, str]:
    """Return the required members of the public JWK, those of the thumbprint (RFC 7638, section 3.2)."""
    jwk = jwt.get_algorithm_by_name(algorithm.value).to_jwk(verifying, as_dict=True)
    return {name: str(jwk[name]) for name in _PUBLIC_MEMBERS if name in jwk}
