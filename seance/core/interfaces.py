"""What the tunnel asks of the floors above it, so that it need not know them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = [
    "AgentIdentity",
    "Client",
    "ClientReport",
    "Grant",
    "IdentityVerifier",
    "LinkChange",
    "Observer",
    "Page",
    "TokenRole",
    "Verifier",
    "identity_of",
]


class TokenRole(enum.Enum):
    """What the bearer of a token may be. One role does not include another."""

    AGENT = "agent"
    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a verified token allows.

    Attributes:
        role: What the bearer may be.
        rooms: Exact names, or beginnings of names that end in one ``*``; empty means no room.
        expires_at: Unix seconds; a session ends then.
        subject: Whom the token was made for (``sub``).
        token_id: The token's own name, by which it can be revoked (``jti``).
        key_id: The key that signed it (``kid``).
        origins: Web pages that may use it (``org``); None means any.
        max_clients: Clients at a time for what it opens (``max.clients``); None means unlimited.
        max_bytes_per_second: (``max.bps``); None means unlimited.
        agent_identity: The one agent that its rooms belong to (``agt``).
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
        """Whether ``room`` is one of the rooms; the empty name never is."""
        return bool(room) and any(
            room.startswith(one[:-1]) if one.endswith("*") else room == one for one in self.rooms
        )


def identity_of(grant: Grant) -> str | None:
    """Return the agent identity that a token names: ``agt``, or else whom it was made for."""
    return grant.agent_identity or grant.subject


class Verifier(Protocol):
    """Who says what a token is worth. ``seance.auth`` has one."""

    def verify(self, token: str, role: TokenRole, room: str) -> Deferred[Grant]:
        """Say what a token allows to whoever wants to be ``role`` in ``room``.

        Nearly always fires at once; a token signed with an unknown key may wait for one fetch of
        the key set, 5 s at most. Cancelling ends the waiting.

        Args:
            token: As it came from the peer, whatever it is; empty for none.
            role: What the bearer wants to be.
            room: A room's name. For ``ADMIN`` alone it may be empty: then only the role is
                looked at, and the caller asks ``allows_room`` for each room it shows.

        Returns:
            A Grant; fails with ``Refusal``: 401 with one sentence for whatever is wrong with the
            token, 403 with one sentence for a good token that is not for this room or role.
        """

    def is_still_good(self, grant: Grant) -> bool:
        """Whether what ``verify`` returned would be granted again now. Cheap; ask every second.

        It is not once the token has expired, its key is gone, or it or its room is denied.
        """

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called when keys or the deny list have changed; returns its remover."""


class AgentIdentity(Protocol):
    """Who an agent is, on its own side. ``seance.auth.agent_key`` has one."""

    def announce(self, host: str) -> str:
        """Return the ``Seance-Agent`` for the relay at ``host`` that proves nothing yet."""

    def prove(self, nonce: str, room: str, host: str) -> str:
        """Return the ``Seance-Agent`` that proves it, once.

        Args:
            nonce: What the relay at ``host`` sent in ``Seance-Nonce``.
            room: The room that the agent is to serve.
            host: Host and port of the relay, as they are dialled.
        """


class IdentityVerifier(Protocol):
    """Who tells agents apart, on the relay's side. ``seance.auth.identity`` has one.

    Nothing of it waits, and both take about as long as a head takes to parse.
    """

    def challenge(self, now: float) -> str:
        """Return a fresh nonce, for the 101 of an agent, which spares its next dial a round trip.

        Args:
            now: Seconds, monotonic.
        """

    def check(self, claim: str, room: str, host: str, now: float) -> str:
        """Return who the agent has proven to be; a proof is good once.

        Args:
            claim: The value of ``Seance-Agent`` as it came. Without that field an agent has no
                identity, and nobody is asked.
            room: The room it asks for.
            host: The ``Host`` it asked for.
            now: Seconds, by the same clock as for ``challenge``.

        Raises:
            Refusal: 401 ``identity_question`` or ``identity_proof``, with a fresh nonce in ``Seance-Nonce``.
        """


@dataclass(frozen=True, slots=True)
class Page:
    """A web page that the relay shows at a share link.

    Attributes:
        body: The whole document, UTF-8 HTML.
        headers: Header fields besides ``Content-Type`` and ``Content-Length``, such as a
            content security policy.
    """

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class LinkChange(enum.Enum):
    """What has happened to a link. ``LOST`` is its end; a link without resumption is never ``DETACHED``."""

    ATTACHED = "attached"
    DETACHED = "detached"
    RESUMED = "resumed"
    LOST = "lost"


class Client(Protocol):
    """A client, as a witness sees it: an object to know it again by, with its figures so far."""

    @property
    def room(self) -> str:
        """Its room."""

    @property
    def received_bytes(self) -> int:
        """What it has sent since the 101; on an agent, what its local server has been sent."""

    @property
    def sent_bytes(self) -> int:
        """What was written to it since the 101; on an agent, what its local server has said."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """How a client has ended.

    Attributes:
        reason: One of ``seance.core.observers.CLIENT_REASONS``.
        seconds: How long it was there, from the stream's opening.
        received_bytes: See ``Client``.
        sent_bytes: See ``Client``.
    """

    reason: str
    seconds: float
    received_bytes: int = 0
    sent_bytes: int = 0


class Observer(Protocol):
    """Who is told what happens, on a relay or an agent. ``seance.metrics`` has some.

    Called once for each event and never for each byte; what can be read at any time, such as how many
    rooms there are, is not told. A witness must not raise, and must not call back.
    """

    def refused(self, code: str) -> None:
        """A connection or an upgrade was answered with a ``Refusal`` of this code."""

    def limit_hit(self, limit: str) -> None:
        """A bound was reached that answers nobody: one of ``seance.core.observers.LIMITS``."""

    def parked(self, room: str) -> None:
        """A client has begun to wait for the agent of a room."""

    def client_began(self, client: Client) -> None:
        """A stream was opened for a client. ``client_ended`` follows, whatever happens."""

    def client_joined(self, client: Client, seconds: float) -> None:
        """The client is spliced.

        Args:
            client: Who.
            seconds: From the stream's opening to the 101; on an agent, to the local server's taking
                the connection.
        """

    def client_answered(self, client: Client, seconds: float) -> None:
        """The first byte behind the 101 has come, so many seconds after the stream's opening."""

    def client_ended(self, client: Client, report: ClientReport) -> None:
        """The client is no longer spliced, or never came to be."""

    def link_changed(self, room: str, change: LinkChange, reason: str = "") -> None:
        """A link has come, lost its carrier, got it back, or is over.

        Args:
            room: Its room.
            change: What has happened.
            reason: With ``LOST``, one of ``seance.core.observers.LINK_REASONS``.
        """

    def resumption(self, outcome: str) -> None:
        """An agent came back, or did not: one of ``seance.core.observers.RESUMPTIONS``."""
