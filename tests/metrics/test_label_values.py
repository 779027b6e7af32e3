"""The reasons, limits and outcomes passed to an observer are those of the lists, and all are used."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from seance.agent.local_connection import LocalClient
from seance.core.interfaces import Client, Observer
from seance.core.observers import (
    CLIENT_REASONS,
    LIMITS,
    LINK_REASONS,
    RESUMPTIONS,
    MultiObserver,
    NullObserver,
    room_hash,
)
from seance.metrics.relay import RelayMetrics
from seance.relay.edge.client_connection import ClientConnection
from tests.metrics import test_relay
from tests.test_layers import SOURCES

TUNNEL = [
    path
    for name, path in SOURCES.items()
    if name.startswith(("seance.core.", "seance.relay.", "seance.agent.")) and name != "seance.core.observers"
]


def nodes() -> Iterator[ast.AST]:
    for path in TUNNEL:
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


def passed_to(*methods: str) -> set[str]:
    """Return the string constants passed to ``methods``."""
    found = set()
    for node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
            found |= {part.value for argument in node.args for part in ast.walk(argument) if is_word(part)}
    return found


def is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()


def all_words() -> set[str]:
    return {node.value for node in nodes() if is_word(node)}


def test_every_value_is_used() -> None:
    for words in (CLIENT_REASONS, LINK_REASONS, RESUMPTIONS, LIMITS):
        assert set(words) <= all_words()
        assert len(set(words)) == len(words)


def test_values_passed_to_an_observer_are_on_the_lists() -> None:
    assert passed_to("limit_hit", "_on_full") <= set(LIMITS)
    assert {"connections", "stalled", "resume_bytes", "window_budget"} <= passed_to("limit_hit")
    assert passed_to("resumption") <= set(RESUMPTIONS)
    assert {"resumed", "resumed_early", "gap", "flaps", "unknown"} <= passed_to("resumption")
    assert passed_to("_report_end", "tell_end", "release_near", "_close_gracefully") <= set(CLIENT_REASONS)
    assert {"left_early", "seen_off", "broken", "refused", "answered"} <= passed_to(
        "_report_end", "release_near", "_close_gracefully"
    )


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_every_observer_has_all_methods() -> None:
    for kind in (NullObserver, MultiObserver, RelayMetrics):
        assert public(Observer) <= public(kind)


def test_clients_have_all_that_an_observer_reads() -> None:
    for kind in (ClientConnection, LocalClient, test_relay.FakeClient):
        assert public(Client) <= public(kind), kind


def test_all_observers_get_the_same_events() -> None:
    received: list[tuple[str, tuple[object, ...]]] = []

    class Recorder:
        def __getattr__(self, name: str) -> object:
            return lambda *words: received.append((name, words))

    both = MultiObserver(Recorder(), Recorder())  # type: ignore[arg-type]  # they have every method
    calls = {
        "refused": ("code",),
        "limit_hit": ("limit",),
        "parked": ("room",),
        "client_began": ("client",),
        "client_joined": ("client", 1.0),
        "client_answered": ("client", 1.0),
        "client_ended": ("client", "report"),
        "link_changed": ("room", "change", "reason"),
        "resumption": ("outcome",),
    }
    assert calls.keys() == public(Observer)
    for name, words in calls.items():
        getattr(both, name)(*words)
    assert received == [(name, words) for name, words in calls.items() for _ in range(2)]
    assert all(getattr(NullObserver(), name)(*words) is None for name, words in calls.items())


def test_room_hash_is_stable() -> None:
    assert room_hash("r") == "4ea9c1da"
    assert len({room_hash(f"room-{number}") for number in range(1000)}) == 1000
