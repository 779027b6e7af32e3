"""The tables of states in docs/architecture.md, made from the tables of transitions in the source.

A machine is any mapping of the form ``{(state, event): next_state}`` with states and events that are enum
members. ``MACHINES`` names those on the page; each has a pair of markers there::

    <!-- states: agent -->
    <!-- /states -->

The meaning of a state or event is its entry under ``Attributes:`` in the docstring of the enum, if there is
one. ``python -m tests.docs.tree`` writes the tables.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from seance.agent.states import AGENT, LINK

__all__ = ["MACHINES", "Transitions", "render_states", "replace_states"]

Transitions = Mapping[tuple[Any, Any], Any]

MACHINES: dict[str, Transitions] = {"agent": AGENT, "link": LINK}

SECTION = re.compile(r"(<!-- states: (\S+) -->\n).*?(<!-- /states -->\n)", re.DOTALL)


def render_states(table: Transitions) -> str:
    """Return a table of the states with their transitions, and one of the events if these are documented."""
    [states] = {type(state) for state, _ in table}
    [events] = {type(event) for _, event in table}
    meanings = _meanings(states)
    rows = [
        [_name(state), *([meanings[state.name]] if meanings else []), _transitions(table, state)]
        for state in states
    ]
    tables = [_table(["state", *(["meaning"] if meanings else []), "event → next state"], rows)]
    if meanings := _meanings(events):
        tables.append(_table(["event", "meaning"], [[_name(one), meanings[one.name]] for one in events]))
    return "\n".join(tables)


def replace_states(page: str) -> str:
    """Return the page with the table of each machine between its markers."""
    return SECTION.sub(lambda match: f"{match[1]}\n{render_states(MACHINES[match[2]])}\n{match[3]}", page)


def _transitions(table: Transitions, state: Enum) -> str:
    events: dict[Enum, list[str]] = {}
    for event in (event for before, event in table if before is state):
        events.setdefault(table[state, event], []).append(_name(event))
    return "; ".join(f"{', '.join(names)} → {_name(after)}" for after, names in events.items())


def _name(member: Enum) -> str:
    return f"`{member.value}`"


def _meanings(kind: type[Enum]) -> dict[str, str]:
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])
