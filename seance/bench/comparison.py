"""Direct against through the tunnel: both in turn, several times, and the medians.

In turn, because a machine is never twice the same: what else runs on it slows both down alike. Called by
``seance bench`` and by the last check of ``seance check``; what comes out is a value that ``table`` and
``plot`` show and ``as_json`` writes down.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seance import __version__
from seance.bench.children import Child
from seance.bench.loads import LOADS, Load, Sample, idle_clients, percentile
from seance.wsclient.dial import Target

__all__ = ["Comparison", "Effort", "Figures", "Side", "compare"]

SETTLED = 0.2
"""Of the idle clients, those that are there before memory is looked at: the first ones also pay for the
caches of the allocator."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done.

    Attributes:
        seconds: How long each load goes on, each time.
        rounds: How often each load is run on each side.
        idle_clients: How many connections are opened to look at memory; 0 for none.
    """

    seconds: float = 1.0
    rounds: int = 3
    idle_clients: int = 500

    @classmethod
    def quick(cls) -> Effort:
        """Return the least from which anything can be seen."""
        return cls(seconds=0.4, rounds=1, idle_clients=200)


@dataclass(frozen=True, slots=True)
class Side:
    """One way to the local server.

    Attributes:
        name: ``"direct"`` or ``"tunnel"``.
        target: Where it is.
        relay: The relay's process, if it is ours.
        agent: The agent's.
        has_fan: Whether the local server is one of ours.
    """

    name: str
    target: Target
    relay: Child | None = None
    agent: Child | None = None
    has_fan: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """What one load showed on one side: medians of the rounds. None where it does not say that.

    Attributes:
        messages_per_second: That came back.
        bytes_per_second: Of payload.
        p50_seconds: Half of the latencies are below it.
        p99_seconds: All but a hundredth of them are.
        relay_cpu_seconds: Of the relay's process, for a thousand messages.
        agent_cpu_seconds: Of the agent's.
    """

    messages_per_second: float | None = None
    bytes_per_second: float | None = None
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    relay_cpu_seconds: float | None = None
    agent_cpu_seconds: float | None = None


@dataclass(slots=True)
class Comparison:
    """All figures of one run.

    Attributes:
        effort: How much was done.
        sides: What was compared.
        loads: What was done, in order.
        figures: By the names of load and side; a load that a side could not do is not there.
        idle_clients: How many there were, when memory was looked at.
        relay_idle_bytes: Memory of the relay for each idle client.
        agent_idle_bytes: Memory of the agent.
    """

    effort: Effort
    sides: tuple[Side, ...]
    loads: tuple[Load, ...] = ()
    figures: dict[tuple[str, str], Figures] = field(default_factory=dict)
    idle_clients: int = 0
    relay_idle_bytes: float | None = None
    agent_idle_bytes: float | None = None

    def of(self, load: Load, side: str) -> Figures:
        """Return the figures of a load on a side; all None if there are none."""
        return self.figures.get((load.name, side), Figures())

    def as_json(self) -> dict[str, Any]:
        """Return what JSON can hold, as ``docs/check.md`` describes it."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "seconds_per_load": self.effort.seconds,
            "rounds": self.effort.rounds,
            "sides": {side.name: str(side.target) for side in self.sides},
            "loads": [
                {"name": load.name, "words": load.words}
                | {side.name: _as_json(self.of(load, side.name)) for side in self.sides}
                for load in self.loads
            ],
            "idle": {
                "clients": self.idle_clients,
                "relay_bytes_per_client": self.relay_idle_bytes,
                "agent_bytes_per_client": self.agent_idle_bytes,
            },
        }


async def compare(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    sides: Sequence[Side],
    effort: Effort,
    say: Say,
    loads: Sequence[Load] = LOADS,
) -> Comparison:
    """Run every load on every side.

    Args:
        reactor: Where time and connections come from.
        sides: The direct one first, where there is one.
        effort: How much to do.
        say: Told what is done next.
        loads: Which loads.

    Raises:
        SeanceError: A load could not be run to its end.
    """
    found = Comparison(effort, tuple(sides), tuple(loads))
    if effort.idle_clients:
        # First: later on, what a load has left behind is used again, and nothing seems to be added.
        await _look_at_memory(reactor, found, say)
    for load in loads:
        several: dict[str, list[Figures]] = {side.name: [] for side in sides}
        for number in range(effort.rounds):
            for side in sides:
                if load.needs_fan and not side.has_fan:
                    continue
                say(f"{load.words}: {side.name}, {number + 1} of {effort.rounds}")
                several[side.name].append(await _measure(reactor, load, side, effort.seconds))
        found.figures |= {(load.name, name): _median(figures) for name, figures in several.items() if figures}
    return found


async def _measure(reactor: Any, load: Load, side: Side, seconds: float) -> Figures:  # noqa: ANN401  # a reactor
    before = _cpu_seconds(side.relay), _cpu_seconds(side.agent)
    sample = await load.run(reactor, side.target, seconds)
    after = _cpu_seconds(side.relay), _cpu_seconds(side.agent)
    return _figures(load, sample, _used(before[0], after[0]), _used(before[1], after[1]))


def _figures(load: Load, sample: Sample, relay: float | None, agent: float | None) -> Figures:
    thousands = max(sample.messages, 1) / 1000
    latencies = sample.latencies_seconds if load.is_latency else []
    return Figures(
        messages_per_second=sample.messages / sample.seconds if load.is_rate else None,
        bytes_per_second=sample.payload_bytes / sample.seconds if load.is_bytes else None,
        p50_seconds=percentile(latencies, 0.50) if latencies else None,
        p99_seconds=percentile(latencies, 0.99) if latencies else None,
        relay_cpu_seconds=None if relay is None else relay / thousands,
        agent_cpu_seconds=None if agent is None else agent / thousands,
    )


def _median(figures: Sequence[Figures]) -> Figures:
    def median(name: str) -> float | None:
        known = [value for one in figures if (value := getattr(one, name)) is not None]
        return statistics.median(known) if known else None

    return Figures(**{name: median(name) for name in Figures.__dataclass_fields__})


async def _look_at_memory(reactor: Any, found: Comparison, say: Say) -> None:  # noqa: ANN401  # a reactor
    for side in found.sides:
        relay, agent = side.relay, side.agent
        if relay is None or agent is None or relay.resident_bytes is None:
            continue
        count = found.effort.idle_clients
        settled = max(int(count * SETTLED), 1)
        seen: dict[int, tuple[int, int]] = {}

        def look(
            number: int, relay: Child = relay, agent: Child = agent, seen: dict[int, tuple[int, int]] = seen
        ) -> None:
            seen[number] = (relay.resident_bytes or 0, agent.resident_bytes or 0)

        say(f"memory of {count} idle clients")
        await idle_clients(reactor, side.target, count, look, (settled, count))
        first, last = seen[settled], seen[count]
        found.idle_clients = count
        found.relay_idle_bytes = (last[0] - first[0]) / max(count - settled, 1)
        found.agent_idle_bytes = (last[1] - first[1]) / max(count - settled, 1)


def _cpu_seconds(child: Child | None) -> float | None:
    return None if child is None else child.cpu_seconds


def _used(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _as_json(figures: Figures) -> dict[str, float | None]:
    return {name: getattr(figures, name) for name in Figures.__dataclass_fields__}
