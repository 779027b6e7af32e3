"""The diagrams of states in docs/states.md, made from the tables of transitions in the source.

A machine is any mapping of the form ``{(state, event): next_state}`` with states and events that are enum
members. ``MACHINES`` names those on the page; each has a pair of markers there::

    <!-- states: agent -->
    <!-- /states -->

The meaning of a state or event is its entry under ``Attributes:`` in the docstring of the enum, or the string
below the member, if there is one. ``python -m tests.docs.tree`` writes the diagrams.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from seance.agent.states import AGENT, LINK
from seance.carrier.states import CARRIER, FLOW, TRANSPORT
from seance.mux.stream_states import LIFECYCLE, READ, WRITE
from seance.yamux.half_states import RECEIVING, SENDING
from tests.tools import ROOT

__all__ = ["MACHINES", "STATES_PAGE", "Transitions", "render_states", "replace_states"]

Transitions = Mapping[tuple[Any, Any], Any]

MACHINES: dict[str, Transitions] = {
    "agent": AGENT,
    "link": LINK,
    "carrier": CARRIER,
    "transport": TRANSPORT,
    "flow": FLOW,
    "read": READ,
    "write": WRITE,
    "lifecycle": LIFECYCLE,
    "sending": SENDING,
    "receiving": RECEIVING,
}

STATES_PAGE = ROOT / "docs" / "states.md"

SECTION = re.compile(r"(<!-- states: (\S+) -->\n).*?(<!-- /states -->\n)", re.DOTALL)


def render_states(table: Transitions) -> str:
    """Return a diagram of the transitions, and tables of the states and events that have a meaning."""
    states: list[Enum] = [state for kind in {type(state) for state, _ in table} for state in kind]
    used: set[Enum] = {event for _, event in table}
    events: list[Enum] = [event for kind in {type(event) for event in used} for event in kind]
    parts = ["```text\n" + "".join(f"{line}\n" for line in _diagram(table, states)) + "```\n"]
    for title, members in ("state", states), ("event", [event for event in events if event in used]):
        if rows := [[f"`{_name(one)}`", meaning] for one in members if (meaning := _meaning(one))]:
            parts.append(_table([title, "meaning"], rows))
    return "\n".join(parts)


def replace_states(page: str) -> str:
    """Return the page with the diagram of each machine between its markers."""
    return SECTION.sub(lambda match: f"{match[1]}\n{render_states(MACHINES[match[2]])}\n{match[3]}", page)


def _diagram(table: Transitions, states: list[Enum]) -> Iterator[str]:
    """One line for each pair of states; one for an event that leads from all states to the same one."""
    arrows: dict[tuple[str, str], list[str]] = {}
    common: list[tuple[str, str, str]] = []
    for (before, event), after in table.items():
        sources = {state for state in states if table.get((state, event)) is after}
        if len(states) > 2 and sources >= {state for state in states if state is not after}:
            source = "every state" if after in sources else "every other state"
            common.append((source, _name(event), _name(after)))
        else:
            arrows.setdefault((_name(before), _name(after)), []).append(_name(event))
    order = [_name(state) for state in states]
    lines = [(before, ", ".join(events), after) for (before, after), events in arrows.items()]
    lines.sort(key=lambda line: order.index(line[0]))
    lines += dict.fromkeys(common)
    width = max(len(before) for before, _, _ in lines)
    for before, event, after in lines:
        yield f"{before:<{width}}  --{event}-->  {after}"


def _name(member: Enum) -> str:
    return member.name.lower().replace("_", " ")


def _meaning(member: Enum) -> str:
    return _meanings(type(member)).get(member.name, "")


def _meanings(kind: type[Enum]) -> dict[str, str]:
    _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.DOTALL | re.MULTILINE)
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for member, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(below, ast.Expr):
            entries.append((ast.unparse(member.targets[0]), ast.literal_eval(below.value)))
    return {name: " ".join(text.replace("``", "`").split()) for name, text in entries}


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])
