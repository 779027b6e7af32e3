"""How a client's connection reaches the server of its room.

``ClientConnection`` knows this interface and no link, so that the agent of a room may be attached to this
relay (``AgentLink``) or to another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol

    from seance.core.flow_gate import RateLimit
    from seance.mux import StreamTransport
    from seance.relay.rooms.sync_limiter import Sync

__all__ = ["Upstream"]


class Upstream(Protocol):
    """The way to one room. Usable as a dictionary key.

    Attributes:
        room: The room.
    """

    room: str

    @property
    def is_attached(self) -> bool:
        """Whether the agent is connected now, so that a new stream reaches it."""

    @property
    def is_alive(self) -> bool:
        """Whether the agent is connected or may still resume; streams that are open stay open."""

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate that all clients of the room share; None for no limit."""

    @property
    def upgrade_seconds(self) -> float:
        """How long the local server may take for its first answer."""

    @property
    def local_hosts(self) -> tuple[bytes, ...]:
        """The values of ``Host`` by which the local server may refer to itself."""

    def when_may_load(self, since_seconds: float) -> Deferred[Sync]:
        """Wait until one more client may load its document.

        Args:
            since_seconds: When the client began to wait, by the reactor's clock.

        Returns:
            Fires with a ``Sync``; call its ``left`` when the client is gone.
        """

    def open_stream(self, protocol: IProtocol) -> StreamTransport:
        """Open a stream to the local server for one client.

        Raises:
            Refusal: 429, the room has the maximum number of clients; 503, the agent is away or leaves.
        """
