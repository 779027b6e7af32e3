"""Which agent serves which room: the interface that the public side of a relay uses.

``LocalRoomDirectory`` keeps the rooms of one process in memory. A directory that several relays share
implements the same methods; those that may have to ask another process are coroutines.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from seance.core.interfaces import Grant
    from seance.errors import Refusal
    from seance.relay.rooms.agent_link import AgentLink
    from seance.relay.rooms.upstream import Upstream
    from seance.resume import ResumeRequest

__all__ = ["Resumption", "RoomDirectory", "RoomState", "RoomStatus"]


class RoomState(enum.Enum):
    """The state of a room's agent."""

    ONLINE = "online"
    RESUMING = "resuming"
    AWAY = "away"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RoomStatus:
    """The public status of a room.

    Attributes:
        room: Its name.
        state: ``ONLINE``; ``RESUMING``: the carrier is lost, and clients stay connected; ``AWAY``: the agent
            left a short while ago, and new clients wait for it; ``UNKNOWN``.
        since: Seconds in this state; None for ``UNKNOWN``.
    """

    room: str
    state: RoomState
    since: float | None = None

    def to_json(self) -> bytes:
        """Return it as one line."""
        since = None if self.since is None else round(self.since, 1)
        return json.dumps({"room": self.room, "state": self.state.value, "since": since}).encode()


@dataclass(frozen=True, slots=True)
class Resumption:
    """The answer to an agent that asks to resume a session.

    Attributes:
        link: The link that continues; None if the agent has to start a new session.
        headers: Fields for the 101, if there is a link.
        reason: Why there is no link: ``unknown`` or ``gap``.
    """

    link: AgentLink | None = None
    headers: dict[str, str] | None = None
    reason: str = ""


class RoomDirectory(Protocol):
    """Finds the agent of a room for clients, and assigns rooms to agents."""

    async def claim(
        self,
        room: str,
        *,
        identity: str | None = None,
        address: str = "",
        may_replace: bool = True,
    ) -> AgentLink:
        """Assign a room to a new link. ``release`` it if its carrier never opens.

        Args:
            room: The room.
            identity: The proven identity of the agent, or None.
            address: The address that it dials from, for the log.
            may_replace: Whether it takes the room over if the same agent serves it already.

        Raises:
            Refusal: 409, another agent serves the room or left it a short while ago; 503, the relay is
                stopping or has no memory for another agent.
        """

    async def resume(
        self, room: str, resume_request: ResumeRequest, grant: Grant | None, *, address: str = ""
    ) -> Resumption:
        """Continue the session of an agent that has lost its carrier.

        Args:
            room: The room.
            resume_request: The session that the agent asks for.
            grant: What its token allows; None if no token is needed.
            address: The address that it dials from, for the log.

        Raises:
            Refusal: 429, it resumes too often; 409, another process with the same key has replaced it.
        """

    def is_resumption(self, room: str, resume_request: ResumeRequest | None) -> bool:
        """Whether a request holds the secret of a session that is kept here."""

    def release(self, link: AgentLink) -> None:
        """Free the room of a link that is gone or never came up."""

    async def find(self, room: str, since_seconds: float | None = None) -> Upstream:
        """Return the upstream of a room; if its agent is away, wait until it is back.

        Args:
            room: The room.
            since_seconds: When the client began to wait, by the reactor's clock; None for now.

        Raises:
            Refusal: 404, no agent serves the room or did a short while ago; 503, the agent did not come back
                in time, the wait queue is full, or the relay is stopping.
        """

    def refusal_now(self, room: str) -> Refusal | None:
        """Return the refusal that a client of this room gets without waiting; None if it may be served."""

    def has_lost(self, upstream: Upstream) -> bool:
        """Whether an upstream has lost its agent, so that ``find`` has to be called again."""

    def status(self, room: str) -> RoomStatus:
        """Return the public status of a room."""

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with each room that is claimed, released or changes its state.

        Returns:
            A function that removes the listener.
        """
