"""The limit of file descriptors, and that the commands raise it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from twisted.internet.selectreactor import SelectReactor

from seance.net import descriptor_limit, raise_descriptor_limit
from tests.processes import Process, environment, twistd


@pytest.mark.parametrize(("soft", "expected"), [(100, 80), (1000, 800), (65536, 65336)])
def test_some_descriptors_are_reserved(monkeypatch: pytest.MonkeyPatch, soft: int, expected: int) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, 1 << 20))
    assert descriptor_limit() == expected


def test_a_system_without_a_limit_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert descriptor_limit() is None


def test_a_system_without_the_module_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert descriptor_limit() is None


INFINITE = -1


class System:
    """A system that grants fewer descriptors than it reports."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = INFINITE

    def __init__(self, soft: int, hard: int, grants: int) -> None:
        self.limits = (soft, hard)
        self._grants = grants

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self._grants:
            raise ValueError
        self.limits = limits


@pytest.mark.parametrize(
    ("soft", "hard", "grants", "expected"),
    [
        (1024, 4096, 4096, 4096),
        (4096, 4096, 4096, 4096),
        (256, INFINITE, 10_240, 10_240),
        (1024, 1 << 30, 1 << 30, 1 << 20),
        (INFINITE, INFINITE, 1 << 30, INFINITE),
        (256, INFINITE, 300, 256),
        (20_000, INFINITE, 20_000, 20_000),
    ],
)
def test_soft_limit_is_raised_as_far_as_the_system_lets_us(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, grants: int, expected: int
) -> None:
    system = System(soft, hard, grants)
    monkeypatch.setitem(sys.modules, "resource", system)
    raise_descriptor_limit(object())
    assert system.limits == (expected, hard)


def test_limit_is_no_higher_than_the_reactor_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(256, INFINITE, 10_240)
    monkeypatch.setitem(sys.modules, "resource", system)
    raise_descriptor_limit(SelectReactor.__new__(SelectReactor))
    assert system.limits == (1024, INFINITE)


def test_nothing_is_raised_where_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    raise_descriptor_limit(object())


@pytest.mark.parametrize(
    ("plugin", "options"),
    [
        ("seance-relay", ("--listen", "tcp:0:interface=127.0.0.1")),
        ("seance-agent", ("--room", "r", "--relay", "ws://127.0.0.1:9")),
    ],
)
def test_commands_raise_the_limit(plugin: str, options: tuple[str, ...]) -> None:
    script = 'ulimit -Sn 200 && ulimit -Hn 300 && exec "$@"'
    argv = ["sh", "-c", script, "sh", *twistd(plugin, *options)]
    with Process(argv, name=plugin, env=environment()) as process:
        process.when_line("starting on port|Connecting to relay")
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
    assert re.search(r"Max open files +300 +300 ", limits)
