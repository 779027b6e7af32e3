"""Machines whose loopback interface has one address family only; the programs run with their defaults."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Process
from tests.tools import require

SEANCE = os.path.join(sysconfig.get_path("scripts"), "seance")

NO_IPV4 = "ip addr del 127.0.0.1/8 dev lo"
NO_IPV6 = "sysctl -qw net.ipv6.conf.lo.disable_ipv6=1"
SETUP = {"::1": NO_IPV4, "127.0.0.1": NO_IPV6, "neither": f"{NO_IPV4}; {NO_IPV6}"}
"""Commands that remove the other address."""

SERVER = """
import socket, sys
from websockets.sync.server import serve
def echo(connection):
    for message in connection:
        connection.send(message)
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with serve(echo, sock=socket.create_server((sys.argv[1], 1234), family=family)) as server:
    print("ready", flush=True)
    server.serve_forever()
"""

CLIENT = """
from websockets.sync.client import connect
with connect("ws://localhost:8080/client?room=r", proxy=None) as client:
    client.send("here")
    print(client.recv(5))
"""


@contextmanager
def relay_on(host: str, folder: Path) -> Iterator[Process]:
    """Run a relay without options, in a separate network namespace."""
    require("unshare")
    require("ip")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    setup = f"set -e; mount --bind {hosts} /etc/hosts; ip link set lo up; {SETUP[host]}"
    enter = ["unshare", "-n", "-m", "sh", "-c"]
    if subprocess.run(
        ["unshare", "-n", "-m", "sh", "-c", setup], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs to be allowed to make network namespaces")
    with Process([*enter, f"{setup}; exec {SEANCE} relay"], name="relay") as relay:
        yield relay


@pytest.mark.slow
@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_relay_agent_and_status_work_with_their_defaults(host: str, tmp_path: Path) -> None:
    with relay_on(host, tmp_path) as relay:
        relay.when_line("Client endpoint")
        relay.when_line("Admin pages")
        inside = ["nsenter", "-t", str(relay.pid), "-n", "-m"]
        server = Process([*inside, sys.executable, "-c", SERVER, host], name="server")
        agent = Process([*inside, SEANCE, "agent", "--room", "r", "--identity", "none"], name="agent")
        with server, agent:
            server.when_line("ready")
            agent.when_line("Connected to relay")
            for argv, expected in (([sys.executable, "-c", CLIENT], "here"), ([SEANCE, "status"], "1 room")):
                result = subprocess.run(
                    [*inside, *argv], capture_output=True, text=True, check=False, timeout=30
                )
                assert expected in result.stdout, (result.stderr, agent.output)


def test_a_relay_without_any_loopback_address_exits_with_one_message(tmp_path: Path) -> None:
    with relay_on("neither", tmp_path) as relay:
        assert relay.when_exited() == 1
        relay.when_line(r"seance relay: .*neither 127\.0\.0\.1 nor ::1\. Bring its loopback interface up")
        assert "Traceback" not in relay.output
