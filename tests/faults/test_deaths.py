"""F10, F12 and F32: a process is killed, or falls silent and wakes up.

A session survives neither the relay's death nor the agent's, and nobody promises that; what is asked is
that everybody is told, comes back, and that nothing stays behind. A process that was only stopped for a
while has lost nothing.
"""

from __future__ import annotations

import dataclasses
import time

import pytest

from tests.faults.figures import Stopwatch, report
from tests.faults.stage import Stage, frozen
from tests.processes import until

CLIENTS = 20


def check_all_came_back(scenario: str, stage: Stage, **figures: object) -> None:
    """Each client was told once, has come back, and has lost nothing since."""
    stage.load.settle()
    toll = stage.load.toll()
    report(scenario, **dataclasses.asdict(toll), **figures, **stage.figures())
    fates = toll.fates
    assert fates.pop("clients_disconnected") == CLIENTS
    assert not any(fates.values()), toll
    until("the old connections have gone", lambda: stage.load.local_count == CLIENTS)


@pytest.mark.slow
def test_everybody_comes_back_to_a_relay_that_was_killed() -> None:
    """F10."""
    away_seconds = 3
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        stage.relay.kill()
        until("all clients were told", lambda: stage.load.connected_count == 0)
        time.sleep(away_seconds)
        stage.replace_relay()
        watch = Stopwatch()
        stage.agent.when_connected()
        attach = watch.seconds
        restore = attach + stage.when_messages_pass()
        check_all_came_back(
            f"F10 relay killed, away for {away_seconds} s",
            stage,
            attach_s=attach,
            restore_s=restore,
            dials=len(stage.cutter.dials),
        )


@pytest.mark.slow
def test_a_new_agent_takes_the_room_of_one_that_was_killed() -> None:
    """F12: whoever has the same key need not wait until the relay has given the old one up."""
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        stage.agent.kill()
        watch = Stopwatch()
        stage.replace_agent()
        stage.agent.when_connected()
        attach = watch.seconds
        restore = attach + stage.when_messages_pass()
        check_all_came_back("F12 agent killed", stage, attach_s=attach, restore_s=restore)


@pytest.mark.slow
def test_clients_of_an_agent_that_was_killed_are_told_and_its_room_is_free() -> None:
    """F12: nobody waits for it longer than a session is kept."""
    options = ("--resume-seconds", "2", "--room-grace-seconds", "1")
    with Stage(clients=CLIENTS, relay_options=options) as stage:
        stage.let_clients_in()
        stage.agent.kill()
        watch = Stopwatch()
        until("all clients were told", lambda: stage.load.connected_count == 0)
        told = watch.seconds
        stage.replace_agent()
        restore = stage.when_messages_pass()
        check_all_came_back("F12 agent killed, not replaced", stage, told_s=told, restore_s=restore)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["relay", "agent"])
def test_a_process_that_stands_still_for_a_while_loses_nobody(who: str) -> None:
    """F32: as a blocked reactor does. Whoever takes that for death may dial once, not again and again."""
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        dials = len(stage.cutter.dials)
        with frozen(getattr(stage, who)):
            time.sleep(3)
        restore = stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        dials = len(stage.cutter.dials) - dials
        report(
            f"F32 {who} stalled",
            restore_s=restore,
            dials=dials,
            **dataclasses.asdict(toll),
            **stage.figures(),
        )
        assert not any(toll.fates.values()), toll
        assert dials <= 1, "somebody was taken for dead again and again"


@pytest.mark.slow
def test_an_agent_that_was_stopped_goes_on_where_it_was() -> None:
    """F12: longer than the relay takes to notice, shorter than it keeps the session."""
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        with frozen(stage.agent):
            time.sleep(14)
        restore = stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        report("F12 agent stopped", restore_s=restore, **dataclasses.asdict(toll), **stage.figures())
        assert not any(toll.fates.values()), toll


@pytest.mark.slow
def test_a_relay_that_was_stopped_goes_on_where_it_was() -> None:
    """F11: no time has passed for it, and its agent waits a little longer than the relay would."""
    seconds = 15
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        with frozen(stage.relay):
            time.sleep(seconds)
        restore = stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        dials = len(stage.cutter.dials)
        report(
            f"F11 relay stopped for {seconds} s",
            restore_s=restore,
            dials=dials,
            **dataclasses.asdict(toll),
            **stage.figures(),
        )
        assert not any(toll.fates.values()), toll


@pytest.mark.slow
def test_clients_are_told_by_a_relay_that_was_stopped_for_longer_than_its_agent_waits() -> None:
    """F11: the agent has given its session up by then, and its dials lie in the relay's backlog."""
    seconds = 65  # to notice, then the resume window of 45 s and the margin of the agent
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        with frozen(stage.relay):
            time.sleep(seconds)
        watch = Stopwatch()
        until("all clients were told", lambda: stage.load.toll().clients_disconnected == CLIENTS)
        told = watch.seconds
        stage.agent.when_connected()
        restore = told + stage.when_messages_pass()
        check_all_came_back(
            f"F11 relay stopped for {seconds} s",
            stage,
            told_s=told,
            restore_s=restore,
            dials=len(stage.cutter.dials),
        )
