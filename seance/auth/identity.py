"""Which agent is this? The proof that an agent gives when it dials, and the relay's check of it.

A relay knows no agents beforehand and keeps no list of their keys: any key will do. What it learns
is that the one who dials is the one who was here before, which is what decides whose room it is
(``seance.relay.rooms.room_table``). Who may host a room at all is another question, for tokens.

The proof is a signature over a nonce of ours, the room, and the host that the agent has dialled.
Nonces are not kept: each holds the time of its making and a MAC under a key that this process
made when it started, so strangers who ask for nonces cost no memory. Only those that somebody has
used are remembered, until they expire or until ``MOST_USED`` are: then the oldest goes, *and with
it the right to use any nonce made before it*. Whatever comes, no proof is good twice; whoever
dials while others wear the table out has less time between nonce and proof, that is all.

The other side is ``seance.auth.agent_key``; what passes between them is in docs/protocol.md,
"Proving who an agent is".
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

__all__ = [
    "MOST_USED",
    "NONCE_SECONDS",
    "VERSION",
    "IdentityChecker",
    "base64url",
    "framed",
    "proof_message",
    "thumbprint",
]

VERSION = "v1"
"""In front of every ``Seance-Agent``, so that another form can be told from this one."""

NONCE_SECONDS = 600.0
"""A nonce is good for so long, by the relay's clock: an agent that is back within ten minutes, as
after most dropped links, needs no second request."""

MOST_USED = 65_536
"""Used nonces that are remembered, about 8 MB. One address at the rate that a relay allows it by
default (50 upgrades a second) uses 30,000 before the first of them expires."""

_ASK = "This relay asks agents who they are: sign the value of Seance-Nonce and ask again."
_DOUBT = (
    "This proof of the agent's identity is not good here: it was used before, is too old, or is for another "
    "room or host; a proxy in front of the relay must leave Host as it is."
)

_PROOF = re.compile(r"v1\.([\w-]{43})(?:\.([\w-]{43})\.([\w-]{86}))?", re.ASCII)

_TIME_BYTES = 8
_RANDOM_BYTES = 8
_MAC_BYTES = 16
_NONCE_BYTES = _TIME_BYTES + _RANDOM_BYTES + _MAC_BYTES

_MICROSECONDS = 1_000_000


class IdentityChecker:
    """Tells agents apart; implements ``IdentityVerifier`` of ``seance.core.interfaces``. One for a relay.

    Args:
        random: Makes so many random bytes.
    """

    def __init__(self, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._random = random
        self._key = random(32)
        self._latest = 0  # microseconds; never goes back, whatever the clock does
        self._floor = 0  # what was made then or before is good no more
        self._used: set[int] = set()
        self._used_in_order: list[int] = []  # a heap

    def challenge(self, now: float) -> str:
        """Return a fresh nonce.

        Args:
            now: Seconds, by a clock of the relay's.
        """
        self._advance(now)
        # No two are made at the same time: then the time alone says which one it is.
        self._latest += 1
        content = self._latest.to_bytes(_TIME_BYTES, "big") + self._random(_RANDOM_BYTES)
        return base64url(content + self._mac(content))

    def check(self, claim: str, room: str, host: str, now: float) -> str:
        """Return the identity of an agent that proves it.

        Args:
            claim: The value of ``Seance-Agent`` as it came.
            room: The room it asks for.
            host: The ``Host`` it asked for.
            now: Seconds, by the same clock as for ``challenge``.

        Returns:
            The thumbprint of its key.

        Raises:
            Refusal: 401 with a fresh nonce in ``Seance-Nonce``: it has proven nothing (yet).
        """
        self._advance(now)
        match = _PROOF.fullmatch(claim)
        if match is None:
            raise self._refusal(_DOUBT, now, "identity_proof")
        if match[2] is None:
            raise self._refusal(_ASK, now, "identity_question")
        public, nonce, signature = (_decoded(part) for part in match.groups())
        made_at = int.from_bytes(nonce[:_TIME_BYTES], "big")
        if not (
            self._is_ours(nonce)
            and made_at > self._floor
            and made_at not in self._used
            and _is_signed(public, signature, proof_message(match[2], room, host))
        ):
            raise self._refusal(_DOUBT, now, "identity_proof")
        self._note_used(made_at)
        return thumbprint(public)

    # -- inside ----------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        self._latest = max(self._latest, int(now * _MICROSECONDS))
        self._floor = max(self._floor, self._latest - int(NONCE_SECONDS * _MICROSECONDS))

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_MAC_BYTES]

    def _is_ours(self, nonce: bytes) -> bool:
        content, mac = nonce[:-_MAC_BYTES], nonce[-_MAC_BYTES:]
        return len(nonce) == _NONCE_BYTES and hmac.compare_digest(mac, self._mac(content))

    def _note_used(self, made_at: int) -> None:
        self._used.add(made_at)
        heappush(self._used_in_order, made_at)
        while self._used_in_order and (
            len(self._used_in_order) > MOST_USED or self._used_in_order[0] <= self._floor
        ):
            oldest = heappop(self._used_in_order)
            self._used.discard(oldest)
            self._floor = max(self._floor, oldest)

    def _refusal(self, sentence: str, now: float, code: str) -> Refusal:
        nonce = self.challenge(now).encode()
        headers = ((b"WWW-Authenticate", b"Seance-Agent"), (b"Seance-Nonce", nonce))
        return Refusal(401, sentence, code=code, headers=headers)


def thumbprint(public: bytes) -> str:
    """Return what an agent with this public key is called: 43 characters."""
    return base64url(sha256(public).digest())


def proof_message(nonce: str, room: str, host: str) -> bytes:
    """Return what an agent signs.

    The host counts without its port and in lower case, because proxies are at liberty to add and
    drop a port. It is no defence by itself, for a hostile relay can repeat the ``Host`` it was
    asked for when it dials another; that the agent has another key for each relay is.

    Args:
        nonce: As the relay wrote it.
        room: The room.
        host: The ``Host`` that the agent dials, with its port or without.
    """
    name = re.sub(r":[0-9]*\Z", "", host.lower())
    return framed("seance agent proof v1", nonce, room, name)


def framed(*parts: str) -> bytes:
    """Return the parts, each behind its length in four bytes, so that none can grow into the next."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (text.encode() for text in parts))


def base64url(content: bytes) -> str:
    """Return base64 for URLs (RFC 4648, section 5) without padding."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    """Return what ``text`` stands for; nothing for one that we would have written differently."""
    content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return content if base64url(content) == text else b""


def _is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
