"""F1 to F4 and F33 between two machines with a line that loses packets: the kernels' part in it.

The relay and its clients are on one machine, the agent and the local server on the other; each is a
network namespace, so this needs root. ``test_carrier.py`` has the same without.
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

TOO_LONG_SECONDS = 70
"""Ten until both sides have noticed, 45 that a session is kept, and some."""

CLIENTS = 20


class RelayThere(RelayProcess):
    """A relay on another machine."""

    def __init__(self, place: Namespace, *options: str) -> None:
        listen = ("--listen", f"tcp:0:interface={place.address}", "--listen", "tcp:0:interface=127.0.0.1")
        argv = place.argv(twistd("seance-relay", *listen, "--open", *options))
        Process.__init__(self, argv, name="relay", env=environment())
        self.port = int(self.when_line(r"starting on port (\d+)")[1])


class AgentThere(AgentProcess):
    """An agent on another machine."""

    def __init__(self, place: Namespace, *options: str) -> None:
        self.room = ROOM
        argv = place.argv(twistd("seance-agent", "--room", ROOM, *options))
        Process.__init__(self, argv, name="agent", env=environment())


class FarStage(Stage):
    """A stage on two machines. There is no proxy: what is broken is ``line``, or the agent's address."""

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
        told = ("--relay", self.agent_dials, "--local", f"127.0.0.1:{self.load.port}")
        return AgentThere(self.machines.home, *told, *self._agent_options, *options)

    def everybody_came_back(self, scenario: str, **figures: object) -> None:
        """Each client was told once, has come back, and has lost nothing since."""
        until("the old connections have gone", lambda: self.load.local_count == CLIENTS)
        self.load.settle()
        toll = self.load.toll()
        report(scenario, **dataclasses.asdict(toll), **figures, **self.figures())
        fates = toll.fates
        assert fates.pop("clients_disconnected") == CLIENTS
        assert not any(fates.values()), toll

    def nobody_noticed(self, scenario: str, **figures: object) -> None:
        """Everything has arrived that was sent, and every connection is still there."""
        self.load.settle()
        toll = self.load.toll()
        report(scenario, **dataclasses.asdict(toll), lost_packets=self.line.lost, **figures, **self.figures())
        assert not any(toll.fates.values()), toll


class FarClients(FarStage):
    """The clients are on the other machine; agent, relay and local server are on one."""

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        here = stack.enter_context(Loop(self.machines.home.enter))
        there = stack.enter_context(Loop(self.machines.relay.enter))
        self.relay = RelayThere(self.machines.relay, *self._relay_options)
        self.load = stack.enter_context(
            Numbered(here, server_loop=there, count=self._clients, every_seconds=self._every_seconds)
        )

    def new_agent(self, *options: str) -> AgentProcess:
        told = ("--relay", self.agent_dials, "--local", f"127.0.0.1:{self.load.port}")
        return AgentThere(self.machines.relay, *told, *self._agent_options, *options)


@pytest.fixture
def stage() -> Iterator[FarStage]:
    with two_machines() as machines, FarStage(machines) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        yield stage


def test_a_line_that_is_cut_for_a_while_is_a_pause(stage: FarStage) -> None:
    """F2: longer than both sides take to notice, and new connections meet the same silence."""
    stage.line.cut()
    time.sleep(15)
    stage.line.heal()
    restore = stage.when_messages_pass()
    stage.nobody_noticed("F2 line cut for 15 s", restore_s=restore)


@pytest.mark.parametrize("seconds", [25, 30])
@pytest.mark.parametrize("direction", ["both", "up", "down"])
def test_a_line_that_swallows_everything_for_long_costs_no_client(direction: str, seconds: int) -> None:
    """F2: neither end is told, and the old carrier's kernel repeats ever more seldom."""
    with two_machines() as machines, FarStage(machines, clients=50) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        stage.line.cuts_up, stage.line.cuts_down = direction != "down", direction != "up"
        time.sleep(seconds)
        stage.line.heal()
        restore = stage.when_messages_pass()
        time.sleep(3)  # for retransmissions of the old carrier
        stage.nobody_noticed(f"F2 line silent for {seconds} s, {direction}", restore_s=restore)


@pytest.mark.parametrize("seconds", [25, 30])
def test_a_hole_between_clients_and_relay_costs_no_client(seconds: int) -> None:
    """As plain TCP does: the kernels repeat what was not acknowledged, 25 and 51 s after it was sent."""
    with two_machines() as machines, FarClients(machines) as stage:
        stage.line.delay_seconds = 0.01
        stage.let_clients_in()
        stage.line.cut()
        time.sleep(seconds)
        stage.line.heal()
        restore = stage.when_messages_pass(deadline_seconds=40)
        stage.nobody_noticed(f"F2 line to the clients silent for {seconds} s", restore_s=restore)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_line_that_is_cut_in_one_direction_is_a_pause(stage: FarStage, direction: str) -> None:
    """F3, and F4: what the old carrier's kernel still sends when the line is whole again is late."""
    setattr(stage.line, f"cuts_{direction}", True)
    time.sleep(8)
    stage.line.heal()
    restore = stage.when_messages_pass()
    time.sleep(3)  # for retransmissions of the old carrier
    stage.when_messages_pass()
    stage.nobody_noticed(f"F3 line cut {direction}", restore_s=restore)


def test_a_line_that_loses_packets_loses_no_message(stage: FarStage) -> None:
    stage.line.loss = 0.05
    time.sleep(5)
    stage.line.heal()
    restore = stage.when_messages_pass()
    stage.nobody_noticed("F5 5 % loss", restore_s=restore)


def test_an_agent_that_wakes_up_somewhere_else_goes_on(stage: FarStage) -> None:
    """F33: a laptop is shut, carried to another network and opened."""
    with frozen(stage.agent):
        time.sleep(12)
        stage.machines.home.move_to(NEXT_ADDRESS)
    watch = Stopwatch()
    stage.when_messages_pass()
    stage.nobody_noticed("F33 slept and moved", restore_s=watch.seconds)


def test_an_agent_whose_address_changes_under_it_goes_on(stage: FarStage) -> None:
    """A roam without sleep: the old carrier is neither closed nor answered, it just leads nowhere."""
    watch = Stopwatch()
    stage.machines.home.move_to(NEXT_ADDRESS)
    until("messages pass", lambda: stage.when_messages_pass() > 0, deadline_seconds=40)
    stage.nobody_noticed("F33 moved", restore_s=watch.seconds)


def test_a_line_that_is_cut_for_too_long_ends_the_session_and_the_next_serves_all(stage: FarStage) -> None:
    """F2: everybody is told while it is away, and waits outside."""
    stage.line.cut()
    time.sleep(TOO_LONG_SECONDS)
    assert stage.load.connected_count == 0, "somebody was not told"
    stage.line.heal()
    watch = Stopwatch()
    stage.agent.when_connected()
    attach = watch.seconds
    restore = attach + stage.when_messages_pass()
    stage.everybody_came_back(f"F2 line cut for {TOO_LONG_SECONDS} s", attach_s=attach, restore_s=restore)


def test_an_agent_that_slept_for_too_long_serves_all_again_when_it_wakes(stage: FarStage) -> None:
    """F33, as a laptop over night: carried to another network, too."""
    with frozen(stage.agent):
        time.sleep(TOO_LONG_SECONDS)
        assert stage.load.connected_count == 0, "somebody was not told"
        stage.machines.home.move_to(NEXT_ADDRESS)
    restore = stage.when_messages_pass()
    stage.everybody_came_back(f"F33 slept for {TOO_LONG_SECONDS} s and moved", restore_s=restore)
