"""Our relay and agent against the yardstick's, in turn: CPU time, latency and memory, as ratios.

    make bench                                  the figures of docs/benchmarks.md
    python benchmarks/pairs.py --loads echo1    one load, on the screen only
    python benchmarks/pairs.py --write FILE     write the tables between the marks of a page

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
    Yardstick,
    free_port,
    ours,
    own_and_kernel_seconds,
    running,
    running_pair,
    why_no_yardstick,
)

LOADS = {
    "echo1": ("-mode", "echo", "-n", "1", "-m", "5000", "-s", "64"),
    "echo100": ("-mode", "echo", "-n", "100", "-m", "200", "-s", "64"),
    "fan": ("-mode", "fan", "-n", "200", "-m", "100", "-s", "128"),
    "flood": ("-mode", "flood", "-n", "8", "-m", "20000", "-s", "64"),
    "bulk": ("-mode", "flood", "-n", "4", "-m", "400", "-s", "262144"),
}
"""One client and 100 that echo 64 bytes, one that sends to 200, eight that pipeline, four with 256 KiB."""

WARM = ("-mode", "echo", "-n", "4", "-m", "200", "-s", "64")
IDLE = "idle"
IDLE_CLIENTS = 1000

GOALS = (
    ("echo1", "cpu", 0.8, 0.5),
    ("echo1", "p50", 1.0, 0.8),
    ("echo100", "cpu", 0.5, 0.35),
    ("fan", "cpu", 0.6, 0.4),
    ("fan", "p99", 1.0, 0.8),
    ("flood", "cpu", 0.7, 0.5),
    ("bulk", "cpu", 0.8, 0.6),
    (IDLE, "memory", 0.1, 0.1),
)
"""Load, figure, and the ratio to reach: with the default install, and with the extra ``fast``."""

WORDS = {
    "echo1": "echo, 1 client, 64 B",
    "echo100": "echo, 100 clients, 64 B",
    "fan": "1 sends to 200, 128 B",
    "flood": "8 clients pipeline 64 B",
    "bulk": "4 clients echo 256 KiB",
    IDLE: f"{IDLE_CLIENTS:,} idle clients",
    "cpu": "CPU",
    "own": "CPU in user space",
    "kernel": "CPU in the kernel",
    "p50": "p50",
    "p99": "p99",
    "memory": "memory per client",
}

LOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Key:
    """The pair, load and kind of a figure."""

    pair: str
    load: str
    kind: str


Figures = dict[Key, list[float]]


def measure(pair: Pair, load: str, running_now: Running, program: str, figures: Figures) -> None:
    """Run one load against a pair, and record CPU time and latency."""
    before = spent(running_now)
    said = run_load(program, LOADS[load], running_now.url)
    own, kernel = (after - one for one, after in zip(before, spent(running_now), strict=True))
    for kind, used in (("cpu", own + kernel), ("own", own), ("kernel", kernel)):
        figures.setdefault(Key(pair.name, load, kind), []).append(used)
    for kind in ("p50", "p99"):
        if found := re.search(rf"{kind}=(\d+)us", said):
            figures.setdefault(Key(pair.name, load, kind), []).append(int(found[1]) / 1e6)


def spent(pair: Running) -> tuple[float, float]:
    """Return the CPU seconds of relay and agent so far: in user space, and in the kernel."""
    relay, agent = (own_and_kernel_seconds(pid) for pid in (pair.relay, pair.agent))
    return relay[0] + agent[0], relay[1] + agent[1]


def run_load(program: str, words: Sequence[str], url: str) -> str:
    """Run the yardstick's load program; returns its last line."""
    argv = [program, *words, "-url", url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LOAD_SECONDS, check=True)  # noqa: S603  # built here
    return done.stdout.strip().splitlines()[-1]


def one_round(pairs: Sequence[Pair], loads: Sequence[str], program: str, figures: Figures) -> None:
    """Run all loads against all pairs, each pair fresh."""
    for pair in pairs:
        local_port = free_port()
        with ExitStack() as stack:
            stack.enter_context(running([program, "-mode", "server", "-addr", f"127.0.0.1:{local_port}"]))
            now = stack.enter_context(running_pair(pair, local_port))
            if IDLE in loads:
                # First, in new processes.
                added = bytes_per_idle_client(now, IDLE_CLIENTS)
                figures.setdefault(Key(pair.name, IDLE, "memory"), []).append(added.relay + added.agent)
            run_load(program, WARM, now.url)
            for load in loads:
                if load != IDLE:
                    measure(pair, load, now, program, figures)


def ratios(figures: Figures, pair: str, load: str, kind: str) -> list[float]:
    """Return the ratio of each round, ours to Go's."""
    mine, theirs = (figures.get(Key(name, load, kind), []) for name in (pair, "Go"))
    return [one / other for one, other in zip(mine, theirs, strict=True) if other]


