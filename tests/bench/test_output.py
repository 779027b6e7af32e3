"""The figures as tables, as a plot and as JSON."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from seance.bench.comparison import BenchTarget, Comparison, Effort
from seance.bench.loads import LOADS
from seance.bench.output import plot, rows, table
from seance.wsclient import Target

SVG = "{http://www.w3.org/2000/svg}"


def comparison() -> Comparison:
    """Return a comparison with two loads on both targets and a third on the tunnel only."""
    target = Target(False, "h", 1)
    found = Comparison(Effort(), (BenchTarget("direct", target), BenchTarget("tunnel", target)), LOADS)
    cpu = {"relay_cpu_seconds": 0.1, "agent_cpu_seconds": 0.2}
    found.figures = {
        ("echo", "direct"): {"p50_seconds": 0.001, "p99_seconds": 0.002},
        ("echo", "tunnel"): {"p50_seconds": 0.003, "p99_seconds": 0.004, **cpu},
        ("flood", "direct"): {"messages_per_second": 2000.0},
        ("flood", "tunnel"): {"messages_per_second": 1000.0},
        ("fan", "tunnel"): {"p50_seconds": 0.005, "p99_seconds": 0.006},
    }
    return found


def test_the_table_has_both_targets_the_ratio_and_which_way_is_better() -> None:
    lines = table(comparison()).split("CPU of")[0].splitlines()
    [line] = [line for line in lines if line.startswith("echo, 1 client")]
    assert line.endswith("1.00 ms   3.00 ms   3.00  less is better")
    assert any("2,000 /s  1,000 /s   0.50  more is better" in line for line in lines)


def test_a_figure_missing_on_one_target_is_a_dash() -> None:
    [line] = [line for line in table(comparison()).splitlines() if line.startswith("1 sends")]
    assert line.split("  ")[-4].strip() != "0"
    assert " -  " in line


def test_a_figure_missing_on_both_targets_has_no_row() -> None:
    assert "256 KiB" not in table(comparison()).split("CPU of")[0]
    assert len(rows(comparison())) == 5


def test_cpu_time_and_memory_are_in_a_second_table() -> None:
    cost = table(comparison()).split("CPU of 1,000 messages")[1]
    assert "100.0 ms  200.0 ms" in cost
    assert "idle client" not in cost
    found = comparison()
    found.idle_clients, found.relay_idle_bytes, found.agent_idle_bytes = 500, 8192.0, 4096.0
    assert "memory of an idle client, of 500   8.0 KiB   4.0 KiB" in table(found)


def test_the_plot_is_svg_with_two_bars_for_each_row() -> None:
    root = ElementTree.fromstring(plot(comparison()))
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("x") == "300"]
    assert [bar.get("class") for bar in bars] == ["direct", "tunnel"] * 5
    widths = [float(bar.get("width", "")) for bar in bars]
    assert abs(widths[0] * 3 - widths[1]) < 1
    assert widths[8] == 0.0
    assert max(widths) == 340


def test_the_json_has_every_load_of_both_targets() -> None:
    seen = json.loads(json.dumps(comparison().as_json()))
    assert [load["name"] for load in seen["loads"]] == [load.name for load in LOADS]
    echo = seen["loads"][1]
    assert echo["direct"]["p50_seconds"] == 0.001
    assert echo["tunnel"]["relay_cpu_seconds"] == 0.1
    assert seen["sides"] == {"direct": "ws://h:1", "tunnel": "ws://h:1"}
