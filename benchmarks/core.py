"""Frames per second that two yamux sessions exchange in memory.

There is no socket, no WebSocket and no reactor, so only changes of ``seance.yamux`` change the figures. Each
measurement runs in a new process and counts CPU time, not wall-clock time.

    python benchmarks/core.py                    figures of this checkout
    python benchmarks/core.py --against HEAD     ratios: this checkout and a commit, in turn, in one run

Compare only ratios of one run, not figures of two runs or two machines. A ratio is the time for the same
work: below 1 is faster than the commit. The commit is unpacked into a temporary folder; the checkout is not
changed.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ECHO_BYTES = 64
BULK_BYTES = 256 * 1024


def echo(streams: int, rounds: int, size: int) -> int:
    """Echo ``size`` bytes on each of ``streams``, ``rounds`` times; return the count of data frames."""
    from seance.yamux import DataReceived, Role, Session, StreamOpened  # noqa: PLC0415  # of the tree under test

    relay, agent = Session(Role.SERVER), Session(Role.CLIENT)
    now = 0.0
    frames = 0

    def move(sender: Session, receiver: Session) -> None:
        nonlocal now
        while pieces := sender.next_message():
            now += 1e-5
            receiver.receive_data(b"".join(pieces), now)

    def take(session: Session, *, is_echoing: bool) -> None:
        nonlocal frames
        for event in session.take_events():
            if isinstance(event, DataReceived):
                frames += 1
                session.data_taken(event.stream_id, len(event.data))
                if is_echoing:
                    session.send_data(event.stream_id, event.data)
            elif isinstance(event, StreamOpened):
                session.accept_stream(event.stream_id)

    ids = [relay.open_stream(now) for _ in range(streams)]
    body = bytes(size)
    for _ in range(rounds):
        for stream_id in ids:
            relay.send_data(stream_id, body)
        while relay.wants_to_send or agent.wants_to_send:
            move(relay, agent)
            take(agent, is_echoing=True)
            move(agent, relay)
            take(relay, is_echoing=False)
    return frames


LOADS: dict[str, Callable[[], int]] = {
    "echo1": lambda: echo(1, 10_000, ECHO_BYTES),
    "echo100": lambda: echo(100, 200, ECHO_BYTES),
    "bulk": lambda: echo(1, 200, BULK_BYTES),
    "bulk4": lambda: echo(4, 50, BULK_BYTES),
}
"""One and a hundred streams that echo 64 bytes, one and four that echo 256 KiB."""

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""Settings of glibc's allocator. Without them, the layout of the heap decides by chance whether the memory of
every message is returned to the kernel and allocated again, which doubles the time of the bulk loads."""


def measure(load: str) -> str:
    """Run a load in this process; return its frames and its CPU time in seconds."""
    LOADS[load]()
    began = time.process_time()
    frames = LOADS[load]()
    return f"{frames} {time.process_time() - began}"


def run(tree: Path, load: str) -> tuple[int, float]:
    """Run a load with the ``seance`` of a tree, in a new process; return frames and seconds."""
    argv = [sys.executable, __file__, "--measure", load]
    env = {**os.environ, **KEEP_MEMORY, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, env=env, check=True, capture_output=True, text=True)  # noqa: S603  # ourselves
    frames, seconds = done.stdout.split()
    return int(frames), float(seconds)


def unpack(commit: str, into: Path) -> None:
    """Unpack the package ``seance`` of a commit."""
    argv = ["git", "-C", str(ROOT), "archive", commit, "seance"]
    archive = subprocess.run(argv, check=True, capture_output=True).stdout  # noqa: S603  # the user's own commit
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(into, filter="data")


def report(rounds: int, against: str | None) -> None:
    """Measure all loads and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder)
        if against:
            unpack(against, other)
        sys.stdout.write(f"{'load':<10}{'frames':>9}{'per second':>12}")
        sys.stdout.write(f"{against:>12}{'ratio':>8}{'least':>8}{'most':>8}\n" if against else "\n")
        for load in LOADS:
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(run(ROOT, load))
                if against:
                    theirs.append(run(other, load))
            sys.stdout.write(f"{load:<10}{ours[0][0]:>9,}{per_second(ours):>12,.0f}")
            if against:
                ratios = [this[1] / that[1] for this, that in zip(ours, theirs, strict=True)]
                sys.stdout.write(f"{per_second(theirs):>12,.0f}{statistics.median(ratios):>8.2f}")
                sys.stdout.write(f"{min(ratios):>8.2f}{max(ratios):>8.2f}")
            sys.stdout.write("\n")
            sys.stdout.flush()


def per_second(runs: list[tuple[int, float]]) -> float:
    """Return the median of frames per second."""
    return statistics.median(frames / seconds for frames, seconds in runs)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Frames a second of the pure yamux core.")
    parser.add_argument("--against", metavar="GITREF", help="measure this commit too, in turn")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds; the table has medians")
    parser.add_argument("--measure", choices=list(LOADS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(measure(arguments.measure))
    else:
        report(arguments.rounds, arguments.against)


if __name__ == "__main__":
    main()
