"""A relay with few descriptors and more connections than that: it does not fail, and does not use the CPU."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import pytest

from tests.attacks.parties import EchoServer, RawAgent, say
from tests.e2e.wire import Wire, upgrade
from tests.processes import Process, RelayProcess, environment, running_agent, twistd, until

DESCRIPTORS = 200
CONNECTIONS = 160
"""The rest; a fifth of the descriptors is for files, listeners and libraries."""

CLIENTS = 128
"""For clients; a fifth of the connections is for agents."""


class NarrowRelay(RelayProcess):
    """A relay process with a low limit of descriptors."""

    def __init__(self) -> None:
        options = ("--listen", "tcp:0:interface=127.0.0.1", "--upgrades-per-room", "100000")
        argv = ["sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh", *twistd("seance-relay", *options)]
        Process.__init__(self, argv, name="relay", env=environment())
        self.port = int(self.when_line(r"starting on port (\d+)")[1])


def cpu_seconds(process: Process) -> float:
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_a_relay_without_free_descriptors_idles_and_accepts_agents() -> None:
    with (
        EchoServer() as server,
        NarrowRelay() as relay,
        running_agent(relay, "crowded", local_port=server.port),
        contextlib.ExitStack() as stack,
    ):
        inside = [stack.enter_context(Wire.dial(("127.0.0.1", relay.port))) for _ in range(CLIENTS - 1)]
        for client in inside:
            client.send(upgrade("/c/crowded"))
            assert client.read_head().status == 101
        # Twice the limit of connections, by clients that do not read their refusal and do not close.
        for _ in range(2 * CONNECTIONS):
            stack.enter_context(Wire.dial(("127.0.0.1", relay.port))).send(upgrade("/c/crowded"))
        until("the last descriptors are used", lambda: open_sockets(relay) > CLIENTS + 10)
        began, used = time.monotonic(), cpu_seconds(relay)
        most = 0
        while time.monotonic() - began < 1:
            most = max(most, open_sockets(relay))
            time.sleep(0.05)
        used = cpu_seconds(relay) - used
        say("no descriptors left", cpu_share=round(used / (time.monotonic() - began), 2), sockets=most)
        # A loop of accepts that fail for lack of descriptors would use the whole second.
        assert used < 0.5
        # Also the listening socket, and the reactor's own wake-up sockets.
        assert most <= CONNECTIONS + 4
        with RawAgent(relay, "other") as agent:
            assert agent.head.status == 101
        inside[0].send(b"still here")
        assert inside[0].read_exactly(10) == b"still here"
    relay.check_quiet()
    assert re.search(r"EMFILE|Too many open files", relay.output) is None


def open_sockets(relay: RelayProcess) -> int:
    return sum(target.startswith("socket:") for target in relay.open_descriptors().values())
