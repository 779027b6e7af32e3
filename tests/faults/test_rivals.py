"""Two agents for one room, whose carriers are cut repeatedly: no connection is served by both.

Two processes with the same key are one agent to the relay, and the newer one gets the room. The older one
must not take it back, or the two would alternate for ever. With different keys the first agent keeps the
room.
"""

from __future__ import annotations

import dataclasses
import re
import signal
import time
from pathlib import Path

import pytest

from tests.faults.figures import report
from tests.faults.stage import Stage, frozen
from tests.processes import AgentProcess

TAKEN_OVER = re.compile(r"was taken over")
CUTS, CUT_EVERY_SECONDS = 20, 0.2


class Rivals(Stage):
    """A stage with a second agent of the same room and another local server."""

    def rival(self, *options: str) -> AgentProcess:
        self.rival_port = self.load.listen_again()
        return self.new_agent("--local", f"127.0.0.1:{self.rival_port}", *options)


@pytest.mark.slow
@pytest.mark.parametrize("has_same_key", [True, False], ids=["same key", "other key"])
def test_two_agents_of_one_room_do_not_alternate(has_same_key: bool, tmp_path: Path) -> None:
    options = () if has_same_key else ("--identity", str(tmp_path / "key"))
    with Rivals(clients=10) as stage:
        stage.let_clients_in()
        with stage.rival(*options) as rival:
            for _ in range(CUTS):
                stage.cutter.reset()
                time.sleep(CUT_EVERY_SECONDS)
            before = len(TAKEN_OVER.findall(stage.relay.output))
            time.sleep(3)
            stage.when_messages_pass()
            takeovers = len(TAKEN_OVER.findall(stage.relay.output))
            served = stage.load.servers_of_each
            stage.load.settle()
            toll = stage.load.toll()
            report(
                f"F20 {'same' if has_same_key else 'other'} key",
                takeovers=takeovers,
                takeovers_without_cuts=takeovers - before,
                dials=len(stage.cutter.dials),
                **dataclasses.asdict(toll),
                **stage.figures(),
            )
            stage.load.hang_up()
        rival.check_quiet()
    assert all(len(servers) == 1 for servers in served), "a connection changed its server"
    assert takeovers - before <= 1
    assert not any(list(toll.fates.values())[1:]), toll
    if not has_same_key:
        assert {stage.rival_port} not in served, "a client was served by the agent with the other key"
        assert takeovers == 0


@pytest.mark.slow
def test_an_agent_that_wakes_up_does_not_take_the_room_from_its_successor() -> None:
    """A hung process that was started again, or a laptop that is opened while another machine serves."""
    with Stage(clients=10) as stage:
        stage.let_clients_in()
        with frozen(stage.agent):
            with stage.new_agent() as successor:
                successor.when_connected()
                stage.when_messages_pass()
                time.sleep(12)
                stage.agent.signal(signal.SIGCONT)
                stage.agent.when_line("Another process with this agent's key has taken")
                stage.when_messages_pass()
                takeovers = len(TAKEN_OVER.findall(stage.relay.output))
                report("F20 the first wakes up", takeovers=takeovers, **stage.figures())
                assert takeovers == 1
                stage.load.hang_up()
            stage.agent.when_connected()
