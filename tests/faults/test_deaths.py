"""Relay or agent is killed, or is stopped with SIGSTOP and continues.

A session survives neither the death of the relay nor that of the agent. The tests require that every client
is disconnected, connects again, and nothing stays behind. A process that was only stopped for a while loses
nothing.
"""

from __future__ import annotations

import dataclasses
import time

import pytest

from tests.faults.figures import Stopwatch, report
from tests.faults.stage import Stage, frozen
from tests.processes import until

pytestmark = pytest.mark.slow

CLIENTS = 20


def check_all_reconnected(scenario: str, stage: Stage, **figures: object) -> None:
    """Check that each client was disconnected once, is connected again, and has lost nothing since."""
    stage.load.settle()
    toll = stage.load.toll()
    report(scenario, **dataclasses.asdict(toll), **figures, **stage.figures())
    fates = toll.fates
    assert fates.pop("clients_disconnected") == CLIENTS
    assert not any(fates.values()), toll
    until("the old connections have gone", lambda: stage.load.local_count == CLIENTS)


def test_all_clients_return_to_a_relay_that_was_killed_and_restarted() -> None:
    down_seconds = 3
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        stage.relay.kill()
        until("all clients were disconnected", lambda: stage.load.connected_count == 0)
        time.sleep(down_seconds)
        stage.replace_relay()
        watch = Stopwatch()
        stage.agent.when_connected()
        attach = watch.seconds
        restore = attach + stage.when_messages_pass()
        check_all_reconnected(
            f"F10 relay killed, down for {down_seconds} s",
            stage,
            attach_s=attach,
            restore_s=restore,
            dials=len(stage.cutter.dials),
        )


def test_a_new_agent_takes_the_room_of_a_killed_one_immediately() -> None:
    """An agent with the same key does not wait until the relay has dropped the old session."""
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        stage.agent.kill()
        watch = Stopwatch()
        stage.replace_agent()
        stage.agent.when_connected()
        attach = watch.seconds
        restore = attach + stage.when_messages_pass()
        check_all_reconnected("F12 agent killed", stage, attach_s=attach, restore_s=restore)


def test_clients_of_a_killed_agent_are_disconnected_after_the_resume_window() -> None:
    """No client waits for it longer than a session is kept, and its room is free then."""
    options = ("--resume-seconds", "2", "--room-grace-seconds", "1")
    with Stage(clients=CLIENTS, relay_options=options) as stage:
        stage.let_clients_in()
        stage.agent.kill()
        watch = Stopwatch()
        until("all clients were disconnected", lambda: stage.load.connected_count == 0)
        disconnected = watch.seconds
        stage.replace_agent()
        restore = stage.when_messages_pass()
        check_all_reconnected(
            "F12 agent killed, not replaced", stage, disconnected_s=disconnected, restore_s=restore
        )


def check_pause(name: str, seconds: float, *, max_dials: int | None = None) -> None:
    """Stop the relay or the agent for some seconds; no client may be disconnected and no message lost."""
    with Stage(clients=CLIENTS) as stage:
        stage.let_clients_in()
        dials = len(stage.cutter.dials)
        with frozen(getattr(stage, name)):
            time.sleep(seconds)
        restore = stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        dials = len(stage.cutter.dials) - dials
        report(
            f"F32 {name} stopped for {seconds} s",
            restore_s=restore,
            dials=dials,
            **dataclasses.asdict(toll),
            **stage.figures(),
        )
        assert not any(toll.fates.values()), toll
        assert max_dials is None or dials <= max_dials, "the agent dialled again and again"


@pytest.mark.parametrize("name", ["relay", "agent"])
def test_a_process_that_is_blocked_for_3_s_disconnects_no_client(name: str) -> None:
    """As a blocked reactor. The agent may dial once, if it takes the relay for dead, but not repeatedly."""
    check_pause(name, 3, max_dials=1)


@pytest.mark.parametrize(("name", "seconds"), [("relay", 15), ("agent", 14)])
def test_a_process_that_is_stopped_for_longer_than_detection_resumes(name: str, seconds: float) -> None:
    """Longer than the other side needs to notice, shorter than the session is kept."""
    check_pause(name, seconds)


def test_clients_of_a_relay_that_is_stopped_longer_than_the_resume_window_are_disconnected() -> None:
    """The agent has given the session up by then, and its dials are in the relay's backlog."""
    seconds = 22  # 10 to notice, the resume window of 3, 5 that the agent waits beyond it, and a margin
    with Stage(clients=CLIENTS, relay_options=("--resume-seconds", "3")) as stage:
        stage.let_clients_in()
        with frozen(stage.relay):
            time.sleep(seconds)
        watch = Stopwatch()
        until("all clients were disconnected", lambda: stage.load.toll().clients_disconnected == CLIENTS)
        disconnected = watch.seconds
        stage.agent.when_connected()
        restore = disconnected + stage.when_messages_pass()
        check_all_reconnected(
            f"F11 relay stopped for {seconds} s",
            stage,
            disconnected_s=disconnected,
            restore_s=restore,
            dials=len(stage.cutter.dials),
        )
