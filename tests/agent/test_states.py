"""The tables of states: complete, reachable, and the same as the documented names."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import Any

import pytest
from twisted.internet.task import Clock

from seance.agent.service import Agent
from seance.agent.states import (
    AGENT,
    LINK,
    PUBLIC_STATES,
    AgentEvent,
    AgentPhase,
    LinkEvent,
    LinkState,
    next_state,
)
from seance.agent.status import AgentState
from seance.core.settings import AgentSettings
from seance.errors import LocalProtocolError

MACHINES = pytest.mark.parametrize(
    ("table", "states", "events", "first"),
    [(AGENT, AgentPhase, AgentEvent, AgentPhase.STOPPED), (LINK, LinkState, LinkEvent, LinkState.NEW)],
    ids=["agent", "link"],
)


@MACHINES
def test_every_state_is_reachable_and_every_event_is_used(
    table: Any, states: type[Enum], events: type[Enum], first: Enum
) -> None:
    reached = {first}
    for _ in states:
        reached |= {after for (before, _), after in table.items() if before in reached}
    assert reached == set(states)
    assert {event for _, event in table} == set(events)


@MACHINES
def test_every_state_and_event_is_documented(
    table: Any, states: type[Enum], events: type[Enum], first: Enum
) -> None:
    for kind in (states, events):
        documented = re.findall(r"^    ([A-Z_]+): ", inspect.getdoc(kind) or "", re.M)
        assert documented == [member.name for member in kind]


def test_every_attempt_and_every_link_of_an_agent_may_fail_and_be_stopped() -> None:
    waits = {AgentPhase.WAITING, AgentPhase.WAITING_TO_RESUME}
    passing = {AgentPhase.STOPPED, AgentPhase.STOPPING, AgentPhase.SWITCHING}
    for phase in set(AgentPhase) - waits - passing:
        assert AGENT[phase, AgentEvent.LOST] is AgentPhase.WAITING
        assert AGENT[phase, AgentEvent.DETACHED] is AgentPhase.WAITING_TO_RESUME
    assert {phase for phase in AgentPhase if AGENT[phase, AgentEvent.STOP] is AgentPhase.STOPPING} == set(
        AgentPhase
    )


def test_every_phase_has_a_public_state() -> None:
    assert set(PUBLIC_STATES) == set(AgentPhase)
    assert set(PUBLIC_STATES.values()) == set(AgentState) - {AgentState.LOCAL_TROUBLE}


def test_a_missing_transition_is_an_error() -> None:
    with pytest.raises(LocalProtocolError, match=r"ATTACHED is not possible in AgentPhase\.STOPPED"):
        next_state(AGENT, AgentPhase.STOPPED, AgentEvent.ATTACHED)


def test_an_agent_that_still_stops_cannot_be_started() -> None:
    agent = Agent(Clock(), AgentSettings(room="r"))
    agent._advance(AgentEvent.STOP)
    with pytest.raises(LocalProtocolError):
        agent.startService()
    assert not agent.running