def goals_table(figures: Figures, name: str) -> list[str]:
    """Return the table of goals and results for the pair of that name."""
    head = ["load", "figure", "goal", f"{name} / Go", "range", ""]
    lines = [_line(head), _line(["---"] * len(head))]
    for load, kind, default, fast in GOALS:
        several = ratios(figures, name, load, kind)
        if not several:
            continue
        goal = fast if name.endswith("[fast]") else default
        middle = round(statistics.median(several), 2)
        spread = f"{min(several):.2f} to {max(several):.2f}"
        verdict = "reached" if middle <= goal else "**missed**"
        lines.append(_line([WORDS[load], WORDS[kind], f"≤ {goal:g}", f"{middle:.2f}", spread, verdict]))
    return lines


def figures_table(figures: Figures, pairs: Sequence[Pair]) -> list[str]:
    """Return the table of the figures themselves."""
    names = [pair.name for pair in pairs]
    lines = [_line(["load", "figure", *names]), _line(["---"] * (2 + len(names)))]
    for load, kind in dict.fromkeys((key.load, key.kind) for key in figures):
        show = _size if kind == "memory" else _time
        several = [figures.get(Key(name, load, kind), []) for name in names]
        cells = [show(statistics.median(one)) if one else "-" for one in several]
        lines.append(_line([WORDS[load], WORDS[kind], *cells]))
    return lines


def circumstances(rounds: int, *, is_fast: bool) -> list[str]:
    """Return date, machine and versions of the measurement."""
    go = _said_by("go", "version").split()[2]
    versions = [f"Python {platform.python_version()}"]
    versions += [
        f"{name} {version(name)}" for name in ("Twisted", "autobahn", "zlib_ng") if find_spec(name.lower())
    ]
    if is_fast:
        versions.append("the compiled form")
    system = f"{platform.system()} {platform.release()}"
    commit = _said_by("git", "rev-parse", "--short", "HEAD")
    return [
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit} or just after it, "
        f"medians of {rounds} rounds. {_processor()}, {os.cpu_count()} cores, {system}; "
        f"load average at the end {os.getloadavg()[0]:.1f} (of which the benchmark itself is about 3); "
        f"{', '.join(versions)}; {go.replace('go', 'Go ')}.",
    ]


def report(figures: Figures, pairs: Sequence[Pair], rounds: int) -> str:
    """Return the text for the page."""
    parts = [
        *circumstances(rounds, is_fast=pairs[0].folder == COMPILED),
        "",
        *goals_table(figures, pairs[0].name),
        "",
        *figures_table(figures, pairs),
    ]
    return "\n".join(parts) + "\n"


def write_between_marks(page: Path, text: str, *, is_fast: bool) -> None:
    """Write the report between the marks of a page; the extra ``fast`` has its own marks."""
    mark = "pairs-fast" if is_fast else "pairs"
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        sys.exit(f"{page} has no marks {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def our_pair(*, is_fast: bool) -> Pair:
    """Return our pair, in the default install or with the extra ``fast`` and the compiled form."""
    has_extra = find_spec("zlib_ng") is not None
    if not is_fast:
        if has_extra:
            sys.exit("The extra 'fast' is installed: pip uninstall zlib-ng, or use --fast.")
        return ours()
    if not has_extra or not COMPILED.exists():
        sys.exit(
            "--fast needs zlib-ng (.venv/bin/pip install zlib-ng) and the compiled form (make compiled)."
        )
    return ours("Seance[fast]", COMPILED)


def measure_ours() -> None:
    """Measure our pair without a comparison."""
    subprocess.run([sys.executable, "-m", "seance", "bench"], cwd=ROOT, check=True)  # ourselves


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def _size(count: float) -> str:
    return f"{count / 1024:.1f} KiB"


def _said_by(*argv: str) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603  # two that are constant
    return done.stdout.strip() or "unknown - -"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", path.read_text("utf-8")) if path.exists() else None
    return found[1] if found else platform.machine()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--yardstick", type=Path, default=ROOT.parent / "shared" / "yardstick")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", default=",".join([IDLE, *LOADS]), help="with commas between them")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables between a page's marks")
    parser.add_argument("--fast", action="store_true", help="with the extra, and in the compiled form")
    told = parser.parse_args()
    why = why_no_yardstick(told.yardstick)
    if why is not None:
        sys.stdout.write(f"{why} Only our pair is measured; no page is written.\n\n")
        sys.stdout.flush()
        measure_ours()
        return
    yardstick = Yardstick.build(told.yardstick.resolve())
    pairs = [our_pair(is_fast=told.fast), yardstick.pair]
    figures: Figures = {}
    for number in range(told.rounds):
        sys.stderr.write(f"round {number + 1} of {told.rounds} ...\n")
        # The order alternates, because the first pair warms the caches for the second.
        in_turn = pairs if number % 2 == 0 else pairs[::-1]
        one_round(in_turn, told.loads.split(","), yardstick.load, figures)
    text = report(figures, pairs, told.rounds)
    sys.stdout.write(text)
    if told.write is not None:
        write_between_marks(told.write, text, is_fast=told.fast)


if __name__ == "__main__":
    main()
