"""``seance health``: real programs without an option for it, and each reason to be unhealthy."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

from seance.agent.status import AgentState, AgentStatus
from seance.cli import health_check, health_socket
from seance.cli.health_socket import Health, HealthSocket, health_of_agent, health_of_relay, socket_name
from tests.certificates import Authority
from tests.processes import (
    Process,
    environment,
    running_agent,
    running_relay,
    twistd,
)
from tests.tools import require

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has such sockets")

SEANCE = [sys.executable, "-m", "seance"]


def health(*options: str) -> tuple[int, str]:
    """Run the command; return its exit status and output."""
    argv = [*SEANCE, "health", *options]
    env = {**os.environ, **environment()}
    result = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=30)
    return result.returncode, result.stdout + result.stderr


def health_of(process: Process, *options: str) -> tuple[int, str]:
    return health("--pid", str(process.pid), *options)


# Relays


LISTEN = ["tcp:0:interface=127.0.0.1", "unix:{}/sock", "haproxy:tcp:0:interface=127.0.0.1"]


@pytest.mark.parametrize("listen", LISTEN)
def test_a_relay_is_healthy_on_every_type_of_endpoint(listen: str, tmp_path: Path) -> None:
    argv = [*SEANCE, "relay", "--listen", listen.format(tmp_path)]
    with Process(argv, name="relay", env=environment()) as relay:
        relay.when_line("starting on")
        assert health_of(relay) == (0, "The relay accepts connections.\n")
        assert health_of(relay, "relay")[0] == 0
        assert health_of(relay, "--attached")[0] == 0
        status, output = health_of(relay, "agent")
        assert (status, output) == (1, "seance health: No agent of this user runs here.\n")


@pytest.mark.slow
def test_a_relay_with_tls_and_a_configuration_file_is_healthy(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("relay.example")
    file = tmp_path / "relay.toml"
    file.write_text(
        '[relay]\nlisten = ["tcp:0:interface=127.0.0.1"]\n'
        f'tls-cert = "{certificate.chain}"\ntls-key = "{certificate.key}"\n'
    )
    with Process(twistd("seance-relay", "--config", str(file)), name="relay", env=environment()) as relay:
        relay.when_line("Client endpoint: wss:")
        assert health_of(relay) == (0, "The relay accepts connections.\n")


@pytest.mark.slow
def test_a_relay_that_drains_is_not_healthy(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(running_relay())
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(running_agent(relay, "r", local_port=server.getsockname()[1]))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
        client.sendall(
            b"GET /client?room=r HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        accepted, _ = server.accept()
        stack.enter_context(accepted)
        relay.signal(signal.SIGTERM)
        relay.when_line("SIGTERM: stopping")
        assert health_of(relay) == (1, "seance health: The relay is stopping.\n")


# Agents


def test_an_agent_without_its_relay_is_healthy_and_not_attached() -> None:
    argv = [*SEANCE, "agent", "--room", "r", "--relay", "ws://127.0.0.1:1", "--identity", "none"]
    with Process(argv, name="agent", env=environment()) as agent:
        agent.when_line("Nothing listens")
        status, output = health_of(agent)
        assert status == 0
        assert output.startswith("The agent runs (")
        status, output = health_of(agent, "agent", "--attached")
        assert status == 1
        assert output.startswith("seance health: The agent runs (")


def test_an_agent_with_its_relay_is_attached() -> None:
    with running_relay() as relay, running_agent(relay, "r", local_port=1) as agent:
        status, output = health_of(agent, "--attached")
        assert status == 0
        assert output.startswith("The agent runs (connected): ")


def test_a_process_that_hangs_is_not_healthy() -> None:
    with running_relay() as relay:
        relay.signal(signal.SIGSTOP)
        try:
            status, output = health_of(relay)
        finally:
            relay.signal(signal.SIGCONT)
        assert status == 1
        assert output == f"seance health: Process {relay.pid} does not answer within 2 s.\n"


# No process, and more than one


def test_without_a_process_the_check_fails() -> None:
    assert health("--pid", str(2**22 - 1))[0] == 1


@pytest.mark.slow
def test_in_a_container_only_its_own_programs_are_found(tmp_path: Path) -> None:
    """The programs have their own process namespace, like ``docker run --network host``."""
    require("unshare")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a process namespace")
    enter = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to make process namespaces")
    script = (
        'p="$1 -m seance"; $p health; echo "before: $?"; '
        "$p relay --listen tcp:0:interface=127.0.0.1 & "
        "$p agent --room r --relay ws://127.0.0.1:1 --identity none & "
        "for i in $(seq 100); do sleep 0.2; $p health agent && $p health relay && break; done; "
        '$p health; echo "after: $?"; $p health --attached; echo "attached: $?"; kill %1; wait %1; '
        '$p health agent; echo "agent: $?"; $p health relay; echo "relay: $?"; kill %2; wait'
    )
    with running_relay():
        argv = [*enter, "bash", "-c", script, "bash", sys.executable]
        env = {**os.environ, **environment()}
        result = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=60)
    output = result.stdout + result.stderr
    for line in ("before: 1", "after: 0", "attached: 1", "agent: 0", "relay: 1"):
        assert f"{line}\n" in output, output
    assert "No relay or agent of this user runs here." in output


@contextlib.contextmanager
def answering(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process has a health socket that gives this answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{socket_name(os.getpid())}")
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(5)


GOOD = {"program": "agent", "healthy": True, "attached": False, "sentence": "It runs."}


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (json.dumps(GOOD).encode(), 0, "It runs."),
        (json.dumps({**GOOD, "healthy": False}).encode(), 1, "It runs."),
        (json.dumps({**GOOD, "healthy": 1}).encode(), 1, "It runs."),
        (b"", 1, "did not answer with its health"),
        (b"[]", 1, "did not answer with its health"),
        (b"{}", 1, "did not answer with its health"),
        (b"\xff", 1, "did not answer with its health"),
        (b"x" * 100_000, 1, "did not answer with its health"),
    ],
)
def test_an_answer_is_parsed_strictly(
    answer: bytes,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with answering(answer, monkeypatch):
        assert health_check.main(["--pid", str(os.getpid())]) == status
    assert message in "".join(capsys.readouterr())


def test_the_socket_of_another_process_or_user_is_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with answering(json.dumps(GOOD).encode(), monkeypatch):
        assert health_check.main(["--pid", str(os.getpid())]) == 1
    assert "No relay or agent of this user" in capsys.readouterr().err


def test_without_such_sockets_the_message_names_other_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(health_check, "SOCKETS", tmp_path / "none")
    assert health_check.main([]) == 1
    assert "elsewhere request /health of a relay" in capsys.readouterr().err


# The socket


class Reactor(Clock):
    """Stores the readers; the test calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:  # noqa: N802  # Twisted's name
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:  # noqa: N802  # Twisted's name
        self.readers.remove(reader)


