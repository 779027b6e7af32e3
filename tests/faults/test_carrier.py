"""Carrier faults made by a proxy: resets, silence in one or both directions, and a late return of the old
carrier.

The proxy's sockets stay open, so the kernel reports nothing: relay and agent have to notice by themselves.
``test_two_machines.py`` has the same with packets that are lost below TCP.
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
"""Ten for an idle carrier, and two for a busy machine."""


def check(scenario: str, stage: Stage, **figures: object) -> None:
    """Check that all messages arrived once and in order, and that no client was disconnected."""
    stage.load.settle()
    toll = stage.load.toll()
    report(
        scenario, carriers=stage.cutter.pair_count, **dataclasses.asdict(toll), **figures, **stage.figures()
    )
    assert not any(toll.fates.values()), toll
    until("there is one carrier", lambda: stage.cutter.pair_count == 1)


@pytest.mark.parametrize("stage_type", [Stage, SecureStage], ids=["ws", "wss"])
def test_carrier_resets_disconnect_no_client(stage_type: type[Stage]) -> None:
    with stage_type() as stage:
        stage.let_clients_in()
        restores = []
        for _ in range(3):
            assert stage.cutter.reset() == 1
            restores.append(stage.when_messages_pass())
            time.sleep(2)
        check("F1 resets", stage, restore_s=restores)
        assert stage.agent.output.count("Resumed") == 3


def test_silence_in_both_directions_disconnects_no_client() -> None:
    """With TLS; ``test_two_machines.py`` has it without."""
    seconds = 15
    with SecureStage() as stage:
        stage.let_clients_in()
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.swallow()
        time.sleep(seconds)
        stage.cutter.heal()
        restore = stage.when_messages_pass()
        noticed = [at - began for at in stage.cutter.dials[dials:] if at - began <= DETECTION_SECONDS]
        check(f"F2 silence of {seconds} s", stage, detect_s=noticed[:1], restore_s=restore)
        assert noticed, f"the agent has not dialled within {DETECTION_SECONDS} s"


@pytest.mark.parametrize("direction", Direction)
def test_silence_in_one_direction_disconnects_no_client(direction: Direction) -> None:
    """The side that still receives notices by its own unacknowledged bytes, or by the other side's close."""
    with Stage() as stage:
        stage.let_clients_in()
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.swallow(direction)
        until("the agent has dialled", lambda: len(stage.cutter.dials) > dials, deadline_seconds=20)
        detect = time.monotonic() - began
        stage.cutter.heal()
        restore = stage.when_messages_pass()
        check(f"F3 silence {direction.value}", stage, detect_s=detect, restore_s=restore)


def test_the_agent_notices_a_dead_idle_carrier() -> None:
    """No client is connected, so only heartbeats are in flight."""
    with Stage(clients=0) as stage:
        time.sleep(4)  # until the exchange after the handshake is over
        dials, began = len(stage.cutter.dials), time.monotonic()
        stage.cutter.swallow()
        until("the agent has noticed", lambda: len(stage.cutter.dials) > dials, deadline_seconds=20)
        report("F2 idle", detect_s=time.monotonic() - began)
        stage.cutter.heal()
        stage.agent.when_line("Resumed|Connected to relay")
        until("there is one carrier", lambda: stage.cutter.pair_count == 1)


def test_late_bytes_of_an_old_carrier_are_dropped() -> None:
    """The old carrier passes bytes again when the new one has been up for a while."""
    with Stage() as stage:
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


def test_an_expired_session_disconnects_each_client_once_and_a_new_one_serves_all() -> None:
    clients = 20
    short = ("--resume-seconds", "3")
    with Stage(clients=clients, relay_options=short) as stage:
        stage.let_clients_in()
        stage.cutter.swallow()
        until("all clients were disconnected", lambda: stage.load.connected_count == 0, deadline_seconds=25)
        stage.cutter.heal()
        restore = stage.when_messages_pass()
        until("the old connections have gone", lambda: stage.load.local_count == clients)
        stage.load.settle()
        toll = stage.load.toll()
        report("F2 expired", restore_s=restore, **dataclasses.asdict(toll), **stage.figures())
        fates = toll.fates
        assert fates.pop("clients_disconnected") == clients
        assert not any(fates.values()), toll
