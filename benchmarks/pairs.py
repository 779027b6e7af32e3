"""Our relay and agent against the yardstick's, in turn: CPU time, latency and memory, as ratios.

    make bench                                      all loads, without TLS and with TLS on both legs
    python benchmarks/pairs.py --loads echo1,bulk-tls
                                                    two loads, on the screen only
    python benchmarks/pairs.py --write FILE         write the tables between the marks of a page

In each round both pairs run the same loads, one after the other, with the yardstick's load program and
local server. The result is the median of the rounds' ratios, because other load on the machine slows both
pairs down. Below 1 is cheaper, or faster, than Go. Without the yardstick or Go, the program only measures our
pair with ``seance bench``.

CPU time is that of relay and agent together, from ``/proc``, in ticks of 10 ms.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from memory import bytes_per_idle_client
from programs import (
    COMPILED,
    ROOT,
    Pair,
    Running,
    Tls,
    Yardstick,
    cpu_seconds,
    free_port,
    ours,
    running,
    running_pair,
    table,
    why_no_yardstick,
    write_between_marks,
)

LOADS = {
    "echo1": ("echo, 1 client, 64 B", "-mode echo -n 1 -m 5000 -s 64"),
    "echo100": ("echo, 100 clients, 64 B", "-mode echo -n 100 -m 200 -s 64"),
    "fan": ("1 sends to 200, 128 B", "-mode fan -n 200 -m 100 -s 128"),
    "flood": ("8 clients pipeline 64 B", "-mode flood -n 8 -m 20000 -s 64"),
    "bulk": ("4 clients echo 256 KiB", "-mode flood -n 4 -m 400 -s 262144"),
    "connects": ("500 clients come and go", "-mode echo -n 500 -m 1 -s 64"),
    "steady": ("100 clients, 60 echoes/s each", "-mode paced -n 100 -rate 60 -m 300 -s 64"),
}
"""The loads with their names in tables and their options for the load program."""

WARM = "-mode echo -n 4 -m 200 -s 64"
IDLE = "idle"
IDLE_CLIENTS = 1000
TLS_SUFFIX = "-tls"

ALL_LOADS = (IDLE, *LOADS, *(f"{load}{TLS_SUFFIX}" for load in LOADS))

ROWS: tuple[tuple[str, str, float | None, float | None], ...] = (
    ("echo1", "CPU", 0.8, 1.0),
    ("echo1", "p50", 1.1, None),
    ("echo100", "CPU", 0.6, 0.85),
    ("echo100", "messages/s", None, None),
    ("fan", "CPU", 0.8, 1.0),
    ("fan", "p99", 1.0, None),
    ("flood", "CPU", 0.8, None),
    ("bulk", "CPU", 1.2, 1.4),
    ("bulk", "MB/s", None, None),
    ("connects", "CPU", 1.3, 1.4),
    ("steady", "CPU", None, None),
    ("steady", "p50", None, None),
    ("steady", "p99", None, None),
    (IDLE, "memory", 0.1, None),
)
"""Load, figure, and the highest ratio to Go that is allowed: without and with TLS."""

LOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Key:
    """The pair, load and kind of a figure."""

    pair: str
    load: str
    kind: str


Figures = dict[Key, list[float]]


def figures_in(line: str) -> dict[str, float]:
    """Return the figures in the last line of the load program: seconds, and rates."""
    found = {kind: int(us) / 1e6 for kind, us in re.findall(r"\b(p50|p99)=(\d+)us", line)}
    for name, kind in (("msgs", "messages/s"), ("MB", "MB/s")):
        if rate := re.search(rf"\b{name}/s=([\d.]+)", line):
            found[kind] = float(rate[1])
    return found


def run_load(program: str, words: str, pair: Running) -> str:
    """Run the yardstick's load program; return its last line."""
    argv = [program, *words.split(), "-url", pair.url, *(("-ca", pair.ca) if pair.ca else ())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LOAD_SECONDS, check=True)  # noqa: S603  # built here
    return done.stdout.strip().splitlines()[-1]


def measure(pair: Pair, loads: Sequence[str], program: str, figures: Figures) -> None:
    """Run loads against a new pair, and record the figures."""
    local_port = free_port()
    with ExitStack() as stack:
        stack.enter_context(running([program, "-mode", "server", "-addr", f"127.0.0.1:{local_port}"]))
        now = stack.enter_context(running_pair(pair, local_port))
        if IDLE in loads:
            # First, in new processes.
            added = bytes_per_idle_client(now, IDLE_CLIENTS)
            figures.setdefault(Key(pair.name, IDLE, "memory"), []).append(added.relay + added.agent)
        run_load(program, WARM, now)
        for load in loads:
            if load != IDLE:
                before = cpu_seconds(now.relay) + cpu_seconds(now.agent)
                found = figures_in(run_load(program, LOADS[load.removesuffix(TLS_SUFFIX)][1], now))
                found["CPU"] = cpu_seconds(now.relay) + cpu_seconds(now.agent) - before
                for kind, value in found.items():
                    figures.setdefault(Key(pair.name, load, kind), []).append(value)


