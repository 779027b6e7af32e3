"""Verifies the proof of identity that an agent sends when it connects.

A relay has no list of agents; it accepts any key. The proof shows that an agent is the same as before, which
decides who gets a room (``seance.relay.rooms.room_table``). Tokens decide which agents may serve a room.

The proof is a signature over a nonce of the relay, the room, and the host that the agent has dialled.
Unused nonces are not stored: each contains its creation time and a MAC with a key that is created when the
process starts. So requests for nonces cost no memory. Used nonces are stored until they expire. If there are
more than ``MAX_USED_NONCES``, the oldest is dropped, *and all nonces created before it become invalid*. So no
proof is accepted twice; while the table overflows, agents only have less time between nonce and proof.

``seance.auth.agent_key`` is the agent's side. docs/protocol.md, "Proving who an agent is", describes the
exchange.
"""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from seance.errors import Refusal
from seance.heads.refusals import refusal

__all__ = [
    "MAX_USED_NONCES",
    "NONCE_SECONDS",
    "VERSION",
    "IdentityChecker",
    "base64url",
    "framed",
    "proof_message",
    "thumbprint",
]

VERSION = "v1"
"""Version of the format, the prefix of every ``Seance-Agent``."""

NONCE_SECONDS = 600.0
"""Validity of a nonce, by the relay's clock. An agent that reconnects within ten minutes, as after most lost
connections, needs no second request."""

MAX_USED_NONCES = 65_536
"""Used nonces that are stored, about 8 MB. One address at the default rate limit of a relay (50 upgrades a
second) uses 30,000 before the first of them expires."""

_PROOF = re.compile(r"v1\.([\w-]{43})(?:\.([\w-]{43})\.([\w-]{86}))?", re.ASCII)

_TIME_BYTES = 8
_RANDOM_BYTES = 8
_MAC_BYTES = 16
_NONCE_BYTES = _TIME_BYTES + _RANDOM_BYTES + _MAC_BYTES

_MICROSECONDS = 1_000_000


class IdentityChecker:
    """Verifies identities of agents; implements ``IdentityVerifier`` of ``seance.core.interfaces``.

    A relay has one instance.

    Args:
        random: Returns the given number of random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random
        self._key = random(32)
        self._latest = 0  # microseconds; never decreases, even if the clock does
        self._floor = 0  # nonces created then or earlier are invalid
        self._used: set[int] = set()
        self._used_in_order: list[int] = []  # a heap

    def challenge(self, now: float) -> str:
        """Return a new nonce.

        Args:
            now: Seconds of a clock of the relay.
        """
        self._advance(now)
        # Each nonce has a different time, so that the time identifies it.
        self._latest += 1
        content = self._latest.to_bytes(_TIME_BYTES, "big") + self._random(_RANDOM_BYTES)
        return base64url(content + self._mac(content))

    def check(self, claim: str, room: str, host: str, now: float) -> str:
        """Verify a proof and return the identity of the agent.

        Args:
            claim: The value of ``Seance-Agent``.
            room: The room of the request.
            host: The ``Host`` of the request.
            now: Seconds of the same clock as for ``challenge``.

        Returns:
            The thumbprint of the agent's key.

        Raises:
            Refusal: 401 with a new nonce in ``Seance-Nonce``: the proof is missing or not valid.
        """
        self._advance(now)
        match = _PROOF.fullmatch(claim)
        if match is None:
            raise self._refusal("identity_proof", now)
        if match[2] is None:
            raise self._refusal("identity_question", now)
        public, nonce, signature = (_decoded(part) for part in match.groups())
        created_at = int.from_bytes(nonce[:_TIME_BYTES], "big")
        if not (
            self._is_authentic(nonce)
            and created_at > self._floor
            and created_at not in self._used
            and _is_signed(public, signature, proof_message(match[2], room, host))
        ):
            raise self._refusal("identity_proof", now)
        self._add_used(created_at)
        return thumbprint(public)

    def _advance(self, now: float) -> None:
        self._latest = max(self._latest, int(now * _MICROSECONDS))
        self._floor = max(self._floor, self._latest - int(NONCE_SECONDS * _MICROSECONDS))

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_MAC_BYTES]

    def _is_authentic(self, nonce: bytes) -> bool:
        content, mac = nonce[:-_MAC_BYTES], nonce[-_MAC_BYTES:]
        return len(nonce) == _NONCE_BYTES and hmac.compare_digest(mac, self._mac(content))

    def _add_used(self, created_at: int) -> None:
        self._used.add(created_at)
        heappush(self._used_in_order, created_at)
        while self._used_in_order and (
            len(self._used_in_order) > MAX_USED_NONCES or self._used_in_order[0] <= self._floor
        ):
            oldest = heappop(self._used_in_order)
            self._used.discard(oldest)
            self._floor = max(self._floor, oldest)

    def _refusal(self, kind: str, now: float) -> Refusal:
        return refusal(kind, headers=((b"Seance-Nonce", self.challenge(now).encode()),))


def thumbprint(public: bytes) -> str:
    """Return the identity of an agent with this public key, 43 characters."""
    return base64url(sha256(public).digest())


def proof_message(nonce: str, room: str, host: str) -> bytes:
    """Return the message that an agent signs.

    It contains the host in lower case and without its port, because proxies may add or drop a port. A
    hostile relay could forward a proof with the same ``Host`` to another relay. The separate key for each
    relay prevents that.

    Args:
        nonce: The nonce from the relay.
        room: The room.
        host: The ``Host`` that the agent dials, with or without port.
    """
    name = re.sub(r":[0-9]*\Z", "", host.lower())
    return framed("seance agent proof v1", nonce, room, name)


def framed(*parts: str) -> bytes:
    """Return the parts, each after its length in four bytes, so that no two lists give the same result."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (text.encode() for text in parts))


def base64url(content: bytes) -> str:
    """Return base64 for URLs (RFC 4648, section 5) without padding."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Return the decoded ``text``, or nothing if it is not the canonical encoding."""
    content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return content if base64url(content) == text else b""


def _is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
