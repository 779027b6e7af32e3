"""What an agent tells of itself: to ``Agent.on_status``, and as JSON lines to a parent process."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["AgentState", "AgentStatus"]


class AgentState(enum.Enum):
    """What an agent is doing."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RESUMING = "resuming"
    WAITING = "waiting"
    LOCAL_TROUBLE = "local_trouble"


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """One change, as ``Agent.on_status`` tells it.

    Attributes:
        state: What the agent is doing now. While ``RESUMING`` the relay keeps our clients, and neither
            they nor the local server notice. ``LOCAL_TROUBLE`` is news about the local server and
            changes nothing about the link, whose state is told once more when the trouble is over.
        sentence: The same for a person.
        retry_seconds: How long it waits before it dials again, while ``WAITING`` or ``RESUMING``.
        code: The refusal or the error of which the sentence tells, if one; for programs.
    """

    state: AgentState
    sentence: str
    retry_seconds: float | None = None
    code: str = ""
