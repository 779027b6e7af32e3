"""How much memory all links together may hold for agents that have not acknowledged it.

Each link is bounded by itself (``resume_bytes``, and what its clients' streams queue), but a relay may
have thousands. So once a second somebody adds up. Beyond four fifths of the bound the agents that have
been away longest are given up, one after the other; at the whole of it no further agent is let in. What
is there is never thrown away for a link that goes on: to lose bytes is worse than to lose a session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from seance.relay.rooms.agent_link import AgentLink

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ResumeMemoryLimit"]

LOOK_SECONDS = 1.0
TIGHT_SHARE = 0.8


class ResumeMemoryLimit:
    """Adds up, between ``start`` and ``stop``.

    Args:
        reactor: Where time comes from.
        most_bytes: The bound.
        links: Returns the links there are.

    Attributes:
        held_bytes: The sum at the last look.
        on_tight: Called whenever somebody has to be given up.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, most_bytes: int, links: Callable[[], Iterable[AgentLink]]
    ) -> None:
        self._reactor = reactor
        self._most_bytes = most_bytes
        self._links = links
        self._timer: IDelayedCall | None = None
        self.held_bytes = 0
        self.on_tight: Callable[[], None] = lambda: None

    @property
    def is_used_up(self) -> bool:
        """Whether no further agent can be let in."""
        return self.held_bytes >= self._most_bytes

    def start(self) -> None:
        """Begin to look."""
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._look)
        held = {link: link.held_bytes for link in self._links()}
        self.held_bytes = sum(held.values())
        if self.held_bytes <= TIGHT_SHARE * self._most_bytes:
            return
        away = sorted((link for link in held if link.is_resuming), key=lambda link: link.away_since_seconds)
        for link in away:
            self._log.warn(
                "The agent of room {room} is given up: what is held for all agents has reached its bound",
                room=link.room,
                event="session.no_memory",
            )
            self.held_bytes -= held[link]
            self.on_tight()
            link.give_up_waiting("This relay has no memory left for an agent that is away.")
            if self.held_bytes <= TIGHT_SHARE * self._most_bytes:
                return
