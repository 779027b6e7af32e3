"""The states of an agent and of its link, as tables of transitions.

``Agent`` and ``RelayLink`` each hold one state and change it with ``next_state`` only. A missing entry is a
bug in the caller. docs/states.md shows both as diagrams.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from seance.agent.status import AgentState
from seance.errors import LocalProtocolError

__all__ = [
    "AGENT",
    "LINK",
    "PUBLIC_STATES",
    "AgentEvent",
    "AgentPhase",
    "LinkEvent",
    "LinkState",
    "next_state",
]

State = TypeVar("State", bound=enum.Enum)
Event = TypeVar("Event", bound=enum.Enum)


class AgentPhase(enum.Enum):
    """The phase of an agent.

    Attributes:
        STOPPED: Not started yet, or stopped.
        WAITING: There is no session. The next attempt follows after a wait, the first one immediately.
        CONNECTING: Dials the relay for a new session.
        CONNECTED: The link is up.
        SEARCHING: The link is up. Its relay is about to stop, and the agent dials for another relay.
        SWITCHING: The link to another relay is up and is about to replace the old one.
        DRAINING: The link is up, but its relay is about to stop and no other relay was found.
        WAITING_TO_RESUME: The carrier is lost and the session is kept. The next attempt follows after a wait.
        RESUMING: Dials the relay to resume the session.
        STOPPING: Sends what is queued and closes its links.
    """

    STOPPED = "stopped"
    WAITING = "waiting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    SEARCHING = "searching"
    SWITCHING = "switching"
    DRAINING = "draining"
    WAITING_TO_RESUME = "waiting to resume"
    RESUMING = "resuming"
    STOPPING = "stopping"


class AgentEvent(enum.Enum):
    """What changes the phase of an agent.

    Attributes:
        START: The service is started.
        DIAL: An attempt for a new session begins.
        DIAL_TO_RESUME: An attempt to resume the session begins.
        ATTACHED: A link is up, over the carrier of the attempt or the one that the search found.
        DRAIN: The relay announces that it is about to stop.
        FOUND: The search has connected to another relay.
        NOT_FOUND: The search has ended without another relay.
        DETACHED: The attempt has failed or the carrier is lost; the session is kept.
        LOST: The attempt has failed or the link is lost; there is no session.
        STOP: The service is stopped.
        CLOSED: All links are closed.
    """

    START = "start"
    DIAL = "dial"
    DIAL_TO_RESUME = "dial to resume"
    ATTACHED = "attached"
    DRAIN = "drain"
    FOUND = "found"
    NOT_FOUND = "not found"
    DETACHED = "detached"
    LOST = "lost"
    STOP = "stop"
    CLOSED = "closed"


_MAY_FAIL = (
    AgentPhase.WAITING,
    AgentPhase.WAITING_TO_RESUME,
    AgentPhase.CONNECTING,
    AgentPhase.RESUMING,
    AgentPhase.CONNECTED,
    AgentPhase.SEARCHING,
    AgentPhase.SWITCHING,
    AgentPhase.DRAINING,
)
"""An attempt may fail in each of these, also by an unexpected error."""

AGENT: Final[Mapping[tuple[AgentPhase, AgentEvent], AgentPhase]] = MappingProxyType(
    {
        (AgentPhase.STOPPED, AgentEvent.START): AgentPhase.WAITING,
        (AgentPhase.WAITING, AgentEvent.DIAL): AgentPhase.CONNECTING,
        (AgentPhase.WAITING_TO_RESUME, AgentEvent.DIAL): AgentPhase.CONNECTING,
        (AgentPhase.WAITING_TO_RESUME, AgentEvent.DIAL_TO_RESUME): AgentPhase.RESUMING,
        (AgentPhase.CONNECTING, AgentEvent.ATTACHED): AgentPhase.CONNECTED,
        (AgentPhase.RESUMING, AgentEvent.ATTACHED): AgentPhase.CONNECTED,
        (AgentPhase.CONNECTED, AgentEvent.DRAIN): AgentPhase.SEARCHING,
        (AgentPhase.SEARCHING, AgentEvent.FOUND): AgentPhase.SWITCHING,
        (AgentPhase.SEARCHING, AgentEvent.NOT_FOUND): AgentPhase.DRAINING,
        (AgentPhase.SWITCHING, AgentEvent.ATTACHED): AgentPhase.CONNECTED,
    }
    | {(phase, AgentEvent.DETACHED): AgentPhase.WAITING_TO_RESUME for phase in _MAY_FAIL}
    | {(phase, AgentEvent.LOST): AgentPhase.WAITING for phase in _MAY_FAIL}
    | {(phase, AgentEvent.STOP): AgentPhase.STOPPING for phase in AgentPhase}
    | {
        (AgentPhase.STOPPING, AgentEvent.CLOSED): AgentPhase.STOPPED,
        (AgentPhase.STOPPED, AgentEvent.CLOSED): AgentPhase.STOPPED,
    }
)
"""The phases of an agent. A second STOP while the agent stops, and its CLOSED, change nothing."""

PUBLIC_STATES: Final[Mapping[AgentPhase, AgentState]] = MappingProxyType(
    {
        AgentPhase.STOPPED: AgentState.STOPPED,
        AgentPhase.WAITING: AgentState.WAITING,
        AgentPhase.CONNECTING: AgentState.CONNECTING,
        AgentPhase.CONNECTED: AgentState.CONNECTED,
        AgentPhase.SEARCHING: AgentState.CONNECTED,
        AgentPhase.SWITCHING: AgentState.CONNECTED,
        AgentPhase.DRAINING: AgentState.CONNECTED,
        AgentPhase.WAITING_TO_RESUME: AgentState.RESUMING,
        AgentPhase.RESUMING: AgentState.RESUMING,
        AgentPhase.STOPPING: AgentState.STOPPED,
    }
)
"""The state that status listeners see in each phase."""


class LinkState(enum.Enum):
    """The state of a ``RelayLink``.

    Attributes:
        NEW: The session has no carrier yet.
        ATTACHED: A carrier is open.
        RESUMING: The carrier is lost; the relay keeps the session for the next carrier.
        MOVED: A link to another relay has replaced this one. It serves its clients until they are
            disconnected.
        LOST: The session has ended.
    """

    NEW = "new"
    ATTACHED = "attached"
    RESUMING = "resuming"
    MOVED = "moved"
    LOST = "lost"


class LinkEvent(enum.Enum):
    """What changes the state of a ``RelayLink``.

    Attributes:
        OPENED: The first carrier is open.
        DETACHED: The carrier is lost, and the session may continue over another one.
        RESUMED: The session continues over another carrier, perhaps before the loss of the last was noticed.
        MOVED: The agent has a link to another relay.
        ENDED: The session has ended.
    """

    OPENED = "opened"
    DETACHED = "detached"
    RESUMED = "resumed"
    MOVED = "moved"
    ENDED = "ended"


LINK: Final[Mapping[tuple[LinkState, LinkEvent], LinkState]] = MappingProxyType(
    {
        (LinkState.NEW, LinkEvent.OPENED): LinkState.ATTACHED,
        (LinkState.ATTACHED, LinkEvent.DETACHED): LinkState.RESUMING,
        (LinkState.ATTACHED, LinkEvent.RESUMED): LinkState.ATTACHED,
        (LinkState.RESUMING, LinkEvent.RESUMED): LinkState.ATTACHED,
        (LinkState.ATTACHED, LinkEvent.MOVED): LinkState.MOVED,
        (LinkState.LOST, LinkEvent.OPENED): LinkState.LOST,
    }
    | {(state, LinkEvent.ENDED): LinkState.LOST for state in LinkState}
)
"""The states of a link. (LOST, OPENED): a plain carrier may be lost before ``attach_plain`` is called."""


def next_state(table: Mapping[tuple[State, Event], State], state: State, event: Event) -> State:
    """Return the state that follows ``state`` after ``event``.

    Raises:
        LocalProtocolError: The table has no such transition.
    """
    try:
        return table[state, event]
    except KeyError:
        message = f"{event} is not possible in {state}."
        raise LocalProtocolError(message, code="state") from None
