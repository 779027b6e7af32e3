"""The state tables of ``Carrier`` and ``ResumableTransport``: complete, and without dead ends."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import pytest

from seance.carrier.states import (
    CARRIER,
    FLOW,
    TRANSPORT,
    CarrierState,
    CarrierStep,
    Flow,
    FlowStep,
    TransportState,
    TransportStep,
)

Table = Mapping[tuple[Any, Any], Any]


@pytest.mark.parametrize(
    ("table", "states", "steps", "first"),
    [
        (CARRIER, CarrierState, CarrierStep, CarrierState.OPEN),
        (TRANSPORT, TransportState, TransportStep, TransportState.OPEN),
        (FLOW, Flow, FlowStep, Flow.BACKLOG),
    ],
)
def test_every_state_is_reachable_and_every_step_is_used(
    table: Table, states: type[enum.Enum], steps: type[enum.Enum], first: enum.Enum
) -> None:
    reached, found = {first}, {first}
    while found:
        found = {new for (state, _), new in table.items() if state in found} - reached
        reached |= found
    assert reached == set(states)
    assert {step for _, step in table} == set(steps)


@pytest.mark.parametrize(
    ("table", "states", "end", "last"),
    [
        (CARRIER, CarrierState, CarrierStep.LOST, CarrierState.LOST),
        (TRANSPORT, TransportState, TransportStep.FINISH, TransportState.CLOSED),
    ],
)
def test_every_state_can_end_and_the_last_one_is_final(
    table: Table, states: type[enum.Enum], end: enum.Enum, last: enum.Enum
) -> None:
    assert all(table[state, end] is last for state in states if state is not last)
    assert not [state for state, _ in table if state is last]


def test_a_lost_carrier_stops_the_flow_in_every_state() -> None:
    """In BACKLOG it is stopped already."""
    assert all(FLOW.get((state, FlowStep.DETACHED), state) is Flow.BACKLOG for state in Flow)
