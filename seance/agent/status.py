"""The status of an agent, as reported by ``Agent.on_status`` and as JSON lines to a parent process."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["AgentState", "AgentStatus"]


class AgentState(enum.Enum):
    """The state of an agent in the public interface. ``AgentPhase`` has finer states."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RESUMING = "resuming"
    WAITING = "waiting"
    LOCAL_TROUBLE = "local_trouble"


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """One change of an agent's status.

    Attributes:
        state: Its state. While ``RESUMING`` the relay keeps the clients; neither they nor the
            local server see an interruption. ``LOCAL_TROUBLE`` reports a failed dial of the local server and
            does not affect the link; when the trouble ends, the state of the link is reported again.
        sentence: The same as a message for people.
        retry_seconds: Time until the next attempt, while ``WAITING`` or ``RESUMING``; None during an attempt.
        code: Stable code of the refusal or error that caused the change; empty if there is none.
    """

    state: AgentState
    sentence: str
    retry_seconds: float | None = None
    code: str = ""
