"""Interfaces that the tunnel uses and that other packages or a program implement, with their data types."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from seance.core.events import Event

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = [
    "VERIFY_SECONDS",
    "AgentIdentity",
    "Grant",
    "IdentityVerifier",
    "Observer",
    "Page",
    "TokenRole",
    "Verifier",
    "identity_of",
]

VERIFY_SECONDS = 15.0
"""Bound of verifying a token, for verifiers that hang. Fetching a key set has its own bound of 5 s."""


class TokenRole(enum.Enum):
    """The role for which a token is valid. One role does not include another."""

    AGENT = "agent"
    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """The permissions of a verified token. The names of its claims are in parentheses.

    Attributes:
        role: The role of the bearer (``role``).
        rooms: Exact names, or prefixes that end with ``*`` (``room``). Empty: no room.
        expires_at: Unix time at which the bearer's connections end, in seconds (``exp``).
        subject: The user or machine that the token was made for (``sub``).
        token_id: The token's ID, by which it can be revoked (``jti``).
        key_id: The ID of the key that signed it (``kid``).
        origins: Origins of the web pages that may use it (``org``); None: all.
        max_clients: Limit of simultaneous clients of this bearer (``max.clients``); None: no limit.
        max_bytes_per_second: Rate limit (``max.bps``); None: no limit.
        agent_identity: The only agent that may serve its rooms (``agt``).
    """

    role: TokenRole
    rooms: tuple[str, ...]
    expires_at: float
    subject: str | None = None
    token_id: str | None = None
    key_id: str | None = None
    origins: tuple[str, ...] | None = None
    max_clients: int | None = None
    max_bytes_per_second: int | None = None
    agent_identity: str | None = None

    def allows_room(self, room: str) -> bool:
        """Return whether ``rooms`` includes ``room``. The empty name is never included."""
        return bool(room) and any(
            room.startswith(one[:-1]) if one.endswith("*") else room == one for one in self.rooms
        )


def identity_of(grant: Grant) -> str | None:
    """Return the agent identity that a token names: ``agt``, or else ``sub``."""
    return grant.agent_identity or grant.subject


class Verifier(Protocol):
    """Verifies tokens. Implemented by ``seance.auth.service.AuthService``."""

    def verify(self, token: str, role: TokenRole, room: str) -> Deferred[Grant]:
        """Verify a token for a role in a room.

        The Deferred usually has its result already. A token signed with an unknown key may wait for a
        download of the key set, at most 5 s. The caller may cancel the Deferred.

        Args:
            token: The unchecked token from the peer; empty if there is none.
            role: The requested role.
            room: The requested room. It may be empty for ``ADMIN`` only: then only the role is checked, and
                the caller has to call ``allows_room`` for each room that it shows.

        Returns:
            The Grant. Fails with ``Refusal``: 401 if the token is invalid, 403 if it is valid but not for
            this room or role. The message does not say which of several possible reasons applies.
        """

    def is_still_good(self, grant: Grant) -> bool:
        """Return whether a grant of ``verify`` is still valid. Fast enough to be called every second.

        It becomes invalid when the token expires, its key is removed, or the token or its room is denied.
        """

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after changes of keys or the deny list; return a function that removes it."""


class AgentIdentity(Protocol):
    """Proves an agent's identity to a relay. Implemented by ``seance.auth.agent_key``."""

    def announce(self, host: str) -> str:
        """Return the ``Seance-Agent`` that names the identity to the relay at ``host``, without proof."""

    def prove(self, nonce: str, room: str, host: str) -> str:
        """Return a ``Seance-Agent`` with a proof, which is valid once.

        Args:
            nonce: The value of ``Seance-Nonce`` in the last response of the relay.
            room: The room that the agent asks for.
            host: The host and port of the relay that the agent dials.
        """


class IdentityVerifier(Protocol):
    """Verifies identities of agents on a relay. Implemented by ``seance.auth.identity``.

    The methods do not block. Each takes about as long as parsing a request head.
    """

    def challenge(self, now: float) -> str:
        """Return a new nonce for the 101 of an agent. It saves the agent's next dial a round trip.

        Args:
            now: Monotonic time in seconds.
        """

    def check(self, claim: str, room: str, host: str, now: float) -> str:
        """Verify a proof and return the identity of the agent. A proof is valid once.

        Args:
            claim: The unchecked value of ``Seance-Agent``. This method is not called for a request without
                that field: its agent has no identity.
            room: The requested room.
            host: The value of ``Host`` in the request.
            now: Time in seconds, of the same clock as for ``challenge``.

        Raises:
            Refusal: 401 ``identity_question`` or ``identity_proof``, with a new nonce in ``Seance-Nonce``.
        """


@dataclass(frozen=True, slots=True)
class Page:
    """A web page that the relay serves at a share link.

    Attributes:
        body: The whole document, HTML in UTF-8.
        headers: Further header fields, such as a content security policy. The relay adds ``Content-Type`` and
            ``Content-Length``.
    """

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Observer(Protocol):
    """Receives the events of a relay or an agent, for example to count them in ``seance.metrics``."""

    def notify(self, event: Event) -> None:
        """Handle an event, one of the classes in ``seance.core.events``.

        Called once for each event of a connection, client or link, and never for each message. It must not
        raise, and must not call methods of the relay or agent that change something.
        """
