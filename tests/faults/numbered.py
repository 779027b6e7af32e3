"""Many clients over a carrier that is reset repeatedly and then silent; no client is disconnected.

    python -m tests.faults.numbered --clients 1000

connects a thousand clients through a real relay and a real agent, resets the carrier six times, makes it
silent for nine seconds, and prints a line of figures. The status is 1 if any client was disconnected or any
message was lost, duplicated or out of order. ``tests/faults/test_numbered.py`` uses a hundred clients. Each
client sends and receives at least one message per second.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import sys
import time

from tests.faults.conversations import Toll
from tests.faults.figures import Stopwatch, report, share
from tests.faults.stage import Stage

__all__ = ["RESET_EVERY_SECONDS", "endure", "raise_descriptor_limit"]

RESET_EVERY_SECONDS = 3.5
"""A session may be attached three times in ten seconds."""


def endure(*, clients: int, resets: int, swallow_seconds: float, every_seconds: float) -> Toll:
    """Run the scenario and return the damage; fail if clients cannot connect at all."""
    scenario = f"numbered, {clients} clients"
    restores: list[float] = []
    with Stage(clients=clients, every_seconds=every_seconds) as stage:
        stage.let_clients_in(deadline_seconds=120)
        cpu = os.times()
        watch = Stopwatch()
        for number in range(resets):
            time.sleep(max(0.0, number * RESET_EVERY_SECONDS - watch.seconds))
            assert stage.cutter.reset() == 1
            restores.append(stage.when_messages_pass())
        detect = restore = 0.0
        if swallow_seconds:
            dials, began = len(stage.cutter.dials), time.monotonic()
            stage.cutter.swallow()
            time.sleep(swallow_seconds)
            stage.cutter.heal()
            restore = stage.when_messages_pass()
            noticed = stage.cutter.dials[dials:]
            detect = noticed[0] - began if noticed else 0.0
        during = stage.figures()
        stage.load.settle(deadline_seconds=60)
        toll = stage.load.toll()
        spent = os.times().user - cpu.user
    report(
        scenario,
        resets=resets,
        swallow_s=swallow_seconds,
        detect_s=detect,
        restore_s=restore,
        restore_after_reset_max_s=share(restores, 100),
        refusals=len(stage.load.refusals),
        test_cpu_s=spent,
        **dataclasses.asdict(toll),
        **during,
    )
    return toll


def raise_descriptor_limit(clients: int) -> None:
    """Raise the descriptor limit of this process and its children for this number of clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * clients + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.numbered")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--resets", type=int, default=6)
    parser.add_argument("--swallow-seconds", type=float, default=9.0)
    parser.add_argument("--every-seconds", type=float, default=1.0)
    options = parser.parse_args()
    raise_descriptor_limit(options.clients)
    toll = endure(
        clients=options.clients,
        resets=options.resets,
        swallow_seconds=options.swallow_seconds,
        every_seconds=options.every_seconds,
    )
    return 1 if any(toll.fates.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
