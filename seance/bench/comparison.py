"""Run the loads on the direct connection and through the tunnel, and keep the medians.

Both are measured in turn, several times, because other programs on the machine then slow both down alike.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seance import __version__
from seance.bench.loads import LOADS, Load, Sample, open_idle_clients, percentile
from seance.bench.subprocesses import Subprocess
from seance.wsclient import Reactor, Target

__all__ = ["FIGURES", "BenchTarget", "Comparison", "Effort", "Figures", "compare"]

WARM_UP_SHARE = 0.2
"""Share of the idle clients that connect before the first reading; they also fill allocator caches."""

FIGURES = (
    "messages_per_second",
    "bytes_per_second",
    "p50_seconds",
    "p99_seconds",
    "relay_cpu_seconds",
    "agent_cpu_seconds",
)
"""The figures of a load. CPU time is for a thousand messages."""

Figures = dict[str, float | None]
"""Medians of the rounds by the names in ``FIGURES``; None for what a load does not measure."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        seconds: Duration of a load.
        rounds: Number of runs of each load on each target.
        idle_clients: Number of connections for the memory of an idle client; 0 to skip it.
    """

    seconds: float = 1.0
    rounds: int = 3
    idle_clients: int = 500


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """One way to the local server.

    Attributes:
        name: ``"direct"`` or ``"tunnel"``.
        target: Its address.
        relay: The relay, if this run has started it.
        agent: The agent, if this run has started it.
        can_broadcast: Whether its local server is that of ``seance bench`` or ``seance check``.
    """

    name: str
    target: Target
    relay: Subprocess | None = None
    agent: Subprocess | None = None
    can_broadcast: bool = True


@dataclass(slots=True)
class Comparison:
    """All figures of a run.

    Attributes:
        effort: The extent of the measurement.
        targets: The compared targets.
        loads: The loads in order.
        figures: By the names of load and target; a load that was skipped is missing.
        idle_clients: Number of connections for the memory figures.
        relay_idle_bytes: Memory of the relay for each idle client.
        agent_idle_bytes: Memory of the agent for each idle client.
    """

    effort: Effort
    targets: tuple[BenchTarget, ...]
    loads: tuple[Load, ...] = ()
    figures: dict[tuple[str, str], Figures] = field(default_factory=dict)
    idle_clients: int = 0
    relay_idle_bytes: float | None = None
    agent_idle_bytes: float | None = None

    def figure(self, load: str, target: str, name: str) -> float | None:
        """Return one figure by the names of load, target and figure; None if it was not measured."""
        return self.figures.get((load, target), {}).get(name)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form, described in ``docs/check.schema.json``."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "seconds_per_load": self.effort.seconds,
            "rounds": self.effort.rounds,
            "sides": {one.name: str(one.target) for one in self.targets},
            "loads": [
                {"name": load.name, "words": load.words}
                | {
                    one.name: {name: self.figure(load.name, one.name, name) for name in FIGURES}
                    for one in self.targets
                }
                for load in self.loads
            ],
            "idle": {
                "clients": self.idle_clients,
                "relay_bytes_per_client": self.relay_idle_bytes,
                "agent_bytes_per_client": self.agent_idle_bytes,
            },
        }


async def compare(
    reactor: Reactor,
    targets: Sequence[BenchTarget],
    effort: Effort,
    progress: Callable[[str], None],
    loads: Sequence[Load] = LOADS,
) -> Comparison:
    """Run every load on every target.

    Raises:
        SeanceError: A load failed.
    """
    found = Comparison(effort, tuple(targets), tuple(loads))
    for target in targets if effort.idle_clients else ():
        # Memory first: later, new connections reuse what a load has freed, and appear to cost nothing.
        relay, agent = target.relay, target.agent
        if relay is not None and agent is not None and relay.resident_bytes is not None:
            progress(f"memory of {effort.idle_clients} idle clients")
            await _measure_idle_memory(reactor, found, target.target, relay, agent)
    for load in loads:
        samples: dict[str, list[Figures]] = {}
        for number in range(effort.rounds):
            for target in targets:
                if load.needs_broadcast and not target.can_broadcast:
                    continue
                progress(f"{load.words}: {target.name}, {number + 1} of {effort.rounds}")
                figures = await _measure(reactor, load, target, effort.seconds)
                samples.setdefault(target.name, []).append(figures)
        for name, several in samples.items():
            found.figures[load.name, name] = {figure: _median(several, figure) for figure in FIGURES}
    return found


async def _measure(reactor: Reactor, load: Load, target: BenchTarget, seconds: float) -> Figures:
    processes = {"relay_cpu_seconds": target.relay, "agent_cpu_seconds": target.agent}
    before = {name: process.cpu_seconds for name, process in processes.items() if process is not None}
    sample = await load.run(reactor, target.target, seconds)
    figures = {name: value for name, value in _figures_of(sample).items() if name in load.figures}
    for name, began in before.items():
        process = processes[name]
        ended = None if process is None else process.cpu_seconds
        if began is not None and ended is not None:
            figures[name] = (ended - began) * 1000 / max(sample.messages, 1)
    return figures


def _figures_of(sample: Sample) -> Figures:
    return {
        "messages_per_second": sample.messages / sample.seconds,
        "bytes_per_second": sample.payload_bytes / sample.seconds,
        "p50_seconds": percentile(sample.latencies_seconds, 0.50),
        "p99_seconds": percentile(sample.latencies_seconds, 0.99),
    }


def _median(samples: Sequence[Figures], name: str) -> float | None:
    known = [value for figures in samples if (value := figures.get(name)) is not None]
    return statistics.median(known) if known else None


async def _measure_idle_memory(
    reactor: Reactor, found: Comparison, target: Target, relay: Subprocess, agent: Subprocess
) -> None:
    count = found.effort.idle_clients
    warm_up = max(int(count * WARM_UP_SHARE), 1)
    readings: list[tuple[int, int]] = []

    def read(_: int) -> None:
        readings.append((relay.resident_bytes or 0, agent.resident_bytes or 0))

    await open_idle_clients(reactor, target, count, read, (warm_up, count))
    added = max(count - warm_up, 1)
    found.idle_clients = count
    found.relay_idle_bytes, found.agent_idle_bytes = (
        (last - first) / added for first, last in zip(readings[0], readings[-1], strict=True)
    )
