"""Whether whoever comes back for a session is the one who left it.

The relay gives the agent a new secret with each carrier and keeps only hashes. The secret that the
agent has shown last stays good until the agent has acknowledged something on the new carrier: a 101
that got lost on its way must not lock it out (reliability.md 2.4, R5). Whether a secret fits takes
the same time for each, and is asked before anything else is touched: Eternal Terminal closes the
live socket first, so anybody who has seen the id can cut a session (2.1).
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest

__all__ = ["Proof"]


class Proof:
    """The relay's memory of the secrets of one session.

    Args:
        secret: The first one, at least 128 bits from a good source.
    """

    __slots__ = ("_current", "_shown")

    def __init__(self, secret: str) -> None:
        self._current = self._shown = _hash(secret)

    def fits(self, secret: str) -> bool:
        """Whether a secret is the newest, or the one shown last while that may be all the agent has."""
        hashed = _hash(secret)
        # Both are compared, so that the time tells nothing.
        return bool(compare_digest(hashed, self._current) | compare_digest(hashed, self._shown))

    def renew(self, shown: str, secret: str) -> None:
        """Take a new secret in place of the one that was shown. Next: ``settle``."""
        self._shown = _hash(shown)
        self._current = _hash(secret)

    def settle(self) -> None:
        """The agent has the newest: no other is good any more."""
        self._shown = self._current


def _hash(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
