"""Limits the memory that all links of a relay together hold for resumption.

Each link has its own limit (``resume_bytes``, and the queues of its clients' streams), but a relay may
have thousands of links. The sum is computed once a second. Above four fifths of the limit the sessions whose
agents have been away longest end, one after the other; at the limit no further agent is accepted. Data
of a session that continues is never dropped.
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

CHECK_SECONDS = 1.0
TIGHT_SHARE = 0.8


class ResumeMemoryLimit:
    """Checks the sum once a second, between ``start`` and ``stop``.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        max_bytes: The limit.
        links: Returns all links.

    Attributes:
        held_bytes: The sum at the last check.
        on_tight: Called for each session that is ended to free memory.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, max_bytes: int, links: Callable[[], Iterable[AgentLink]]
    ) -> None:
        self._reactor = reactor
        self._max_bytes = max_bytes
        self._links = links
        self._timer: IDelayedCall | None = None
        self.held_bytes = 0
        self.on_tight: Callable[[], None] = lambda: None

    @property
    def is_used_up(self) -> bool:
        """Whether no further agent can be accepted."""
        return self.held_bytes >= self._max_bytes

    def start(self) -> None:
        """Start the periodic check."""
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._check)

    def stop(self) -> None:
        """Stop the periodic check."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._check)
        held = {link: link.held_bytes for link in self._links()}
        self.held_bytes = sum(held.values())
        if self.held_bytes <= TIGHT_SHARE * self._max_bytes:
            return
        away = sorted((link for link in held if link.is_resuming), key=lambda link: link.away_since_seconds)
        for link in away:
            self._log.warn(
                "The session of room {room} was ended: the memory for resumption has reached its limit",
                room=link.room,
                event="session.no_memory",
            )
            self.held_bytes -= held[link]
            self.on_tight()
            link.give_up_waiting("The relay has no memory to keep this session for an absent agent.")
            if self.held_bytes <= TIGHT_SHARE * self._max_bytes:
                return
