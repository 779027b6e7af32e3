"""``benchmarks/pairs.py``: its tables. Its measurements are not tested."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS
from tests.tools import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the program as a module, with the import path that it has as a program."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("pairs")


def figures_of(pairs: Any, ours: float) -> Any:
    """Return figures of three rounds in which Go took a second for each load."""
    found = {}
    for load, kind, _, _ in pairs.GOALS:
        found[pairs.Key("Seance", load, kind)] = [ours, 2 * ours, 0.5 * ours]
        found[pairs.Key("Go", load, kind)] = [1.0, 1.0, 1.0]
    return found


def test_the_median_of_the_rounds_is_compared_with_the_goal(pairs: Any) -> None:
    lines = pairs.goals_table(figures_of(pairs, 0.55), "Seance")
    assert "| echo, 1 client, 64 B | CPU | ≤ 0.8 | 0.55 | 0.28 to 1.10 | reached |" in lines
    assert "| echo, 100 clients, 64 B | CPU | ≤ 0.5 | 0.55 | 0.28 to 1.10 | **missed** |" in lines
    assert len(lines) == 2 + len(pairs.GOALS)


def test_the_extra_fast_has_other_goals(pairs: Any) -> None:
    figures = {
        pairs.Key(name.replace("Seance", "Seance[fast]"), load, kind): several
        for (name, load, kind), several in (
            ((key.pair, key.load, key.kind), value) for key, value in figures_of(pairs, 0.55).items()
        )
    }
    lines = pairs.goals_table(figures, "Seance[fast]")
    assert "| echo, 1 client, 64 B | CPU | ≤ 0.5 | 0.55 | 0.28 to 1.10 | **missed** |" in lines


def test_a_load_that_was_not_run_has_no_row(pairs: Any) -> None:
    assert len(pairs.goals_table({}, "Seance")) == 2


def test_tables_are_written_between_the_marks_only(pairs: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    fast = "<!-- pairs-fast: begin -->\n\n{}\n\n<!-- pairs-fast: end -->\n"
    default = "<!-- pairs: begin -->\n\n{}\n\n<!-- pairs: end -->\n"
    page.write_text(f"before\n{default.format('old')}between\n{fast.format('old')}after\n")
    pairs.write_between_marks(page, "new\n", is_fast=False)
    assert page.read_text() == f"before\n{default.format('new')}between\n{fast.format('old')}after\n"
    pairs.write_between_marks(page, "new\n", is_fast=True)
    assert page.read_text() == f"before\n{default.format('new')}between\n{fast.format('new')}after\n"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no marks"):
        pairs.write_between_marks(page, "new", is_fast=False)


def test_a_missing_yardstick_is_an_error_with_the_reason(
    pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = importlib.import_module("programs")
    assert "make bench YARDSTICK=path" in programs.why_no_yardstick(tmp_path)
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "main.go").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no go on the PATH" in programs.why_no_yardstick(tmp_path)


def test_the_page_has_a_row_for_every_goal(pairs: Any) -> None:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    for mark, which in (("pairs", 2), ("pairs-fast", 3)):
        between = re.search(f"<!-- {mark}: begin -->(.*)<!-- {mark}: end -->", page, re.DOTALL)
        assert between is not None
        for goal in pairs.GOALS:
            load, kind = goal[:2]
            assert f"| {pairs.WORDS[load]} | {pairs.WORDS[kind]} | ≤ {goal[which]:g} |" in between[1]
