"""F1 to F4 through the cutting proxy: resets, silence both ways, one way, and a carrier that comes back late.

The proxy's sockets stay open, so nobody is told by the kernel: what notices is the programs themselves.
``test_two_machines.py`` has the same with packets that are lost under TCP.
"""

from __future__ import annotations

import dataclasses
import time

import pytest

from tests.faults.cutter import Direction
from tests.faults.figures import report
from tests.faults.stage import SecureStage, Stage
from tests.processes import until

pytestmark = pytest.mark.slow

DETECTION_SECONDS = 12.0
"""Ten for a carrier that is idle, and two for a machine that is busy."""


def check(scenario: str, stage: Stage, **figures: object) -> None:
    """Everything that was sent has arrived, once, in order, over one carrier, and nobody was thrown out."""
    stage.load.settle()
    toll = stage.load.toll()
    report(
        scenario, carriers=stage.cutter.pair_count, **dataclasses.asdict(toll), **figures, **stage.figures()
    )
    assert not any(toll.fates.values()), toll
    until("there is one carrier", lambda: stage.cutter.pair_count == 1)


either_way = pytest.mark.parametrize("made", [Stage, SecureStage], ids=["ws", "wss"])


@either_way
def test_resets_are_a_pause(made: type[Stage]) -> None:
    with made() as stage:
        stage.let_clients_in()
        restores = []
        for _ in range(3):
            assert stage.cutter.reset() == 1
            restores.append(stage.when_messages_pass())
            time.sleep(2)
        check("F1 resets", stage, restore_s=restores)
        assert stage.agent.output.count("Resumed") == 3


@either_way
@pytest.mark.parametrize("seconds", [15])
def test_silence_both_ways_is_a_pause(seconds: int, made: type[Stage]) -> None:
    with made() as stage:
        stage.let_clients_in()
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.swallow()
        time.sleep(seconds)
        stage.cutter.heal()
        restore = stage.when_messages_pass()
        noticed = [at - began for at in stage.cutter.dials[dials:]]
        check(f"F2 silence of {seconds} s", stage, detect_s=noticed[:1], restore_s=restore)
        assert seconds < DETECTION_SECONDS or noticed, "nobody has noticed"


@pytest.mark.parametrize("direction", Direction)
def test_silence_in_one_direction_is_a_pause(direction: Direction) -> None:
    """Whoever still hears something is told by the other side, or learns it from its own unanswered bytes."""
    with Stage() as stage:
        stage.let_clients_in()
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.swallow(direction)
        until("somebody has noticed", lambda: len(stage.cutter.dials) > dials, deadline_seconds=20)
        detect = time.monotonic() - began
        stage.cutter.heal()
        restore = stage.when_messages_pass()
        check(f"F3 silence {direction.value}", stage, detect_s=detect, restore_s=restore)


def test_an_idle_carrier_that_is_dead_is_noticed() -> None:
    """No client, so nothing but the sign of life itself is in flight."""
    with Stage(clients=0) as stage:
        time.sleep(4)  # until nothing is said any more that belongs to the beginning
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.swallow()
        until("the agent has noticed", lambda: len(stage.cutter.dials) > dials, deadline_seconds=20)
        report("F2 idle", detect_s=time.monotonic() - began)
        stage.cutter.heal()
        stage.agent.when_line("Resumed|Connected to relay")
        until("there is one carrier", lambda: stage.cutter.pair_count == 1)


@either_way
def test_what_an_old_carrier_brings_late_is_dropped(made: type[Stage]) -> None:
    """F4: the old one comes back to life when the new one has been up for a while."""
    with made() as stage:
        stage.let_clients_in()
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.strand()
        until("the agent has dialled", lambda: len(stage.cutter.dials) > dials, deadline_seconds=20)
        detect = time.monotonic() - began
        restore = stage.when_messages_pass()
        time.sleep(1)
        stage.cutter.heal()
        time.sleep(1)
        stage.when_messages_pass()
        check("F4 healed late", stage, detect_s=detect, restore_s=restore)


def test_a_session_whose_time_is_over_ends_cleanly_and_a_new_one_serves_all() -> None:
    """F2, longer than a session is kept: every client is told once, and finds its way back."""
    clients = 20
    short = ("--resume-seconds", "3")
    with Stage(clients=clients, relay_options=short) as stage:
        stage.let_clients_in()
        stage.cutter.swallow()
        until("all clients were told", lambda: stage.load.connected_count == 0, deadline_seconds=25)
        stage.cutter.heal()
        restore = stage.when_messages_pass()
        until("the old connections have gone", lambda: stage.load.local_count == clients)
        stage.load.settle()
        toll = stage.load.toll()
        report("F2 expired", restore_s=restore, **dataclasses.asdict(toll), **stage.figures())
        fates = toll.fates
        assert fates.pop("clients_disconnected") == clients
        assert not any(fates.values()), toll
