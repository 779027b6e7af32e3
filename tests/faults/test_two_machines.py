"""Carrier faults between two machines whose line loses packets, so that both kernels retransmit and time out.

The relay and its clients are on one machine, the agent and the local server on the other. Each machine is a
network namespace, so these tests need root. ``test_carrier.py`` has the same faults without packet loss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import pytest

from tests.faults.conversations import Numbered
from tests.faults.figures import Stopwatch, report
from tests.faults.loops import Loop
from tests.faults.namespaces import RELAY_ADDRESS, Machines, Namespace, two_machines
from tests.faults.stage import ROOM, Stage, frozen
from tests.processes import AgentProcess, Process, RelayProcess, environment, twistd, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

NEXT_ADDRESS = "192.0.2.77"

RESUME_SECONDS = "3"
TOO_LONG_SECONDS = 20
"""At most 10 s until both sides notice, ``RESUME_SECONDS`` during which the session is kept, and a margin."""

CLIENTS = 20


class RelayThere(RelayProcess):
    """A relay process in a network namespace."""

    def __init__(self, place: Namespace, *options: str) -> None:
        listen = ("--listen", f"tcp:0:interface={place.address}", "--listen", "tcp:0:interface=127.0.0.1")
        argv = place.argv(twistd("seance-relay", *listen, "--open", *options))
        Process.__init__(self, argv, name="relay", env=environment())
        self.port = int(self.when_line(r"starting on port (\d+)")[1])


class AgentThere(AgentProcess):
    """An agent process in a network namespace."""

    def __init__(self, place: Namespace, *options: str) -> None:
        self.room = ROOM
        argv = place.argv(twistd("seance-agent", "--room", ROOM, *options))
        Process.__init__(self, argv, name="agent", env=environment())


class FarStage(Stage):
    """A stage on two machines. It has no proxy: tests break ``line``, or change the agent's address."""

    def __init__(self, machines: Machines, *, clients: int = CLIENTS, **options: object) -> None:
        super().__init__(clients=clients, **options)  # type: ignore[arg-type]
        self.machines = machines
        self.line = machines.line

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        here = stack.enter_context(Loop(self.machines.relay.enter))
        there = stack.enter_context(Loop(self.machines.home.enter))
        self.relay = RelayThere(self.machines.relay, *self._relay_options)
        self.load = stack.enter_context(
            Numbered(here, server_loop=there, count=self._clients, every_seconds=self._every_seconds)
        )

    @property
    def relay_address(self) -> tuple[str, int]:
        return RELAY_ADDRESS, self.relay.port

    @property
    def agent_dials(self) -> str:
        return f"ws://{RELAY_ADDRESS}:{self.relay.port}"

    def new_agent(self, *options: str) -> AgentProcess:
        base = ("--relay", self.agent_dials, "--local", f"127.0.0.1:{self.load.port}")
        return AgentThere(self.machines.home, *base, *self._agent_options, *options)

    def check_all_reconnected(self, scenario: str, **figures: object) -> None:
        """Check that each client was disconnected once, is connected again, and has lost nothing since."""
        until("the old connections have gone", lambda: self.load.local_count == CLIENTS)
        self.load.settle()
        toll = self.load.toll()
        report(scenario, **dataclasses.asdict(toll), **figures, **self.figures())
        fates = toll.fates
        assert fates.pop("clients_disconnected") == CLIENTS
        assert not any(fates.values()), toll

    def check_unaffected(self, scenario: str, **figures: object) -> None:
        """Check that every message sent has arrived and that no client was disconnected."""
        self.load.settle()
        toll = self.load.toll()
        report(scenario, **dataclasses.asdict(toll), lost_packets=self.line.lost, **figures, **self.figures())
        assert not any(toll.fates.values()), toll


class FarClients(FarStage):
    """The clients are on one machine; the agent, the relay and the local server are on the other."""

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        here = stack.enter_context(Loop(self.machines.home.enter))
        there = stack.enter_context(Loop(self.machines.relay.enter))
        self.relay = RelayThere(self.machines.relay, *self._relay_options)
        self.load = stack.enter_context(
            Numbered(here, server_loop=there, count=self._clients, every_seconds=self._every_seconds)
        )

    def new_agent(self, *options: str) -> AgentProcess:
        base = ("--relay", self.agent_dials, "--local", f"127.0.0.1:{self.load.port}")
        return AgentThere(self.machines.relay, *base, *self._agent_options, *options)