def ratios(figures: Figures, load: str, kind: str) -> list[float]:
    """Return the ratio of each round, ours to Go's."""
    mine, theirs = (figures.get(Key(name, load, kind), []) for name in ("Seance", "Go"))
    return [one / other for one, other in zip(mine, theirs, strict=True) if other]


def cells_of(figures: Figures, load: str, kind: str, goal: float | None) -> tuple[str, str, str]:
    """Return the cells for our figure, the goal, and the ratio to Go, which is bold if it misses the goal."""
    several = ratios(figures, load, kind)
    if not several:
        return "", "", ""
    middle = round(statistics.median(several), 2)
    mark = "**" if goal is not None and middle > goal else ""
    return (
        show(statistics.median(figures[Key("Seance", load, kind)]), kind),
        f"≤ {goal:g}" if goal is not None else "",
        f"{mark}{middle:.2f}{mark} ({min(several):.2f} to {max(several):.2f})",
    )


def goals_table(figures: Figures) -> str:
    """Return the table of goals and results; figures that were not measured have no cells."""
    rows = []
    for load, kind, goal, tls_goal in ROWS:
        cells = cells_of(figures, load, kind, goal) + cells_of(figures, f"{load}{TLS_SUFFIX}", kind, tls_goal)
        if any(cells):
            rows.append([name_of(load), kind, *cells])
    head = [f"{column}, {scheme}" for scheme in ("ws", "wss") for column in ("Seance", "goal", "Seance / Go")]
    return table(["load", "figure", *head], rows)


def name_of(load: str) -> str:
    """Return the name of a load in tables."""
    return f"{IDLE_CLIENTS:,} idle clients, each" if load == IDLE else LOADS[load][0]


def show(value: float, kind: str) -> str:
    """Return a figure with its unit."""
    if kind == "memory":
        return f"{value / 1024:.1f} KiB"
    if kind.endswith("/s"):
        return f"{value:,.0f}"
    return f"{value:.2f} s" if value >= 0.1 else f"{value * 1e3:.2f} ms"


def circumstances(rounds: int, folder: Path) -> str:
    """Return date, machine and versions of the measurement."""
    go = _output("go", "version").split()[2]
    versions = [f"Python {platform.python_version()}"]
    versions += [
        f"{name} {version(name)}" for name in ("Twisted", "autobahn", "zlib_ng") if find_spec(name.lower())
    ]
    versions += ["the compiled form"] if folder == COMPILED else []
    commit = _output("git", "rev-parse", "--short", "HEAD")
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}, medians of {rounds} rounds. "
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; load average at "
        f"the end {os.getloadavg()[0]:.1f}, of which the benchmark itself is about 3; {', '.join(versions)}; "
        f"{go.replace('go', 'Go ')}.\n"
    )


def _output(*argv: str) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # two that are constant
    return done.stdout.strip() or "unknown - -"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", path.read_text("utf-8")) if path.exists() else None
    return found[1] if found else platform.machine()


def measure_all(yardstick: Yardstick, folder: Path, rounds: int, loads: Sequence[str]) -> Figures:
    """Run all rounds, each without and then with TLS."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as files:
        tls = Tls.make(Path(files))
        for number in range(rounds):
            sys.stderr.write(f"round {number + 1} of {rounds} ...\n")
            for scheme in (None, tls):
                some = [load for load in loads if load.endswith(TLS_SUFFIX) == (scheme is not None)]
                pairs = [ours(scheme, folder), yardstick.pair(scheme)]
                # The order alternates, because the first pair warms the caches for the second.
                for pair in pairs if number % 2 == 0 else pairs[::-1]:
                    if some:
                        measure(pair, some, yardstick.load, figures)
    return figures


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--yardstick", type=Path, default=ROOT.parent / "shared" / "yardstick")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--loads", default=",".join(ALL_LOADS), help="with commas between them (default: %(default)s)"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between a page's marks")
    parser.add_argument("--compiled", action="store_true", help="measure our pair in build/compiled")
    told = parser.parse_args()
    loads = told.loads.split(",")
    if unknown := sorted(set(loads) - set(ALL_LOADS)):
        parser.error(f"unknown load {unknown[0]}; loads are {', '.join(ALL_LOADS)}")
    if told.compiled and not COMPILED.exists():
        parser.error("--compiled needs build/compiled; make compiled builds it.")
    why = why_no_yardstick(told.yardstick)
    if why is not None:
        sys.stdout.write(f"{why} Only our pair is measured; no page is written.\n\n")
        sys.stdout.flush()
        subprocess.run([sys.executable, "-m", "seance", "bench"], cwd=ROOT, check=True)  # ourselves
        return
    folder = COMPILED if told.compiled else ROOT
    yardstick = Yardstick.build(told.yardstick.resolve())
    figures = measure_all(yardstick, folder, told.rounds, loads)
    text = f"{circumstances(told.rounds, folder)}\n{goals_table(figures)}"
    sys.stdout.write(text)
    if told.write is not None:
        write_between_marks(told.write, "pairs", text)


if __name__ == "__main__":
    main()
