"""Our agent with a relay written with Node's ``ws``: ``ws_relay.mjs``."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.interop.mixes import LocalAddress, client_url, local_server, status_of
from tests.processes import (
    AgentProcess,
    Process,
    free_port,
    node_modules,
    running_process,
    running_relay,
    until,
)
from tests.tools import require

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parent / "ws_relay.mjs"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("node", "npm")
    folder = tmp_path_factory.mktemp("ws-relay")
    (folder / "node_modules").symlink_to(node_modules())
    return Path(shutil.copy(SOURCE, folder))


@pytest.fixture(scope="module")
def local() -> Iterator[LocalAddress]:
    with local_server() as local:
        yield local


def ws_relay(script: Path, port: int, how: str = "default") -> contextlib.AbstractContextManager[Process]:
    return running_process(["node", str(script), str(port), how], name="ws relay", ready="relay on")


def agent_at(port: int, local: LocalAddress, *options: str) -> AgentProcess:
    return AgentProcess(
        "r", "--relay", f"ws://127.0.0.1:{port}", "--local", f"127.0.0.1:{local.port}", *options
    )


def comes_back(port: int) -> None:
    message = random.Random(1).randbytes(100_000)
    with connect(client_url(f"ws://127.0.0.1:{port}", "r"), proxy=None, compression=None) as client:
        client.send("through it")
        assert client.recv(timeout=15) == "through it"
        client.send(message)
        assert client.recv(timeout=15) == message


@pytest.mark.parametrize(
    ("how", "options", "selected"),
    [
        ("default", (), ["seance.resume.v1", "no subprotocol"]),
        ("default", ("--plain",), ["no subprotocol"]),
        ("default", ("--no-resume",), ["seance.link.v1"]),
        ("last", (), ["seance.link.v1"]),
        ("none", (), ["no subprotocol"]),
    ],
)
def test_agent_connects_and_clients_are_served(
    script: Path, local: LocalAddress, how: str, options: tuple[str, ...], selected: list[str]
) -> None:
    port = free_port()
    with ws_relay(script, port, how) as relay, agent_at(port, local, *options) as agent:
        agent.when_connected()
        comes_back(port)
        agent.signal(signal.SIGTERM)
        assert agent.when_exited() == 0
        relay.when_line("agent gone: 1001")
    said = [line.removeprefix("agent with ") for line in relay.output.splitlines() if "agent with" in line]
    assert said == selected
    assert "text:" not in relay.output, "nothing but yamux"
    assert ("set --plain" in agent.output) == (len(selected) > 1)
    agent.check_quiet()


def test_agent_offers_all_subprotocols_when_our_relay_takes_over(script: Path, local: LocalAddress) -> None:
    port = free_port()
    with agent_at(port, local) as agent:
        with ws_relay(script, port) as foreign:
            agent.when_connected()
            comes_back(port)
            foreign.kill()
        with running_relay(listen=f"tcp:{port}:interface=127.0.0.1"):
            agent.when_line("a Seance relay after all", deadline_seconds=30)
            agent.when_connected()
            url = client_url(f"ws://127.0.0.1:{port}", "r")
            until("the room has its agent", lambda: status_of(url) == 101)
            comes_back(port)