@pytest.fixture
def stage() -> Iterator[FarStage]:
    with two_machines() as machines, FarStage(machines) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        yield stage


@pytest.fixture
def short_stage() -> Iterator[FarStage]:
    """A stage whose relay keeps a lost session for ``RESUME_SECONDS`` only."""
    options = ("--resume-seconds", RESUME_SECONDS)
    with two_machines() as machines, FarStage(machines, relay_options=options) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        yield stage


@pytest.mark.parametrize(("direction", "seconds"), [("both", 25), ("up", 8), ("down", 8)])
def test_a_silent_line_disconnects_no_client(direction: str, seconds: int) -> None:
    """Neither end gets an error. The old carrier's kernel retransmits late: after 12.6 s and after 25.4 s."""
    with two_machines() as machines, FarStage(machines, clients=50) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        stage.line.cuts_up, stage.line.cuts_down = direction != "down", direction != "up"
        time.sleep(seconds)
        stage.line.heal()
        restore = stage.when_messages_pass()
        time.sleep(3)  # for retransmissions of the old carrier
        stage.check_unaffected(f"F2 line silent for {seconds} s, {direction}", restore_s=restore)


def test_a_silent_line_between_clients_and_relay_disconnects_no_client() -> None:
    """As with plain TCP, messages pass when the kernels retransmit: here 25 s after they were sent."""
    seconds = 25
    with two_machines() as machines, FarClients(machines) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        stage.line.cut()
        time.sleep(seconds)
        stage.line.heal()
        restore = stage.when_messages_pass(deadline_seconds=40)
        stage.check_unaffected(f"F2 line to the clients silent for {seconds} s", restore_s=restore)


def test_packet_loss_of_5_percent_loses_no_message(stage: FarStage) -> None:
    stage.line.loss = 0.05
    time.sleep(5)
    stage.line.heal()
    restore = stage.when_messages_pass()
    stage.check_unaffected("F5 5 % loss", restore_s=restore)


def test_an_agent_that_wakes_up_with_another_address_resumes(stage: FarStage) -> None:
    """A laptop that is shut, carried to another network and opened."""
    with frozen(stage.agent):
        time.sleep(12)
        stage.machines.home.move_to(NEXT_ADDRESS)
    watch = Stopwatch()
    stage.when_messages_pass()
    stage.check_unaffected("F33 slept and moved", restore_s=watch.seconds)


def test_an_agent_whose_address_changes_while_it_runs_resumes(stage: FarStage) -> None:
    """The old carrier is neither closed nor answered."""
    watch = Stopwatch()
    stage.machines.home.move_to(NEXT_ADDRESS)
    until("messages pass", lambda: stage.when_messages_pass() > 0, deadline_seconds=40)
    stage.check_unaffected("F33 moved", restore_s=watch.seconds)


def test_a_silence_longer_than_the_resume_window_disconnects_all_and_all_return(
    short_stage: FarStage,
) -> None:
    """Every client is disconnected during the silence and waits outside."""
    stage = short_stage
    stage.line.cut()
    time.sleep(TOO_LONG_SECONDS)
    assert stage.load.connected_count == 0, "a client was not disconnected"
    stage.line.heal()
    watch = Stopwatch()
    stage.agent.when_connected()
    attach = watch.seconds
    restore = attach + stage.when_messages_pass()
    stage.check_all_reconnected(f"F2 line cut for {TOO_LONG_SECONDS} s", attach_s=attach, restore_s=restore)


def test_an_agent_that_sleeps_longer_than_the_resume_window_serves_all_again(short_stage: FarStage) -> None:
    """A laptop that is shut over night and opened in another network."""
    stage = short_stage
    with frozen(stage.agent):
        time.sleep(TOO_LONG_SECONDS)
        assert stage.load.connected_count == 0, "a client was not disconnected"
        stage.machines.home.move_to(NEXT_ADDRESS)
    restore = stage.when_messages_pass()
    stage.check_all_reconnected(f"F33 slept for {TOO_LONG_SECONDS} s and moved", restore_s=restore)
