"""A relay gets SIGTERM, with or without a new relay on its port.

Agents move to the new relay; clients cannot. Each client is closed once with "service restart", connects to
the new relay, and loses nothing that is sent after that. The old relay exits with status 0 in every state.
"""

from __future__ import annotations

import dataclasses
import signal
import time

import pytest

from tests.e2e.peers import LocalAddress, node_peer
from tests.faults.figures import Stopwatch, report
from tests.faults.stage import Stage
from tests.processes import RelayProcess, running_agent, until

pytestmark = pytest.mark.slow

CLIENTS = 20
DRAIN_SECONDS = 30.0


@pytest.mark.alone
def test_500_clients_move_to_the_relay_that_takes_the_port() -> None:
    count = 500
    with Stage(clients=count, every_seconds=0.1 * count / CLIENTS) as stage:
        stage.let_clients_in()
        watch = Stopwatch()
        old = stage.restart_relay()
        stage.agent.when_connected()
        attach = watch.seconds
        assert old.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
        gone = watch.seconds
        old.stop()
        restore = attach + stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        report(
            f"F15 relay restarted, {count} clients",
            attach_s=attach,
            exit_s=gone,
            restore_s=restore,
            **dataclasses.asdict(toll),
            **stage.figures(),
        )
        fates = toll.fates
        assert fates.pop("clients_disconnected") == count, "each client once"
        assert not any(fates.values()), toll
        until("the old connections have gone", lambda: stage.load.local_count == count)


@pytest.mark.alone
def test_stock_clients_get_1012_once_and_reconnect() -> None:
    """With y-websocket: each connection ends with code 1012, and all clients have one document at the end."""
    count = 200
    with LocalAddress("y-websocket") as server, node_peer() as node:
        old = RelayProcess()
        with old, running_agent(old, "room", local_port=server.port) as agent:
            names = [f"client {number}" for number in range(count)]
            for name in names:
                node.open(name, "y-websocket-3", old.client_url("room"), "doc")
            node.when_synced(*names)
            watch = Stopwatch()
            old.signal(signal.SIGTERM)
            old.when_line("Draining")
            with RelayProcess(listen=f"tcp:{old.port}:interface=127.0.0.1") as new:
                node.ask("edits", names=names[:8], count=20)
                assert old.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
                gone = watch.seconds
                agent.when_connected()
                until("all are closed", lambda: all(node.ask("trace", name=name)["closes"] for name in names))
                node.when_synced(*names)
                node.when_equal(*names)
                restore = watch.seconds
                traces = [node.ask("trace", name=name) for name in names]
                agent.signal(signal.SIGTERM)
                agent.when_exited()
                new.check_quiet()
            old.check_quiet()
    dials = [trace["dials"] for trace in traces]
    closes = sorted({code for trace in traces for code in trace["closes"]})
    report(
        f"F15 relay restarted, {count} y-websocket clients",
        exit_s=gone,
        restore_s=restore,
        dials=sum(dials),
        dials_most=max(dials),
        close_codes=closes,
    )
    for trace in traces:
        # A dial that the new process does not accept yet is an error and a close with 1006.
        assert trace["closes"] == [1012] + [1006] * len(trace["refusals"])


@pytest.mark.parametrize("name", ["relay", "agent"])
@pytest.mark.parametrize("later_seconds", [0.0, 0.1, 0.4])
def test_a_process_that_is_stopped_during_a_resumption_exits_with_0(name: str, later_seconds: float) -> None:
    """The carrier was cut; the agent dials, replays, or has just finished.

    A side that is disconnected when the other one stops gets no message; for it the session expires.
    """
    options = ("--drain-try-seconds", "0.2", "--resume-seconds", "2", "--park-seconds", "1")
    with Stage(clients=CLIENTS, relay_options=options) as stage:
        stage.let_clients_in()
        stage.cutter.reset()
        time.sleep(later_seconds)
        watch = Stopwatch()
        stopped = getattr(stage, name)
        stopped.signal(signal.SIGTERM)
        assert stopped.when_exited() == 0
        until("all clients were disconnected", lambda: stage.load.connected_count == 0)
        report(f"F16 {name} stopped {later_seconds} s after a cut", exit_s=watch.seconds)
        stopped.check_quiet()
        stage.load.hang_up()
