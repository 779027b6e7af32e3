"""``benchmarks/shaping.py``: what it computes from echoes and marks. Its measurements are not tested."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

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
    assert row == {"row": "tabs", "congestion": "cubic", "reached": False, "lost": "cubic"}
