"""Check the secret with which an agent resumes a session.

The relay gives the agent a new secret with each carrier and keeps only hashes. The secret that the agent
showed last stays valid until the agent acknowledges data on the new carrier: if the 101 is lost, the agent
does not have the new secret. The check takes the same time for any secret and comes before any change of
state. (Eternal Terminal closes the live socket first, so anyone who has seen the session id can cut a
session.)
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest

__all__ = ["Proof"]


class Proof:
    """The relay's hashes of the secrets of one session.

    Args:
        secret: The first secret, at least 128 random bits.
    """

    __slots__ = ("_current", "_shown")

    def __init__(self, secret: str) -> None:
        self._current = self._shown = _hash(secret)

    def fits(self, secret: str) -> bool:
        """Return whether ``secret`` is the newest one, or the one shown last while that is still valid."""
        hashed = _hash(secret)
        # Compare both, so that the time reveals nothing.
        return bool(compare_digest(hashed, self._current) | compare_digest(hashed, self._shown))

    def renew(self, shown: str, secret: str) -> None:
        """Replace the secret that was shown by a new one. Next: ``settle``."""
        self._shown = _hash(shown)
        self._current = _hash(secret)

    def settle(self) -> None:
        """Accept only the newest secret: the agent has it."""
        self._shown = self._current


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
