"""Whether a token was signed by a key of ours: text in, signed bytes out, or a refusal.

Pure, and in two steps, because the key has to be looked up between them: ``read_header`` is what
an attacker gets for nothing and therefore costs microseconds; ``signed_payload`` does the
arithmetic. What the bytes mean is ``seance.auth.claims``.

A token names its key by ``kid`` and that is all it may say about it. The algorithm is the key's;
the header only has to agree. Names that would bring a key along or say where to fetch one
(``jku``, ``jwk``, ``x5u``, ``x5c``) and those that change how a token is read (``crit``, ``b64``,
``zip``) are refused, not ignored: a token that has them was made for somebody who falls for them
(RFC 8725, sections 3.1 and 3.10).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass

import jwt

from seance.auth.keys import KEY_ID, Key, KeyAlgorithm
from seance.auth.refusals import not_accepted
from seance.auth.strict_json import object_from_json

__all__ = ["LONGEST_TOKEN", "Header", "read_header", "signed_payload"]

LONGEST_TOKEN = 4096
"""Characters. What ``seance token`` makes has 300 to 500; a whole head has 16 KiB."""

TYPES = ("seance+jwt", "JWT")

KNOWN_NAMES = {"alg", "typ", "kid", "x5t", "x5t#S256"}
"""The last two are fingerprints that some issuers always add; they name something and lead nowhere."""

_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_READERS = {one: jwt.PyJWS(algorithms=[one.value]) for one in KeyAlgorithm}
"""One for each algorithm, that knows no other."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says about its key. Nobody has signed it yet.

    Attributes:
        algorithm: What it claims to be signed with.
        key_id: The name of the key, or None.
    """

    algorithm: str
    key_id: str | None


def read_header(token: str) -> Header:
    """Read what a token says about its key; call ``signed_payload`` with that key next.

    Args:
        token: Whatever the peer has sent.

    Raises:
        Refusal: 401.
    """
    if not token:
        raise not_accepted("token_missing")
    match = _TOKEN.fullmatch(token) if len(token) <= LONGEST_TOKEN else None
    if match is None:
        raise not_accepted("token_form")
    try:
        header = object_from_json(_from_base64(match[1]))
    except ValueError:
        raise not_accepted("token_header") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    is_known = header.keys() <= KNOWN_NAMES and header.get("typ", TYPES[0]) in TYPES
    if not is_known or not isinstance(algorithm, str):
        raise not_accepted("token_header")
    if "kid" in header and not (isinstance(key_id, str) and KEY_ID.fullmatch(key_id)):
        raise not_accepted("token_header")
    return Header(algorithm, key_id if isinstance(key_id, str) else None)


def signed_payload(token: str, header: Header, key: Key) -> bytes:
    """Return what ``key`` has signed.

    Args:
        token: What ``read_header`` was given.
        header: What it returned.
        key: The key of that name.

    Raises:
        Refusal: 401; also if the token claims another algorithm than the key's.
    """
    if header.algorithm != key.algorithm.value:
        raise not_accepted("token_algorithm")
    try:
        payload = _READERS[key.algorithm].decode(token, key.verifying, algorithms=[key.algorithm.value])
    except jwt.PyJWTError:
        raise not_accepted("token_signature") from None
    return bytes(payload)


def _from_base64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
