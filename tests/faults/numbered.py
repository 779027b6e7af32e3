"""Many clients through a carrier that is reset again and again and then goes silent: nobody notices.

    python -m tests.faults.numbered --clients 1000

puts a thousand clients through a real relay and a real agent, resets the carrier between the two six times,
swallows everything for nine seconds, and ends with a line of figures; the status is 1 if any client lost its
connection or any message was lost, doubled or out of order. ``tests/faults/test_numbered.py`` does the same
with a hundred. A second at most passes between two messages of a client, each way.
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
"""Three attachments in ten seconds are what rule 11 lets one session have."""


def endure(*, clients: int, resets: int, swallow_seconds: float, every_seconds: float) -> Toll:
    """Runs the scenario; fails if clients do not get through at all. The toll is the caller's to judge."""
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
    """Lets this process and those it starts hold as many sockets as so many clients take."""
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
