"""Status lines for a parent process: complete lines, a bounded queue, and a parent that ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from seance.agent.service import AgentState, AgentStatus
from seance.cli.status_lines import CHECK_SECONDS, MAX_QUEUED_LINES, StatusLines, StatusSource, room_url
from seance.core.settings import AgentSettings
from tests.attacks.parties import EchoServer
from tests.canaries import tokens_in
from tests.docs.pages import DOCS
from tests.e2e.wire import Wire, upgrade
from tests.processes import DEADLINE_SECONDS, Process, RelayProcess, environment, running_relay, twistd
from tests.relay.rig import Rig as RelayRig
from tests.tools import require

TOKEN = "eyJ0eXAiOiJzZWFuY2Urand0In0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


class Source:
    """A fake agent."""

    settings = AgentSettings(room="r", relay="wss://relay.example/base")

    def __init__(self) -> None:
        self.client_count = 0
        self.report: Callable[[AgentStatus], None] = lambda status: None

    def on_status(self, listener: Callable[[AgentStatus], None]) -> Callable[[], None]:
        self.report = listener
        return lambda: None


class Rig:
    """Status lines into a pipe, as from a shell, or into a socket, as Node makes for a child process."""

    def __init__(self, kind: str, agent: StatusSource | None = None) -> None:
        if kind == "pipe":
            self.reading, self.writing = os.pipe()
        else:
            here, there = socket.socketpair()
            self.reading, self.writing = here.detach(), there.detach()
        self.clock = Clock()
        self.agent = Source()
        self.gone = 0
        self.lines = StatusLines(self.clock, agent or self.agent, self.writing, self._count_gone)
        self.lines.startService()
        self._is_reading = True

    def _count_gone(self) -> None:
        self.gone += 1

    def read_lines(self) -> list[dict[str, Any]]:
        os.set_blocking(self.reading, False)
        received = b""
        while True:
            try:
                part = os.read(self.reading, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            received += part
        assert received.endswith(b"\n") or not received
        return [json.loads(line) for line in received.splitlines()]

    def close_reader(self) -> None:
        self._is_reading = False
        os.close(self.reading)

    def close(self) -> None:
        self.lines.stopService()
        assert not self.clock.getDelayedCalls()
        os.close(self.writing)
        if self._is_reading:
            os.close(self.reading)


@pytest.fixture(params=["pipe", "socket"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(request.param)
    yield rig
    rig.close()


def test_a_status_is_a_complete_line(rig: Rig) -> None:
    rig.agent.report(AgentStatus(AgentState.WAITING, "Not now.", 1.23456, "http_503"))
    [line] = rig.read_lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "type": "status",
        "state": "waiting",
        "room": "r",
        "url": "wss://relay.example/base/c/r",
        "sentence": "Not now.",
        "code": "http_503",
        "retry_seconds": 1.235,
    }


def test_a_changed_number_of_clients_is_written_at_most_twice_per_second(rig: Rig) -> None:
    for rig.agent.client_count in (1, 2, 3):
        pass
    assert rig.read_lines() == []
    rig.clock.advance(CHECK_SECONDS)
    rig.clock.advance(CHECK_SECONDS)
    rig.agent.client_count = 0
    rig.clock.advance(CHECK_SECONDS)
    lines = rig.read_lines()
    assert [(line["type"], line["clients"]) for line in lines] == [("clients", 3), ("clients", 0)]
    assert CHECK_SECONDS >= 0.5


def numbers_in(lines: list[dict[str, Any]]) -> list[int]:
    return [int(line["sentence"]) for line in lines]


def test_a_parent_that_does_not_read_loses_the_oldest_lines(rig: Rig) -> None:
    for number in range(3000):
        rig.agent.report(AgentStatus(AgentState.CONNECTING, f"{number:900}"))
    assert len(rig.lines._queue) == MAX_QUEUED_LINES
    lines = rig.read_lines()
    assert numbers_in(lines) == list(range(len(lines)))
    last: list[int] = []
    while rig.lines._queue:
        rig.clock.advance(CHECK_SECONDS)
        last += numbers_in(rig.read_lines())
    assert last[-MAX_QUEUED_LINES:] == list(range(3000 - MAX_QUEUED_LINES, 3000))
    assert rig.gone == 0


def test_the_longest_line_is_shorter_than_pipe_buf(rig: Rig) -> None:
    rig.agent.settings = AgentSettings(room="r" * 128, relay="ws://relay.example")
    rig.agent.report(AgentStatus(AgentState.CONNECTING, "x" * 100_000))
    [line] = rig.read_lines()
    assert len(json.dumps(line)) < 4096


def test_a_parent_that_has_ended_is_reported_once_without_a_new_line(rig: Rig) -> None:
    rig.close_reader()
    rig.clock.advance(CHECK_SECONDS)
    assert rig.gone == 1
    rig.agent.report(AgentStatus(AgentState.STOPPED, "Stopped."))
    rig.clock.advance(CHECK_SECONDS)
    assert rig.gone == 1


def test_the_last_status_is_written_after_the_service_has_stopped(rig: Rig) -> None:
    rig.lines.stopService()
    rig.agent.report(AgentStatus(AgentState.STOPPED, "Stopped."))
    assert [line["state"] for line in rig.read_lines()] == ["stopped"]


@pytest.mark.parametrize(
    ("relay", "url"),
    [
        ("ws://localhost:8080", "ws://localhost:8080/c/r"),
        ("wss://relay.example:443/a/", "wss://relay.example/a/c/r"),
        ("ws://[::1]:8080", "ws://[::1]:8080/c/r"),
    ],
)
def test_the_url_is_the_one_of_the_room_for_clients(relay: str, url: str) -> None:
    assert room_url(AgentSettings(room="r", relay=relay)) == url


@ensureDeferred
async def test_local_trouble_and_its_end_are_one_line_each() -> None:
    async with RelayRig() as relay_rig:
        rig = Rig("pipe", relay_rig.agent)
        await relay_rig.while_local_server_is_away()
        await relay_rig.joined()
        lines = rig.read_lines()
        rig.close()
    assert [line["state"] for line in lines] == ["local_trouble", "connected"]
    assert [line["code"] for line in lines] == ["local_server_refused", ""]


# Real processes


def agent_argv(how: str, relay: RelayProcess, *options: str) -> list[str]:
    arguments = ("--room", "r", "--relay", relay.url, "--status-json", *options)
    if how == "twistd":
        return twistd("seance-agent", *arguments)
    return [sys.executable, "-m", "seance", "agent", *arguments]


def with_seance(folder: Path) -> dict[str, str]:
    """Return an environment with ``seance`` on the PATH."""
    command = folder / "seance"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m seance "$@"\n')
    command.chmod(0o755)
    return {**environment(), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["twistd", "seance"])
def test_stdout_has_only_status_lines_and_stderr_has_the_log(how: str) -> None:
    with running_relay() as relay, EchoServer() as local:
        agent = subprocess.Popen(
            agent_argv(how, relay, "--token", TOKEN, "--local", f"127.0.0.1:{local.port}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment()},
            text=True,
        )
        assert agent.stdout is not None
        lines = [json.loads(agent.stdout.readline()) for _ in range(2)]
        assert [line["state"] for line in lines] == ["connecting", "connected"]
        assert lines[1]["url"] == f"{relay.url}/c/r"
        with Wire.dial(("127.0.0.1", relay.port)) as client:
            client.send(upgrade("/c/r"))
            assert client.read_head().status == 101
            assert json.loads(agent.stdout.readline())["clients"] == 1
        assert json.loads(agent.stdout.readline())["clients"] == 0
        agent.terminate()
        out, err = agent.communicate(timeout=DEADLINE_SECONDS)
        assert agent.returncode == 0
        assert [json.loads(line)["state"] for line in out.splitlines()] == ["stopped"]
        assert "[Agent] Connected to relay for room: r" in err
        assert "Traceback" not in err
        assert tokens_in(out + err) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["twistd", "seance"])
def test_an_agent_whose_parent_closes_the_pipe_stops_in_order(how: str) -> None:
    with running_relay() as relay:
        agent = subprocess.Popen(
            agent_argv(how, relay),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment()},
            text=True,
        )
        assert agent.stdout is not None
        relay.when_line("An agent serves room r")
        agent.stdout.close()
        relay.when_line("has left")
        assert agent.wait(DEADLINE_SECONDS) == 0
        assert agent.stderr is not None
        err = agent.stderr.read()
        agent.stderr.close()
        assert "No process reads the status lines any more" in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_the_status_of_a_rejected_agent_has_the_code_and_the_delay() -> None:
    with (
        running_relay() as relay,
        Process(agent_argv("seance", relay), name="first", env=environment()) as first,
    ):
        first.when_line('"state":"connected"')
        argv = agent_argv("seance", relay, "--identity", "none")
        with Process(argv, name="second", env=environment()) as second:
            line = json.loads(second.when_line('"state":"waiting"').string)
            assert line["code"] == "http_409"
            assert line["retry_seconds"] > 0
            assert "room" in line["sentence"]


@pytest.mark.slow
def test_the_example_for_node_follows_an_agent(tmp_path: Path) -> None:
    """``docs/examples/parent.mjs`` starts the agent as an Electron app would."""
    require("node")
    with running_relay() as relay, EchoServer() as local:
        argv = ["node", str(DOCS / "examples" / "parent.mjs"), relay.url, "node-room", str(local.port)]
        with Process(argv, name="parent.mjs", env=with_seance(tmp_path)) as parent:
            parent.when_line(f"^Share this: {relay.url}/c/node-room$")
            with Wire.dial(("127.0.0.1", relay.port)) as client:
                client.send(upgrade("/c/node-room"))
                assert client.read_head().status == 101
                parent.when_line("^1 guest$")
            parent.when_line("^0 guests$")
            parent.stop()
            relay.when_line("has left")
            assert "Traceback" not in parent.output


@pytest.mark.slow
def test_an_agent_stops_after_its_parent_was_killed(tmp_path: Path) -> None:
    require("node")
    with running_relay() as relay:
        argv = ["node", str(DOCS / "examples" / "parent.mjs"), relay.url, "node-room", "1"]
        with Process(argv, name="parent.mjs", env=with_seance(tmp_path)) as parent:
            parent.when_line("Share this")
            killed = time.monotonic()
            parent.kill()
            relay.when_line("has left")
            assert time.monotonic() - killed < DEADLINE_SECONDS
