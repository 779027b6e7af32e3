"""The relay's lines about agents that it has not accepted: any peer can cause them, so they are limited.

Each room has one line of each kind a minute, with the number of events that it stands for.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from seance.net.log_limiter import LogLimiter

__all__ = ["RejectionLog"]


class RejectionLog:
    """Writes these lines.

    Args:
        reactor: Twisted's reactor, or another clock.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._limiter = LogLimiter(reactor)

    def room_refused(self, room: str, identity: str, address: str, code: str) -> None:
        """An agent may not have a room."""
        untold = self._limiter.admit(("room.refused", room, code))
        if untold is not None:
            self._log.warn(
                "Room {room} was refused to agent {identity} from {address}: {code} "
                "({untold} more since the last such line)",
                room=room,
                identity=identity,
                address=address,
                code=code,
                untold=untold,
                event="room.refused",
            )

    def session_unknown(self, room: str, address: str) -> None:
        """An agent asks for a session that this relay does not have."""
        untold = self._limiter.admit(("session.unknown", room))
        if untold is not None:
            self._log.info(
                "A session that an agent at {address} asked for in room {room} is not known here "
                "({untold} more since the last such line)",
                address=address,
                room=room,
                untold=untold,
                event="session.unknown",
            )
