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


SAID = "paced n=100 m=300 s=64 elapsed=5s msgs/s=5975 MB/s=0.4 p50=405us p99=2637us max=8010us"


def figures_of(pairs: Any, ours: float) -> Any:
    """Return figures of three rounds in which Go took a second, or sent one, for each row."""
    found = {}
    for load, kind, _, _ in pairs.ROWS:
        for suffix in ("",) if load == pairs.IDLE else ("", pairs.TLS_SUFFIX):
            found[pairs.Key("Seance", load + suffix, kind)] = [ours, 2 * ours, 0.5 * ours]
            found[pairs.Key("Go", load + suffix, kind)] = [1.0, 1.0, 1.0]
    return found


def test_the_figures_of_a_load_are_read_from_its_last_line(pairs: Any) -> None:
    expected = {"p50": 405e-6, "p99": 2637e-6, "messages/s": 5975.0, "MB/s": 0.4}
    assert pairs.figures_in(SAID) == pytest.approx(expected)
    assert pairs.figures_in("flood n=4 msgs/s=800 MB/s=209.7") == {"messages/s": 800.0, "MB/s": 209.7}
    assert pairs.figures_in("") == {}


def test_the_median_of_the_rounds_is_compared_with_the_goal(pairs: Any) -> None:
    lines = pairs.goals_table(figures_of(pairs, 0.82)).splitlines()
    ratio = "0.82 (0.41 to 1.64)"
    missed = "**0.82** (0.41 to 1.64)"
    assert f"| echo, 1 client, 64 B | CPU | 0.82 s | ≤ 0.8 | {missed} | 0.82 s | ≤ 1 | {ratio} |" in lines
    assert f"| echo, 1 client, 64 B | p50 | 0.82 s | ≤ 1.1 | {ratio} | 0.82 s |  | {ratio} |" in lines
    assert f"| 1,000 idle clients, each | memory | 0.0 KiB | ≤ 0.1 | {missed} |  |  |  |" in lines
    assert len(lines) == 2 + len(pairs.ROWS)


def test_a_load_that_was_not_run_has_no_cells(pairs: Any) -> None:
    assert len(pairs.goals_table({}).splitlines()) == 2
    figures = {pairs.Key(pair, "bulk-tls", "MB/s"): [80.0] for pair in ("Seance", "Go")}
    last = "| 4 clients echo 256 KiB | MB/s |  |  |  | 80 |  | 1.00 (1.00 to 1.00) |"
    assert pairs.goals_table(figures).splitlines()[2:] == [last]


def test_the_figures_have_units(pairs: Any) -> None:
    assert pairs.show(0.0021, "p99") == "2.10 ms"
    assert pairs.show(0.96, "CPU") == "0.96 s"
    assert pairs.show(30300.4, "messages/s") == "30,300"
    assert pairs.show(4096.0, "memory") == "4.0 KiB"


def test_the_pairs_use_tls_on_both_legs_or_on_none(pairs: Any) -> None:
    tls = pairs.Tls("ca.pem", "cert.pem", "key.pem")
    for pair in (pairs.ours(tls), pairs.Yardstick("relay", "agent", "load").pair(tls)):
        assert {"cert.pem", "key.pem"} <= set(pair.relay)
        assert "ca.pem" in pair.agent
        assert any(word.startswith("wss://") for word in pair.agent)
    for pair in (pairs.ours(), pairs.Yardstick("relay", "agent", "load").pair(None)):
        assert not any("pem" in word or word.startswith("wss") for word in (*pair.relay, *pair.agent))


def test_an_unknown_load_is_an_error(
    pairs: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pairs.py", "--loads", "echo1,echo2"])
    with pytest.raises(SystemExit):
        pairs.main()
    assert "unknown load echo2; loads are idle, echo1" in capsys.readouterr().err


def test_tables_are_written_between_the_marks_only(pairs: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    block = "<!-- {0}: begin -->\n\n{1}\n\n<!-- {0}: end -->\n"
    page.write_text(f"before\n{block.format('pairs', 'old')}between\n{block.format('shaping', 'old')}after\n")
    pairs.write_between_marks(page, "pairs", "new\n")
    assert (
        page.read_text()
        == f"before\n{block.format('pairs', 'new')}between\n{block.format('shaping', 'old')}after\n"
    )
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no marks"):
        pairs.write_between_marks(page, "pairs", "new")


def test_a_missing_yardstick_is_an_error_with_the_reason(
    pairs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = importlib.import_module("programs")
    assert "make bench YARDSTICK=path" in programs.why_no_yardstick(tmp_path)
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "main.go").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no go on the PATH" in programs.why_no_yardstick(tmp_path)


def test_the_page_has_every_row_and_goal(pairs: Any) -> None:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    between = re.search("<!-- pairs: begin -->(.*)<!-- pairs: end -->", page, re.DOTALL)
    assert between is not None
    for load, kind, goal, tls_goal in pairs.ROWS:
        cells = [f"≤ {one:g}" if one is not None else "" for one in (goal, tls_goal)]
        row = rf"\| {pairs.name_of(load)} \| {kind} \|[^|]+\| {cells[0]} \|[^|]+\|[^|]+\| {cells[1]} \|"
        assert re.search(row, between[1]), row
