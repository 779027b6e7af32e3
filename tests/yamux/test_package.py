"""The package: its exports, its docstring example and its dependencies."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import seance.yamux
from seance.yamux import events

HERE = Path(__file__).parent


def test_the_example_in_the_docstring_is_true() -> None:
    outcome = doctest.testmod(seance.yamux)
    assert outcome.attempted > 5
    assert outcome.failed == 0


def test_all_events_are_exported() -> None:
    assert set(events.__all__) <= set(seance.yamux.__all__)


def test_import_loads_neither_twisted_nor_a_clock() -> None:
    program = "import sys, seance.yamux; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(HERE.parents[1])!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "seance.yamux.session" in found
    assert not {"twisted", "asyncio", "socket", "logging", "random"} & set(found)


def test_the_table_of_cases_names_tests_that_exist() -> None:
    table = (HERE / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", table, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 95))
    sources = {path.name: path.read_text("utf-8") for path in HERE.glob("test_*.py")}
    for number, place in rows:
        for name in re.findall(r"`(test_\w+)`", place):
            assert any(f"def {name}(" in source for source in sources.values()), f"case {number}: {name}"
        for name in re.findall(r"`(test_\w+\.py)`", place):
            assert (HERE / name).exists(), f"case {number}: {name}"
        assert "`" in place or place.startswith("not here: "), f"case {number} has no test and no reason"
