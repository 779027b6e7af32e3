"""What an agent tells its parent process: complete lines, never more than somebody reads, and the end."""

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
from seance.cli.status_lines import LOOK_SECONDS, MOST_WAITING, StatusLines, StatusSource, room_url
from seance.core.settings import AgentSettings
from tests.attacks.parties import EchoServer
from tests.canaries import tokens_in
from tests.docs.pages import DOCS
from tests.e2e.wire import Wire, upgrade
from tests.processes import DEADLINE_SECONDS, Process, RelayProcess, environment, running_relay, twistd
from tests.relay.rig import Rig
from tests.tools import require

TOKEN = "eyJ0eXAiOiJzZWFuY2Urand0In0.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


class Source:
    """An agent, as far as status lines know one."""

    settings = AgentSettings(room="r", relay="wss://relay.example/base")

    def __init__(self) -> None:
        self.client_count = 0
        self.tell: Callable[[AgentStatus], None] = lambda status: None

    def on_status(self, listener: Callable[[AgentStatus], None]) -> Callable[[], None]:
        self.tell = listener
        return lambda: None


class Stage:
    """Status lines into a socket, as Node makes them for a child, or into a pipe, as a shell does."""

    def __init__(self, kind: str, agent: StatusSource | None = None) -> None:
        if kind == "pipe":
            self.reading, self.writing = os.pipe()
        else:
            here, there = socket.socketpair()
            self.reading, self.writing = here.detach(), there.detach()
        self.clock = Clock()
        self.agent = Source()
        self.gone = 0
        self.lines = StatusLines(self.clock, agent or self.agent, self.writing, self._note_gone)
        self.lines.startService()
        self._is_read = True

    def _note_gone(self) -> None:
        self.gone += 1

    def told(self) -> list[dict[str, Any]]:
        os.set_blocking(self.reading, False)
        taken = b""
        while True:
            try:
                part = os.read(self.reading, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            taken += part
        assert taken.endswith(b"\n") or not taken
        return [json.loads(line) for line in taken.splitlines()]

    def leave(self) -> None:
        self._is_read = False
        os.close(self.reading)

    def close(self) -> None:
        self.lines.stopService()
        assert not self.clock.getDelayedCalls()
        os.close(self.writing)
        if self._is_read:
            os.close(self.reading)


@pytest.fixture(params=["pipe", "socket"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(request.param)
    yield stage
    stage.close()


def test_a_status_is_a_complete_line(stage: Stage) -> None:
    stage.agent.tell(AgentStatus(AgentState.WAITING, "Not now.", 1.23456, "http_503"))
    [line] = stage.told()
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


def test_the_number_of_clients_is_told_when_it_changes_and_twice_a_second_at_most(stage: Stage) -> None:
    for stage.agent.client_count in (1, 2, 3):
        pass
    assert stage.told() == []
    stage.clock.advance(LOOK_SECONDS)
    stage.clock.advance(LOOK_SECONDS)
    stage.agent.client_count = 0
    stage.clock.advance(LOOK_SECONDS)
    told = stage.told()
    assert [(line["type"], line["clients"]) for line in told] == [("clients", 3), ("clients", 0)]
    assert LOOK_SECONDS >= 0.5


def numbers_in(told: list[dict[str, Any]]) -> list[int]:
    return [int(line["sentence"]) for line in told]


def test_a_parent_that_does_not_read_loses_the_oldest_lines_and_holds_nobody_up(stage: Stage) -> None:
    for number in range(3000):
        stage.agent.tell(AgentStatus(AgentState.CONNECTING, f"{number:900}"))
    assert len(stage.lines._waiting) == MOST_WAITING
    told = stage.told()
    assert numbers_in(told) == list(range(len(told)))
    last: list[int] = []
    while stage.lines._waiting:
        stage.clock.advance(LOOK_SECONDS)
        last += numbers_in(stage.told())
    assert last[-MOST_WAITING:] == list(range(3000 - MOST_WAITING, 3000))
    assert stage.gone == 0


def test_the_longest_line_is_one_that_a_pipe_takes_whole(stage: Stage) -> None:
    stage.agent.settings = AgentSettings(room="r" * 128, relay="ws://relay.example")
    stage.agent.tell(AgentStatus(AgentState.CONNECTING, "x" * 100_000))
    [line] = stage.told()
    assert len(json.dumps(line)) < 4096


def test_a_parent_that_has_gone_is_noticed_without_a_word_and_told_of_once(stage: Stage) -> None:
    stage.leave()
    stage.clock.advance(LOOK_SECONDS)
    assert stage.gone == 1
    stage.agent.tell(AgentStatus(AgentState.STOPPED, "Stopped."))
    stage.clock.advance(LOOK_SECONDS)
    assert stage.gone == 1


def test_the_last_word_is_told_after_the_service_has_stopped(stage: Stage) -> None:
    stage.lines.stopService()
    stage.agent.tell(AgentStatus(AgentState.STOPPED, "Stopped."))
    assert [line["state"] for line in stage.told()] == ["stopped"]


@pytest.mark.parametrize(
    ("relay", "url"),
    [
        ("ws://localhost:8080", "ws://localhost:8080/c/r"),
        ("wss://relay.example:443/a/", "wss://relay.example/a/c/r"),
        ("ws://[::1]:8080", "ws://[::1]:8080/c/r"),
    ],
)
def test_the_url_is_where_clients_find_the_room(relay: str, url: str) -> None:
    assert room_url(AgentSettings(room="r", relay=relay)) == url


@ensureDeferred
async def test_trouble_with_the_local_server_and_its_end_are_a_line_each() -> None:
    async with Rig() as rig:
        stage = Stage("pipe", rig.agent)
        await rig.while_local_server_is_away()
        await rig.joined()
        told = stage.told()
        stage.close()
    assert [line["state"] for line in told] == ["local_trouble", "connected"]
    assert [line["code"] for line in told] == ["local_server_refused", ""]


# Real processes


def agent_argv(how: str, relay: RelayProcess, *options: str) -> list[str]:
    told = ("--room", "r", "--relay", relay.url, "--status-json", *options)
    return (
        twistd("seance-agent", *told) if how == "twistd" else [sys.executable, "-m", "seance", "agent", *told]
    )


def with_seance(folder: Path) -> dict[str, str]:
    """An environment in which ``seance`` is on the PATH, as it is where Seance is installed."""
    command = folder / "seance"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m seance "$@"\n')
    command.chmod(0o755)
    return {**environment(), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["twistd", "seance"])
def test_stdout_has_status_lines_alone_and_stderr_the_log(how: str) -> None:
    with running_relay() as relay, EchoServer() as local:
        agent = subprocess.Popen(
            agent_argv(how, relay, "--token", TOKEN, "--local", f"127.0.0.1:{local.port}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment()},
            text=True,
        )
        assert agent.stdout is not None
        told = [json.loads(agent.stdout.readline()) for _ in range(2)]
        assert [line["state"] for line in told] == ["connecting", "connected"]
        assert told[1]["url"] == f"{relay.url}/c/r"
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
def test_an_agent_whose_parent_closes_the_pipe_leaves_in_order(how: str) -> None:
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
        assert "Nobody reads the status lines any more" in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_refused_agent_says_the_code_and_how_long_it_waits() -> None:
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
    """``docs/examples/parent.mjs``, as an Electron app would have it."""
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
def test_an_agent_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    require("node")
    with running_relay() as relay:
        argv = ["node", str(DOCS / "examples" / "parent.mjs"), relay.url, "node-room", "1"]
        with Process(argv, name="parent.mjs", env=with_seance(tmp_path)) as parent:
            parent.when_line("Share this")
            killed = time.monotonic()
            parent.kill()
            relay.when_line("has left")
            assert time.monotonic() - killed < DEADLINE_SECONDS
