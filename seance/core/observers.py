"""The words of ``seance.core.interfaces.Observer``, a witness who says nothing, and several as one.

The words are what metrics, the admin API and the log call things, so each list is complete: a test
compares it with the source and with docs/logging.md.
"""

from __future__ import annotations

import hashlib

from seance.core.interfaces import Client, ClientReport, LinkChange, Observer

__all__ = [
    "CLIENT_REASONS",
    "LIMITS",
    "LINK_REASONS",
    "RESUMPTIONS",
    "MultiObserver",
    "NullObserver",
    "room_hash",
]

CLIENT_REASONS = (
    "ended",
    "near_gone",
    "far_gone",
    "half_close_timeout",
    "stalled",
    "sent_away",
    "seen_off",
    "left_early",
    "refused",
    "answered",
    "broken",
)
"""Why a client ended. ``left_early``: it went before the 101; ``refused``: it got a refusal instead of it;
``answered``: the local server answered something else; ``broken``: that answer broke off."""

LINK_REASONS = ("left", "cut", "failed", "desync", "expired", "replaced", "sent_away", "no_memory")
"""Why a link is over."""

RESUMPTIONS = ("resumed", "resumed_early", "unknown", "gap", "flaps", "expired", "no_memory")
"""What came of a lost carrier. ``resumed_early``: the agent was back before the relay knew of the loss."""

LIMITS = ("connections", "unanswered", "unanswered_of_address", "resume_bytes", "stalled", "window_budget")
"""Bounds that answer nobody; those that do are refusals."""

HASH_BYTES = 4


class NullObserver:
    """A witness who keeps nothing and tells nobody."""

    def refused(self, code: str) -> None:
        """See ``Observer``."""

    def limit_hit(self, limit: str) -> None:
        """See ``Observer``."""

    def parked(self, room: str) -> None:
        """See ``Observer``."""

    def client_began(self, client: Client) -> None:
        """See ``Observer``."""

    def client_joined(self, client: Client, seconds: float) -> None:
        """See ``Observer``."""

    def client_answered(self, client: Client, seconds: float) -> None:
        """See ``Observer``."""

    def client_ended(self, client: Client, report: ClientReport) -> None:
        """See ``Observer``."""

    def link_changed(self, room: str, change: LinkChange, reason: str = "") -> None:
        """See ``Observer``."""

    def resumption(self, outcome: str) -> None:
        """See ``Observer``."""


class MultiObserver:
    """Several witnesses, told one after the other.

    Args:
        ones: Who they are.
    """

    def __init__(self, *ones: Observer) -> None:
        self._ones = ones

    def refused(self, code: str) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.refused(code)

    def limit_hit(self, limit: str) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.limit_hit(limit)

    def parked(self, room: str) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.parked(room)

    def client_began(self, client: Client) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.client_began(client)

    def client_joined(self, client: Client, seconds: float) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.client_joined(client, seconds)

    def client_answered(self, client: Client, seconds: float) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.client_answered(client, seconds)

    def client_ended(self, client: Client, report: ClientReport) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.client_ended(client, report)

    def link_changed(self, room: str, change: LinkChange, reason: str = "") -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.link_changed(room, change, reason)

    def resumption(self, outcome: str) -> None:
        """See ``Observer``."""
        for one in self._ones:
            one.resumption(outcome)


def room_hash(room: str) -> str:
    """Return eight characters that stand for a room where its name is nobody's business, such as a log.

    The same for the same name everywhere and always, so that lines can be found again by whoever knows it.
    """
    return hashlib.blake2b(room.encode(), digest_size=HASH_BYTES).hexdigest()
