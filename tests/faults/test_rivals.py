"""F20: two agents for one room, whose carriers are cut again and again: nobody is served by both.

Two programs with the same key are one agent to the relay, and the newcomer wins; the loser must not
take the room back, or the two would fight for ever. With different keys the room stays with whoever has it.
"""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest

from tests.faults.figures import report
from tests.faults.stage import Stage
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
def test_two_agents_of_one_room_do_not_fight(has_same_key: bool, tmp_path: Path) -> None:
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
                takeovers_when_calm=takeovers - before,
                dials=len(stage.cutter.dials),
                **dataclasses.asdict(toll),
                **stage.figures(),
            )
            stage.load.hang_up()
        rival.check_quiet()
    assert all(len(servers) == 1 for servers in served), "a connection has changed its server"
    assert takeovers - before <= 1
    assert not any(list(toll.fates.values())[1:]), toll
    if not has_same_key:
        assert {stage.rival_port} not in served, "somebody was brought to a stranger's server"
        assert takeovers == 0