def query(reactor: Reactor) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(f"\0{socket_name(os.getpid())}")
        reactor.readers[0].doRead()
        return client.recv(4096)


def test_the_socket_answers_only_its_own_user_and_root(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor = Reactor()
    service = HealthSocket(reactor, lambda: Health("relay", True, False, "Good."))
    service.startService()
    assert json.loads(query(reactor))["sentence"] == "Good."
    monkeypatch.setattr(health_socket, "peer_of", lambda _: (1, 12345))
    assert query(reactor) == b""
    monkeypatch.setattr(health_socket, "peer_of", lambda _: (1, 0))
    assert query(reactor) != b""
    reactor.readers[0].doRead()  # without a connection
    service.stopService()
    assert reactor.readers == []


def test_a_second_service_of_a_process_runs_without_a_socket(caplog: pytest.LogCaptureFixture) -> None:
    reactor = Reactor()
    services = [HealthSocket(reactor, lambda: Health("relay", True, False, "")) for _ in range(2)]
    for service in services:
        service.startService()
    assert len(reactor.readers) == 1
    assert "Address already in use" in caplog.text
    for service in services:
        service.stopService()


def test_other_systems_run_without_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    reactor = Reactor()
    service = HealthSocket(reactor, lambda: Health("relay", True, False, ""))
    service.startService()
    service.stopService()
    assert reactor.readers == []


@pytest.mark.parametrize(
    ("ready", "draining", "message"),
    [(True, False, "accepts connections"), (False, True, "is stopping"), (False, False, "does not listen")],
)
def test_a_relay_is_healthy_while_it_listens(ready: bool, draining: bool, message: str) -> None:
    relay: Any = SimpleNamespace(is_ready=ready, is_draining=draining)
    result = health_of_relay(relay)
    assert (result.healthy, result.attached) == (ready, False)
    assert message in result.sentence


@pytest.mark.parametrize("is_up", [None, False, True])
def test_agent_is_healthy_in_any_state(is_up: bool | None) -> None:
    relay_link = None if is_up is None else SimpleNamespace(is_attached=is_up)
    status = AgentStatus(AgentState.RESUMING, "It dials.")
    result = health_of_agent(SimpleNamespace(relay_link=relay_link, status=status))  # type: ignore[arg-type]
    assert result == Health("agent", True, bool(is_up), "The agent runs (resuming): It dials.")
