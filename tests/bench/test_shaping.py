"""``benchmarks/shaping.py``: what it computes from echoes and marks. Its measurements are not tested."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from tests.docs.pages import DOCS
from tests.tools import ROOT


@pytest.fixture
def shaping(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the program as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("shaping")


def test_percentiles_of_few_values_stay_within_them(shaping: Any) -> None:
    assert shaping.percentile([0.1, 0.2, 0.3], 50) == pytest.approx(0.2)
    assert 0.29 < shaping.percentile([0.1, 0.2, 0.3], 99) <= 0.3


def test_an_echo_counts_in_the_phase_in_which_it_was_typed(shaping: Any) -> None:
    echoes = [shaping.Echo(1.0, 5.0), shaping.Echo(2.0, 6.0), shaping.Echo(3.0, 7.0)]
    assert shaping.during(echoes, 1.0, 3.0) == [5.0, 6.0]


def test_the_rate_between_two_times(shaping: Any) -> None:
    marks = [shaping.Mark(float(second), second * 125_000) for second in range(1, 11)]
    assert shaping.mbit_between(marks, 0.0, 10.0) == pytest.approx(1.0)
    assert shaping.mbit_between(marks, 4.0, 6.0) == pytest.approx(1.0)
    assert shaping.mbit_between(marks, 20.0, 30.0) == 0.0
    assert shaping.mbit_between([], 0.0, 1.0) == 0.0


def test_a_stall_counts_from_the_begin_and_to_the_end(shaping: Any) -> None:
    marks = [shaping.Mark(at, 1) for at in (2.0, 3.0, 4.5)]
    assert shaping.longest_gap(marks, 0.0, 5.0) == 2.0
    assert shaping.longest_gap(marks, 1.5, 5.0) == 1.5
    assert shaping.longest_gap(marks, 1.5, 9.0) == 4.5
    assert shaping.longest_gap([], 1.0, 4.0) == 3.0


def test_the_last_echo_above_the_bound_ends_the_settling(shaping: Any) -> None:
    echoes = [
        shaping.Echo(0.0, 9.0),
        shaping.Echo(11.0, 0.5),
        shaping.Echo(12.0, 0.3),
        shaping.Echo(13.0, 0.1),
    ]
    assert shaping.settled_after(echoes, 10.0, 20.0, 0.2) == 2.0
    assert shaping.settled_after(echoes, 12.5, 20.0, 0.2) == 0.0


def test_each_queue_direction_and_scheme_has_a_row_with_and_without_a_foreign_flow(shaping: Any) -> None:
    assert len(shaping.KEYS) == 4 * 2 * 2 * 2
    assert {"keys-up-8k", "keys-down-1024k-tls", "keys-up-512k-tls-foreign"} <= set(shaping.KEYS)


def test_a_lost_connection_is_a_missed_row(shaping: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(congestion: str) -> Any:
        raise TimeoutError(congestion)

    monkeypatch.setitem(shaping.ROWS, "tabs", lose)
    row = json.loads(json.dumps(shaping.measure("tabs", "cubic")))
    assert (row["row"], row["reached"], row["lost"]) == ("tabs", False, "cubic")


def test_tables_have_the_measured_rows_and_mark_missed_goals(shaping: Any) -> None:
    common = {"date": "2026-12-01", "congestion": "cubic", "reached": False}
    keys = {"busy_p99_ms": 1139.9, "goal_p99_ms": 236.4, "share": 0.938}
    lines = shaping.tables(
        [
            {"row": "keys-down-64k", **common, **keys, "busy_p99_ms": 5.0},
            {"row": "keys-down-64k", **common, **keys},
            {"row": "keys-up-64k-tls", **common, **keys, "reached": True},
            {"row": "keys-up-8k-foreign", **common, "lost": "an echo"},
            {
                "row": "tabs",
                **common,
                "synced": 8,
                "all_after_s": 42.54,
                "dials": 8,
                "goal_s": 45,
                "reached": True,
            },
            {"row": "long-up", **common, "share": 0.71, "bare_mbit": 69.4, "goal_share": 0.8},
        ]
    ).splitlines()
    assert lines[0] == "2026-12-01, congestion control cubic, one run of each row."
    assert "| 64 KiB | no | **1,140** (≤ 236), 94 % |  |  | 1,140 (≤ 236), 94 % |" in lines
    assert "| 8 KiB | yes |  |  | **connection lost** |  |" in lines
    assert "| tabs | 8 of 8 in 45 s | 8 of 8 in 42.5 s, 8 connections |" in lines
    assert "| long-up | ≥ 80 % | **71 %**; a bare connection 69 % |" in lines


def test_a_row_with_changes_of_rate_has_a_goal_for_each_phase(shaping: Any) -> None:
    row = {"reached": False, "longest_stall_s": 1.287}
    for name, p99, goal in (("before", 3286.4, 113.5), ("slow", 5389.4, 228.2), ("after", 579.7, 113.5)):
        row |= {f"{name}_p99_ms": p99, f"{name}_goal_ms": goal}
    goal, measured = shaping.other_cells(row)
    assert goal == "stall ≤ 2 s; p99 ≤ 114, 228, 114 ms"
    assert measured == "**stall 1.3 s; p99 3,286, 5,389, 580 ms**"


def test_the_page_has_every_row(shaping: Any) -> None:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    between = page.partition("<!-- shaping: begin -->")[2].partition("<!-- shaping: end -->")[0]
    for queue in shaping.QUEUES_KIB:
        for foreign in ("no", "yes"):
            cells = between.partition(f"| {queue} KiB | {foreign} | ")[2].partition(" |\n")[0].split(" | ")
            assert len(cells) == 4
            assert all(cells)
    for name in shaping.OTHERS:
        assert f"| {name} | " in between
