"""The keys that sign and verify tokens, and how they are written down.

A key knows its one algorithm; nothing else in this package chooses one:

=======================  =========  =======================================================
kind                     algorithm  written as
=======================  =========  =======================================================
Ed25519                  EdDSA      JWK or PEM; what ``seance keygen`` makes
shared secret, >= 32 B   HS256      JWK alone: as bare text, any file would pass for a secret,
                                    a public key too, and everybody could sign
RSA, 2048 to 8192 bits   RS256      JWK or PEM
P-256                    ES256      JWK or PEM
=======================  =========  =======================================================

A key without a ``kid`` of its own, as every PEM is, is called by its RFC 7638 thumbprint. Several
keys in one file are a JWK set. Files are ``seance.auth.key_files``; whole sets from elsewhere, which
may hold keys that are none of ours, are ``seance.auth.jwks``.
"""

from __future__ import annotations

import enum
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
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

from seance.auth.strict_json import object_from_json

__all__ = [
    "KEY_ID",
    "MOST_KEYS",
    "Key",
    "KeyAlgorithm",
    "key_from_jwk",
    "keys_from_text",
    "make_key",
    "make_secret",
]

KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A name and nothing more: no path, no query (RFC 8725, section 3.10)."""

MOST_KEYS = 64
"""In one file or set. Rotation needs two."""

SECRET_BYTES = range(32, 1025)
RSA_BITS = range(2048, 8193)
"""At least: RFC 7518, sections 3.2 and 3.3. At most: what a check of a signature may cost."""

PublicKey: TypeAlias = Ed25519PublicKey | RSAPublicKey | EllipticCurvePublicKey | bytes
PrivateKey: TypeAlias = Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey | bytes


class KeyAlgorithm(enum.Enum):
    """The value is JWA's name (RFC 7518, RFC 8037)."""

    EDDSA = "EdDSA"
    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Two are equal if they have the same name and accept the same signatures.

    Attributes:
        key_id: What tokens call it (``kid``).
        algorithm: The only one that it is used with.
        fingerprint: SHA-256 of what verifies.
        verifying: What verifies; of a shared secret, the secret.
        signing: What signs, where that is known.
    """

    key_id: str
    algorithm: KeyAlgorithm
    fingerprint: bytes = field(repr=False)
    verifying: PublicKey = field(repr=False, compare=False)
    signing: PrivateKey | None = field(repr=False, compare=False)

    @property
    def is_shared(self) -> bool:
        """Whether whoever can verify can sign, too."""
        return self.algorithm is KeyAlgorithm.HS256

    def without_signing(self) -> Key:
        """Return the part that a relay needs."""
        return replace(self, signing=None)

    def public_jwk(self) -> dict[str, str]:
        """Return what may be shown to everybody; not for a shared secret."""
        return self._named(_thumbprint_members(self.algorithm, self.verifying))

    def private_jwk(self) -> dict[str, str]:
        """Return all of an Ed25519 key or a shared secret, as ``seance keygen`` writes it."""
        if isinstance(self.signing, Ed25519PrivateKey):
            private = _base64(self.signing.private_bytes_raw())
            return {**self.public_jwk(), "d": private}
        return self._named(_thumbprint_members(self.algorithm, self.verifying))

    def _named(self, members: Mapping[str, str]) -> dict[str, str]:
        return {"kid": self.key_id, "alg": self.algorithm.value, "use": "sig", **members}


def make_key() -> Key:
    """Make an Ed25519 key."""
    return _key(KeyAlgorithm.EDDSA, Ed25519PrivateKey.generate(), None)


def make_secret() -> Key:
    """Make a shared secret of 32 bytes. Its name is random and says nothing about it."""
    return _key(KeyAlgorithm.HS256, secrets.token_bytes(SECRET_BYTES[0]), secrets.token_urlsafe(12))


def keys_from_text(text: bytes) -> tuple[Key, ...]:
    """Return the keys of a file: one as PEM, one as JWK, or a JWK set.

    A set without keys is fine: that is how the keys of a file are taken away.

    Raises:
        ValueError: There is none in it, or one that will not do, with half a sentence.
    """
    if b"-----BEGIN " in text:
        return (_key_from_pem(text),)
    jwk = object_from_json(text)
    if "keys" not in jwk:
        return (key_from_jwk(jwk),)
    several = jwk["keys"]
    if not isinstance(several, list) or len(several) > MOST_KEYS:
        msg = f"is not a JWK set of at most {MOST_KEYS} keys"
        raise ValueError(msg)
    keys = tuple(key_from_jwk(one) for one in several)
    if len({key.key_id for key in keys}) != len(keys):
        msg = "has two keys of the same kid"
        raise ValueError(msg)
    return keys


def key_from_jwk(jwk: object) -> Key:
    """Return the key that a JWK describes.

    Raises:
        ValueError: It is none, or not one of the four kinds, with half a sentence.
    """
    if not isinstance(jwk, dict):
        msg = "holds something that is not a JWK"
        raise ValueError(msg)
    algorithm = _KINDS.get((_text(jwk, "kty"), _text(jwk, "crv")))
    if algorithm is None or jwk.get("alg", algorithm.value) != algorithm.value:
        msg = "holds a key of another kind than EdDSA (Ed25519), RS256, ES256 and HS256"
        raise ValueError(msg)
    if jwk.get("use", "sig") != "sig":
        msg = "holds a key that is not for signatures"
        raise ValueError(msg)
    members = {name: value for name, value in jwk.items() if isinstance(value, str)}
    if not members.keys() >= set(_THUMBPRINT_MEMBERS[algorithm]):
        msg = f"holds a key without {' or '.join(_THUMBPRINT_MEMBERS[algorithm])}"
        raise ValueError(msg)
    try:
        material = jwt.get_algorithm_by_name(algorithm.value).from_jwk(members)
    except (jwt.PyJWTError, ValueError, UnsupportedAlgorithm):
        msg = "holds a damaged key"
        raise ValueError(msg) from None
    key_id = jwk.get("kid")
    if "kid" in jwk and not (isinstance(key_id, str) and KEY_ID.fullmatch(key_id)):
        msg = "holds a key whose kid is not 1 to 64 of A-Z a-z 0-9 . _ -"
        raise ValueError(msg)
    if key_id is None and algorithm is KeyAlgorithm.HS256:
        msg = "holds a secret without a kid"
        raise ValueError(msg)
    return _key(algorithm, material, key_id)


def _key_from_pem(text: bytes) -> Key:
    if text.count(b"-----BEGIN ") != 1:
        msg = "holds more than one PEM block; write one key to a file"
        raise ValueError(msg)
    load: Callable[[bytes], Any]  # of whatever kind of key
    if b"PRIVATE KEY-----" in text:
        load = _load_private
    elif b"PUBLIC KEY-----" in text:
        load = load_pem_public_key
    else:
        msg = "holds neither a private nor a public key; certificates are not taken"
        raise ValueError(msg)
    try:
        material = load(text)
    except (ValueError, UnsupportedAlgorithm):
        msg = "holds a damaged key"
        raise ValueError(msg) from None
    except TypeError:
        msg = "is locked with a password; unlock it first"
        raise ValueError(msg) from None
    for algorithm, kinds in _CLASSES.items():
        if isinstance(material, kinds):
            return _key(algorithm, material, None)
    msg = "holds a key of another kind than Ed25519, RSA and P-256"
    raise ValueError(msg)


def _load_private(text: bytes) -> Any:  # noqa: ANN401  # of whatever kind of key
    return load_pem_private_key(text, password=None)


def _key(algorithm: KeyAlgorithm, material: PrivateKey | PublicKey, key_id: str | None) -> Key:
    """Return a key of this material, whole or public, if it is strong enough."""
    signing, verifying = _halves(material)
    if isinstance(verifying, bytes):
        _check_secret(verifying)
    if isinstance(verifying, RSAPublicKey) and verifying.key_size not in RSA_BITS:
        msg = f"holds an RSA key of {verifying.key_size} bits; use {RSA_BITS[0]} to {RSA_BITS[-1]}"
        raise ValueError(msg)
    if isinstance(verifying, EllipticCurvePublicKey) and not isinstance(verifying.curve, SECP256R1):
        msg = f"holds a key on the curve {verifying.curve.name}; use P-256"
        raise ValueError(msg)
    members = _thumbprint_members(algorithm, verifying)
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True)
    fingerprint = sha256(canonical.encode()).digest()
    return Key(key_id or _base64(fingerprint), algorithm, fingerprint, verifying, signing)


def _halves(material: PrivateKey | PublicKey) -> tuple[PrivateKey | None, PublicKey]:
    if isinstance(material, bytes):
        return material, material
    if isinstance(material, Ed25519PrivateKey | RSAPrivateKey | EllipticCurvePrivateKey):
        return material, material.public_key()
    return None, material


def _check_secret(secret: bytes) -> None:
    if len(secret) not in SECRET_BYTES:
        msg = f"holds a secret of {len(secret)} bytes; use {SECRET_BYTES[0]} to {SECRET_BYTES[-1]}"
        raise ValueError(msg)
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.PyJWTError:
        msg = "holds a secret that is itself a key of another kind"
        raise ValueError(msg) from None


def _thumbprint_members(algorithm: KeyAlgorithm, verifying: PublicKey) -> dict[str, str]:
    """Return the members of the JWK that make the key what it is (RFC 7638, section 3.2)."""
    jwk = jwt.get_algorithm_by_name(algorithm.value).to_jwk(verifying, as_dict=True)
    return {name: str(jwk[name]) for name in ("kty", *_THUMBPRINT_MEMBERS[algorithm])}


def _text(jwk: Mapping[str, object], name: str) -> str:
    value = jwk.get(name, "")
    return value if isinstance(value, str) else "?"


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


_KINDS = {
    ("OKP", "Ed25519"): KeyAlgorithm.EDDSA,
    ("oct", ""): KeyAlgorithm.HS256,
    ("RSA", ""): KeyAlgorithm.RS256,
    ("EC", "P-256"): KeyAlgorithm.ES256,
}

_CLASSES: dict[KeyAlgorithm, tuple[type[Any], ...]] = {
    KeyAlgorithm.EDDSA: (Ed25519PrivateKey, Ed25519PublicKey),
    KeyAlgorithm.RS256: (RSAPrivateKey, RSAPublicKey),
    KeyAlgorithm.ES256: (EllipticCurvePrivateKey, EllipticCurvePublicKey),
}

_THUMBPRINT_MEMBERS = {
    KeyAlgorithm.EDDSA: ("crv", "x"),
    KeyAlgorithm.HS256: ("k",),
    KeyAlgorithm.RS256: ("n", "e"),
    KeyAlgorithm.ES256: ("crv", "x", "y"),
}
