"""The reasons, limits and outcomes passed to an observer are those of the lists, and all are used."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from seance.agent.local_connection import LocalClient
from seance.core.events import CLIENT_REASONS, LIMITS, LINK_REASONS, RESUMPTIONS, Client, Event, LimitHit
from seance.core.observers import MultiObserver, room_hash
from seance.relay.edge.client_connection import ClientConnection
from tests.metrics import test_relay
from tests.test_layers import SOURCES

TUNNEL = [
    path
    for name, path in SOURCES.items()
    if name.startswith(("seance.core.", "seance.relay.", "seance.agent.")) and name != "seance.core.events"
]


def nodes() -> Iterator[ast.AST]:
    for path in TUNNEL:
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


def passed_to(*names: str) -> set[str]:
    """Return the string constants passed to the methods or classes with these names."""
    found = set()
    for node in nodes():
        if isinstance(node, ast.Call) and name_of(node.func) in names:
            found |= {part.value for argument in node.args for part in ast.walk(argument) if is_word(part)}
    return found


def name_of(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]


def is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()


def all_words() -> set[str]:
    return {node.value for node in nodes() if is_word(node)}


def test_every_value_is_used() -> None:
    for words in (CLIENT_REASONS, LINK_REASONS, RESUMPTIONS, LIMITS):
        assert set(words) <= all_words()
        assert len(set(words)) == len(words)


def test_values_passed_to_an_observer_are_on_the_lists() -> None:
    assert passed_to("LimitHit", "_on_full") <= set(LIMITS)
    assert {"connections", "stalled", "resume_bytes", "window_budget"} <= passed_to("LimitHit")
    assert passed_to("ResumptionEnded") <= set(RESUMPTIONS)
    assert {"gap", "flaps", "unknown"} <= passed_to("ResumptionEnded")
    assert passed_to("_report_end", "tell_end", "release_near", "_close_gracefully") <= set(CLIENT_REASONS)
    assert {"left_early", "seen_off", "broken", "refused", "answered"} <= passed_to(
        "_report_end", "release_near", "_close_gracefully"
    )


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_clients_have_all_that_an_observer_reads() -> None:
    for kind in (ClientConnection, LocalClient, test_relay.FakeClient):
        assert public(Client) <= public(kind), kind


def test_all_observers_get_each_event() -> None:
    received: list[tuple[int, Event]] = []

    class Recorder:
        def __init__(self, number: int) -> None:
            self._number = number

        def notify(self, event: Event) -> None:
            received.append((self._number, event))

    event = LimitHit("stalled")
    MultiObserver(Recorder(1), Recorder(2)).notify(event)
    assert received == [(1, event), (2, event)]


def test_room_hash_is_stable() -> None:
    assert room_hash("r") == "4ea9c1da"
    assert len({room_hash(f"room-{number}") for number in range(1000)}) == 1000
