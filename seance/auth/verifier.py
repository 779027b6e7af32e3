"""Verifies the signature of a token.

It works in two steps, because the key is looked up between them. ``read_header`` costs microseconds, since
anyone can cause it. ``signed_payload`` verifies the signature. ``seance.auth.claims`` reads the payload.

A token only names its key (``kid``). The key determines the algorithm, and the header must agree. Header
parameters that contain a key or its address (``jku``, ``jwk``, ``x5u``, ``x5c``), and those that change how a
token is read (``crit``, ``b64``, ``zip``), are refused, not ignored: tokens with them are attacks on
verifiers that trust them (RFC 8725, sections 3.1 and 3.10).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import jwt
from jwt.utils import base64url_decode

from seance.auth.keys import KEY_ID, Key, KeyAlgorithm
from seance.auth.strict_json import object_from_json
from seance.heads.refusals import refusal

__all__ = ["MAX_TOKEN_LENGTH", "Header", "read_header", "signed_payload"]

MAX_TOKEN_LENGTH = 4096
"""Characters. Tokens of ``seance token`` have 300 to 500; the limit of a whole head is 16 KiB."""

TYPES = ("seance+jwt", "JWT")

KNOWN_NAMES = {"alg", "typ", "kid", "x5t", "x5t#S256"}
"""The last two are certificate fingerprints that some issuers always add; they are not used."""

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_READERS = {one: jwt.PyJWS(algorithms=[one.value]) for one in KeyAlgorithm}
"""One reader for each algorithm, which supports only that."""


@dataclass(frozen=True, slots=True)
class Header:
    """The unverified header of a token.

    Attributes:
        algorithm: The claimed algorithm.
        key_id: The name of the key, or None.
    """

    algorithm: str
    key_id: str | None


def read_header(token: str) -> Header:
    """Return the header of a token. Find its key and call ``signed_payload`` next.

    Args:
        token: The token as received.

    Raises:
        Refusal: 401: the token is missing or malformed.
    """
    if not token:
        raise refusal("token_missing")
    match = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_LENGTH else None
    if match is None:
        raise refusal("token_form")
    try:
        header = object_from_json(base64url_decode(match[1]))
    except ValueError:
        raise refusal("token_header") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    is_known = header.keys() <= KNOWN_NAMES and header.get("typ", TYPES[0]) in TYPES
    if not is_known or not isinstance(algorithm, str):
        raise refusal("token_header")
    if "kid" in header and not (isinstance(key_id, str) and KEY_ID.fullmatch(key_id)):
        raise refusal("token_header")
    return Header(algorithm, key_id if isinstance(key_id, str) else None)


def signed_payload(token: str, header: Header, key: Key) -> bytes:
    """Return the payload of a token that ``key`` has signed.

    Args:
        token: The token.
        header: The result of ``read_header`` for it.
        key: The key with the name in the header.

    Raises:
        Refusal: 401: the signature is not valid, or the token claims another algorithm than the key's.
    """
    if header.algorithm != key.algorithm.value:
        raise refusal("token_algorithm")
    try:
        payload = _READERS[key.algorithm].decode(token, key.verifying, algorithms=[key.algorithm.value])
    except jwt.PyJWTError:
        raise refusal("token_signature") from None
    return bytes(payload)
