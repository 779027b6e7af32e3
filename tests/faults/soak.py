"""A random fault every few seconds, for a given time; by command for twenty minutes.

    python -m tests.faults.soak --seconds 1200 --seed 7

A seed selects the faults of the other scenarios. Most must not disconnect any client; those in ``COSTLY``
may. In every case no message is lost, duplicated or out of order *within* a connection, all clients are
connected again after each fault, and relay and agent use no more memory at the end than at the beginning.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.faults.cutter import Direction
from tests.faults.figures import Stopwatch, report, share
from tests.faults.stage import Stage, frozen

__all__ = ["soak"]

CLIENTS = 30
PAUSE_SECONDS = (3.0, 8.0)
MIB = 1024 * 1024

GROWTH_BYTES = 16 * MIB
"""Allowed growth of a process from its first quarter to its end. A leak of a stream or a buffer per fault
exceeds it in twenty minutes, but not in one.
"""


def reset(stage: Stage, dice: random.Random) -> None:
    stage.cutter.reset()


def swallow(stage: Stage, dice: random.Random) -> None:
    stage.cutter.swallow()
    time.sleep(dice.choice([0.5, 2, 5, 12]))
    stage.cutter.heal()


def swallow_one_way(stage: Stage, dice: random.Random) -> None:
    stage.cutter.swallow(dice.choice(list(Direction)))
    time.sleep(dice.choice([2, 12]))
    stage.cutter.heal()


def strand(stage: Stage, dice: random.Random) -> None:
    stage.cutter.strand()
    time.sleep(12)
    stage.cutter.heal()


def cut_in_mid_frame(stage: Stage, dice: random.Random) -> None:
    """Cut the next carrier early: in its handshake, or during replay."""
    stage.cutter.cut_at(dice.choice(list(Direction)), dice.randrange(1, 4000))
    stage.cutter.reset()


def stall(stage: Stage, dice: random.Random) -> None:
    with frozen(dice.choice([stage.relay, stage.agent])):
        time.sleep(dice.choice([1, 3]))


def stop_agent(stage: Stage, dice: random.Random) -> None:
    with frozen(stage.agent):
        time.sleep(12)


def slow_down(stage: Stage, dice: random.Random) -> None:
    stage.cutter.delay_seconds = 0.2
    time.sleep(3)
    stage.cutter.delay_seconds = 0.0


def kill_agent(stage: Stage, dice: random.Random) -> None:
    stage.agent.kill()
    stage.replace_agent()


def kill_relay(stage: Stage, dice: random.Random) -> None:
    stage.relay.kill()
    stage.replace_relay()


def drop_clients(stage: Stage, dice: random.Random) -> None:
    which = dice.randrange(3)
    stage.load.drop_at_server(lambda number: number % 3 == which)


UNNOTICED: tuple[Callable[[Stage, random.Random], None], ...] = (
    reset,
    swallow,
    swallow_one_way,
    strand,
    cut_in_mid_frame,
    stall,
    stop_agent,
    slow_down,
)
COSTLY: tuple[Callable[[Stage, random.Random], None], ...] = (kill_agent, kill_relay, drop_clients)
COSTLY_SHARE = 0.2


def soak(seconds: float, seed: int) -> None:
    """Run it; raise AssertionError on damage."""
    dice = random.Random(seed)
    faults: list[str] = []
    restores: list[float] = []
    memory: dict[int, list[tuple[float, int]]] = {}
    watch = Stopwatch()
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        while watch.seconds < seconds:
            is_costly = dice.random() < COSTLY_SHARE
            fault = dice.choice(COSTLY if is_costly else UNNOTICED)
            lost = stage.load.toll().clients_disconnected
            faults.append(fault.__name__)
            fault(stage, dice)
            restores.append(stage.when_messages_pass())
            toll = stage.load.toll()
            fates = toll.fates
            cost = fates.pop("clients_disconnected") - lost
            assert not any(fates.values()), (faults, toll)
            assert is_costly or cost == 0, (
                f"{cost} clients lost their connection by {fault.__name__}: {faults}"
            )
            for process in (stage.relay, stage.agent):
                memory.setdefault(process.pid, []).append((watch.seconds, process.resident_bytes()))
            time.sleep(dice.uniform(*PAUSE_SECONDS))
        stage.load.settle(deadline_seconds=30)
        toll = stage.load.toll()
        figures = stage.figures()
    slopes = [slope_of(one) for one in memory.values()]
    report(
        "F30 soak",
        seed=seed,
        seconds=watch.seconds,
        faults=dict(Counter(faults)),
        restore_p50_s=share(restores, 50),
        restore_p99_s=share(restores, 99),
        rss_slope_mib_per_hour=slopes,
        **dataclasses.asdict(toll),
        **figures,
    )
    for readings in memory.values():
        quarter = readings[len(readings) // 4][1]
        assert readings[-1][1] - quarter < GROWTH_BYTES, f"grown: {readings}"


def slope_of(readings: list[tuple[float, int]]) -> float | None:
    """Return MiB per hour from the first quarter on; None for a process that has not run for a minute
    since then.
    """
    later = readings[len(readings) // 4 :]
    seconds = later[-1][0] - later[0][0]
    return (later[-1][1] - later[0][1]) / MIB / seconds * 3600 if seconds >= 60 else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    soak(options.seconds, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
