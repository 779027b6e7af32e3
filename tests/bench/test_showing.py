"""The figures as tables, as a picture and as JSON."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from seance.bench.comparison import Comparison, Effort, Figures, Side
from seance.bench.loads import LOADS
from seance.bench.plot import plot
from seance.bench.table import rows, table
from seance.wsclient.dial import Target

SVG = "{http://www.w3.org/2000/svg}"


def comparison() -> Comparison:
    """Both sides of two loads; the tunnel alone of a third."""
    target = Target(False, "h", 1)
    found = Comparison(Effort(), (Side("direct", target), Side("tunnel", target)), LOADS)
    echo, flood, fan = (("echo", "direct"), ("flood", "direct"), ("fan", "tunnel"))
    found.figures = {
        echo: Figures(p50_seconds=0.001, p99_seconds=0.002),
        ("echo", "tunnel"): Figures(
            p50_seconds=0.003, p99_seconds=0.004, relay_cpu_seconds=0.1, agent_cpu_seconds=0.2
        ),
        flood: Figures(messages_per_second=2000.0),
        ("flood", "tunnel"): Figures(messages_per_second=1000.0),
        fan: Figures(p50_seconds=0.005, p99_seconds=0.006),
    }
    return found


def test_a_table_has_both_sides_the_ratio_and_which_way_is_better() -> None:
    lines = table(comparison()).split("CPU of")[0].splitlines()
    [line] = [line for line in lines if line.startswith("echo, 1 client")]
    assert line.endswith("1.00 ms   3.00 ms   3.00  less is better")
    assert any("2,000 /s  1,000 /s   0.50  more is better" in line for line in lines)


def test_what_one_side_did_not_do_is_a_dash() -> None:
    [line] = [line for line in table(comparison()).splitlines() if line.startswith("1 tells")]
    assert line.split("  ")[-4].strip() != "0"
    assert " -  " in line


def test_what_was_not_measured_at_all_has_no_row() -> None:
    assert "256 KiB" not in table(comparison()).split("CPU of")[0]
    assert len(rows(comparison())) == 5


def test_what_relay_and_agent_used_is_in_a_table_of_its_own() -> None:
    cost = table(comparison()).split("CPU of 1,000 messages")[1]
    assert "100.0 ms  200.0 ms" in cost
    assert "idle client" not in cost
    found = comparison()
    found.idle_clients, found.relay_idle_bytes, found.agent_idle_bytes = 500, 8192.0, 4096.0
    assert "memory of an idle client, of 500   8.0 KiB   4.0 KiB" in table(found)


def test_the_picture_is_svg_with_a_pair_of_bars_for_each_row() -> None:
    root = ElementTree.fromstring(plot(comparison()))
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("x") == "300"]
    assert [bar.get("class") for bar in bars] == ["direct", "tunnel"] * 5
    widths = [float(bar.get("width", "")) for bar in bars]
    assert widths[0] * 3 == widths[1] or abs(widths[0] * 3 - widths[1]) < 1
    assert widths[8] == 0.0
    assert max(widths) == 340


def test_the_json_has_every_load_of_both_sides() -> None:
    seen = json.loads(json.dumps(comparison().as_json()))
    assert [load["name"] for load in seen["loads"]] == [load.name for load in LOADS]
    echo = seen["loads"][1]
    assert echo["direct"]["p50_seconds"] == 0.001
    assert echo["tunnel"]["relay_cpu_seconds"] == 0.1
    assert seen["sides"] == {"direct": "ws://h:1", "tunnel": "ws://h:1"}
