"""Relay and agent stop on a signal: close codes of the clients, time limits, and the second signal.

The tests use real processes and a real WebSocket client, with ``twistd`` and with ``seance``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from twisted.application.service import MultiService
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from seance.cli.stop_on_signal import StopOnSignal
from tests.processes import Process, RelayProcess, environment, twistd, until

pytestmark = pytest.mark.slow

SEANCE = [sys.executable, "-m", "seance"]
ROOM = "room"

SIGNALS = [signal.SIGTERM, signal.SIGINT]


def command(program: str, word: str, *options: str) -> list[str]:
    return twistd(f"seance-{word}", *options) if program == "twistd" else [*SEANCE, word, *options]


@pytest.fixture(params=["twistd", "seance"])
def program(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


class Relay(Process):
    """A relay, started by ``twistd`` or ``seance``."""

    def __init__(self, program: str, *options: str, prefix: Sequence[str] = ()) -> None:
        listen = ("--listen", "tcp:0:interface=127.0.0.1")
        argv = [*prefix, *command(program, "relay", *listen, *options)]
        super().__init__(argv, name="relay", env=environment())
        self.port = int(self.when_line(r"starting on port (\d+)")[1])

    @contextlib.contextmanager
    def connected(self) -> Iterator[ClientConnection]:
        with connect(f"ws://127.0.0.1:{self.port}/c/{ROOM}", proxy=None) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
            yield client


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def agent_of(program: str, relay: Relay, echo_port: int, *options: str) -> Iterator[Process]:
    where = ("--relay", f"ws://127.0.0.1:{relay.port}", "--local", f"127.0.0.1:{echo_port}")
    argv = command(program, "agent", "--room", ROOM, *where, *options)
    with Process(argv, name="agent", env=environment()) as agent:
        agent.when_line(r"Connected to relay")
        yield agent
    agent.check_quiet()


def close_code(client: ClientConnection) -> int | None:
    """Read until the connection ends; return the code of the close frame, or None without one."""
    try:
        while True:
            client.recv(timeout=20)
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else int(closed.rcvd.code)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopping_relay_closes_its_clients_with_service_restart(
    program: str, number: signal.Signals, echo_port: int
) -> None:
    with (
        Relay(program, "--drain-try-seconds", "0.2") as relay,
        agent_of(program, relay, echo_port),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(relay.connected()) for _ in range(5)]
        relay.signal(number)
        assert [close_code(client) for client in clients] == [1012] * 5
        assert relay.when_exited() == 0
        relay.check_quiet()


def test_a_plain_agent_gets_goaway_and_a_close_frame_with_service_restart(program: str) -> None:
    with Relay(program) as relay:
        url = f"ws://127.0.0.1:{relay.port}/agent?room=plain"
        with connect(url, proxy=None) as agent:
            relay.when_line("An agent serves room plain")
            relay.signal(signal.SIGTERM)
            messages = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    messages.append(agent.recv(timeout=20))
            assert messages[-1] == b"\x00\x03" + bytes(10), "GoAway 0, and no link control message"
            assert agent.close_code == 1012
        assert relay.when_exited() == 0
        relay.check_quiet()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopping_agent_sends_pending_data_and_closes_its_clients(
    program: str, number: signal.Signals, echo_port: int
) -> None:
    with Relay(program) as relay, agent_of(program, relay, echo_port) as agent:
        with relay.connected() as client:
            client.send("x" * 100_000)
            assert client.recv(timeout=10) == "x" * 100_000
            began = time.monotonic()
            agent.signal(number)
            assert close_code(client) == 1012
            assert agent.when_exited() == 0
            assert time.monotonic() - began < 20, "the stop waits for an event that never occurs"
        relay.when_line("has left: The connection below")
        relay.signal(signal.SIGTERM)
        assert relay.when_exited() == 0
        relay.check_quiet()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_a_relay_that_drains(
    program: str, number: signal.Signals, echo_port: int
) -> None:
    patient = ("--drain-seconds", "100", "--drain-try-seconds", "20")
    with (
        Relay(program, *patient) as relay,
        agent_of(program, relay, echo_port),
        relay.connected() as client,
    ):
        relay.signal(number)
        relay.when_line("Draining 1 agents and 1 clients")
        client.send("still here")
        assert client.recv(timeout=10) == "still here"
        relay.signal(number)
        assert relay.when_exited() == -number
        relay.check_quiet()
        assert close_code(client) is None


def test_two_signals_in_a_row_leave_no_traceback(program: str, echo_port: int) -> None:
    with Relay(program, "--drain-try-seconds", "0.2") as relay, agent_of(program, relay, echo_port):
        for _ in range(2):
            os.kill(relay.pid, signal.SIGTERM)
        assert relay.when_exited() in (0, -signal.SIGTERM)
        relay.check_quiet()


@pytest.mark.parametrize("program", ["twistd", "seance"])
def test_an_ignored_sigint_stays_ignored(program: str) -> None:
    """A shell without job control starts background jobs with SIGINT ignored."""
    with Relay(program, prefix=["sh", "-c", 'trap "" INT; exec "$@"', "sh"]) as relay:
        relay.signal(signal.SIGINT)
        time.sleep(0.2)  # a handler would run in the reactor's next turn
        with connect(f"ws://127.0.0.1:{relay.port}/agent?room={ROOM}", proxy=None):
            relay.when_line(f"An agent serves room {ROOM}")
        relay.signal(signal.SIGTERM)
        assert relay.when_exited() == 0
        assert "SIGINT" not in relay.output
        relay.check_quiet()


def test_a_relay_stops_while_agents_connect(program: str) -> None:
    """The request heads of two agents are incomplete."""
    with Relay(program) as relay, contextlib.ExitStack() as stack:
        agents = [stack.enter_context(socket.create_connection(("127.0.0.1", relay.port))) for _ in range(2)]
        for agent in agents:
            agent.sendall(b"GET /agent?room=room HTTP/1.1\r\nHost: h\r\n")
        with socket.create_connection(("127.0.0.1", relay.port)) as probe:
            probe.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            assert probe.recv(100).startswith(b"HTTP/1.1 200 ")
        relay.signal(signal.SIGTERM)
        assert relay.when_exited() == 0
        relay.check_quiet()


@pytest.mark.parametrize("number", SIGNALS)
def test_an_agent_stops_while_it_connects(program: str, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        argv = command(program, "agent", "--room", ROOM, "--relay", url)
        with Process(argv, name="agent", env=environment()) as agent:
            agent.when_line("Connecting to relay")
            agent.signal(number)
            assert agent.when_exited() == 0
            agent.check_quiet()


def test_an_agent_stops_while_it_waits_for_its_next_attempt(program: str) -> None:
    argv = command(program, "agent", "--room", ROOM, "--relay", "ws://127.0.0.1:1")
    with Process(argv, name="agent", env=environment()) as agent:
        agent.when_line("Next attempt")
        agent.signal(signal.SIGTERM)
        assert agent.when_exited() == 0
        agent.check_quiet()


def test_an_agent_stops_while_its_relay_drains(program: str, echo_port: int) -> None:
    patient = ("--drain-seconds", "100", "--drain-try-seconds", "20")
    with (
        Relay(program, *patient) as relay,
        agent_of(program, relay, echo_port) as agent,
        relay.connected() as client,
    ):
        relay.signal(signal.SIGTERM)
        agent.when_line("The relay is going to stop")
        agent.signal(signal.SIGTERM)
        assert close_code(client) == 1012
        assert agent.when_exited() == 0
        assert relay.when_exited() == 0
        relay.check_quiet()


def test_an_agent_moves_to_the_relay_that_takes_over_the_port(program: str, echo_port: int) -> None:
    """The new process can listen as soon as the old one has closed its port, before the old one ends."""
    with Relay(program) as old, agent_of(program, old, echo_port) as agent, old.connected() as client:
        old.signal(signal.SIGTERM)
        old.when_line("Draining")
        listen = f"tcp:{old.port}:interface=127.0.0.1"
        with RelayProcess("--drain-try-seconds", "0.2", listen=listen) as new:
            agent.when_line("Connected to relay")
            assert close_code(client) == 1012
            assert old.when_exited() == 0
            with connect(f"ws://127.0.0.1:{new.port}/c/{ROOM}", proxy=None) as again:
                again.send("hello")
                assert again.recv(timeout=10) == "hello"
        old.check_quiet()


def test_the_previous_handlers_are_restored() -> None:
    from twisted.internet import reactor

    before = [signal.getsignal(number) for number in SIGNALS]
    service = MultiService()
    StopOnSignal(reactor).setServiceParent(service)
    service.startService()
    assert [signal.getsignal(number) for number in SIGNALS] != before
    service.stopService()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_in_another_thread_the_handlers_stay_unchanged() -> None:
    from twisted.internet import reactor

    before = [signal.getsignal(number) for number in SIGNALS]
    service = StopOnSignal(reactor)
    thread = threading.Thread(target=service.startService)
    thread.start()
    until("it has started", lambda: not thread.is_alive())
    assert [signal.getsignal(number) for number in SIGNALS] == before
    service.stopService()
