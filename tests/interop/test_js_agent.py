"""``docs/examples/agent.mjs``, the example agent in JavaScript, with our relay.

Clients and local servers are raw sockets where a test is about ends and back-pressure.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.auth.tokens import claims, secret_key, sign, write_jwks
from tests.docs.pages import DOCS
from tests.interop.mixes import LocalAddress, client_url, local_server, status_of
from tests.interop.scripted import (
    TIMEOUT_SECONDS,
    RawLocal,
    ScriptedRelay,
    read_head,
    read_to_the_end,
    reset,
)
from tests.processes import Process, RelayProcess, free_port, node_modules, running_relay, until
from tests.tools import require
from tests.yamux.frame_bytes import (
    ACK,
    DATA,
    GO_AWAY,
    SYN,
    WINDOW,
    data,
    frame,
    window,
)

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
KEY = b"MDEyMzQ1Njc4OWFiY2RlZg=="
PATIENT = ("--drain-seconds", "120", "--drain-try-seconds", "30", "--drain-spread-seconds", "1")
"""A relay that stops gives its agents the time that a new process needs to start on a busy machine."""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy beside the packages of the test peers, which include its only dependency, ``ws``."""
    require("node", "npm")
    folder = tmp_path_factory.mktemp("js-agent")
    (folder / "node_modules").symlink_to(node_modules())
    return Path(shutil.copy(DOCS / "examples" / "agent.mjs", folder))


class Agents:
    """Starts and stops agents."""

    def __init__(self, script: Path) -> None:
        self._script = script
        self._stack = contextlib.ExitStack()

    def start(self, relay_url: str, local_port: int, room: str = "js", **env: str) -> Process:
        argv = ["node", str(self._script), relay_url, room, f"127.0.0.1:{local_port}"]
        return self._stack.enter_context(Process(argv, name="agent.mjs", env=env))

    def end(self) -> None:
        self._stack.close()


@pytest.fixture
def agents(script: Path) -> Iterator[Agents]:
    agents = Agents(script)
    yield agents
    agents.end()


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    with running_relay() as relay:
        yield relay


@pytest.fixture
def local() -> Iterator[LocalAddress]:
    with local_server() as local:
        yield local


@pytest.fixture
def raw_local() -> Iterator[RawLocal]:
    raw = RawLocal()
    yield raw
    raw.close()


@contextlib.contextmanager
def joined(relay: RelayProcess, raw_local: RawLocal) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and its connection at the local server, both after the 101."""
    with socket.create_connection(("127.0.0.1", relay.port)) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.sendall(
            b"GET /client?room=js HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
        )
        with raw_local.accept() as server:
            assert read_head(client).startswith(b"HTTP/1.1 101 ")
            yield client, server


def dial(url: str, **options: Any) -> ClientConnection:
    client: ClientConnection = connect(url, proxy=None, max_size=None, compression=None, **options)
    return client


def test_messages_are_echoed_unchanged(agents: Agents, relay: RelayProcess, local: LocalAddress) -> None:
    agents.start(relay.url, local.port).when_line("connected to")
    with dial(client_url(relay.url, "js")) as client:
        for message in ("séance", b"\x00\xff", "", b"x" * 125, b"x" * 126, "y" * 70_000):
            client.send(message)
            assert client.recv(timeout=15) == message
        client.send("close 4321 enough of it")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=15)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough of it")


def test_message_of_five_megabytes_arrives_whole(
    agents: Agents, relay: RelayProcess, local: LocalAddress
) -> None:
    agents.start(relay.url, local.port).when_line("connected to")
    message = random.Random(5).randbytes(5 * MIB)
    with dial(client_url(relay.url, "js")) as client:
        client.send(message)
        assert client.recv(timeout=60) == message


def test_three_hundred_concurrent_clients_are_separate(
    agents: Agents, relay: RelayProcess, local: LocalAddress
) -> None:
    """A plain agent would be limited to 256: this one negotiates link control."""
    agents.start(relay.url, local.port).when_line("connected to")

    def enter(number: int) -> ClientConnection:
        return dial(client_url(relay.url, "js"), open_timeout=60)

    with ThreadPoolExecutor(50) as threads, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client) for client in threads.map(enter, range(300))]
        for round_number in range(3):
            for number, client in enumerate(clients):
                client.send(f"{number} {round_number}")
        for round_number in range(3):
            for number, client in enumerate(clients):
                assert client.recv(timeout=15) == f"{number} {round_number}"
    until("the local server has no client", lambda: local.client_count == 0)


def test_server_can_send_after_the_clients_fin(
    agents: Agents, relay: RelayProcess, raw_local: RawLocal
) -> None:
    agents.start(relay.url, raw_local.port).when_line("connected to")
    text = random.Random(1).randbytes(MIB)
    with joined(relay, raw_local) as (client, server):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_to_the_end(server) == b"question"
        server.sendall(text)
        server.close()
        assert read_to_the_end(client) == text


def test_client_can_send_after_the_servers_fin(
    agents: Agents, relay: RelayProcess, raw_local: RawLocal
) -> None:
    agents.start(relay.url, raw_local.port).when_line("connected to")
    text = random.Random(2).randbytes(MIB)
    with joined(relay, raw_local) as (client, server):
        server.sendall(b"answer")
        server.shutdown(socket.SHUT_WR)
        assert read_to_the_end(client) == b"answer"
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        assert read_to_the_end(server) == text


def test_reset_of_the_client_is_a_reset_for_the_server(
    agents: Agents, relay: RelayProcess, raw_local: RawLocal
) -> None:
    agents.start(relay.url, raw_local.port).when_line("connected to")
    with joined(relay, raw_local) as (client, server):
        client.sendall(b"hello")
        assert server.recv(100) == b"hello"
        reset(client)
        with pytest.raises(ConnectionResetError):
            server.recv(100)


def test_reset_of_the_server_is_a_reset_for_the_client(
    agents: Agents, relay: RelayProcess, raw_local: RawLocal
) -> None:
    agents.start(relay.url, raw_local.port).when_line("connected to")
    with joined(relay, raw_local) as (client, server):
        server.sendall(b"hello")
        assert client.recv(100) == b"hello"
        reset(server)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def sent_before_it_blocks(connection: socket.socket, text: bytes) -> int:
    """Send until nothing could be sent for two seconds; return the number of bytes."""
    sent = 0
    connection.settimeout(2)
    with contextlib.suppress(TimeoutError):
        while sent < len(text):
            sent += connection.send(text[sent : sent + 65536])
    connection.settimeout(TIMEOUT_SECONDS)
    return sent


@pytest.mark.parametrize("slow", ["client", "server"])
def test_side_that_does_not_read_slows_only_its_own_peer(
    agents: Agents, relay: RelayProcess, raw_local: RawLocal, slow: str
) -> None:
    agent = agents.start(relay.url, raw_local.port)
    agent.when_line("connected to")
    text = random.Random(3).randbytes(32 * MIB)
    with joined(relay, raw_local) as (client, server):
        reading, writing = (client, server) if slow == "client" else (server, client)
        sent = sent_before_it_blocks(writing, text)
        assert sent < 24 * MIB, "a process on the path buffers all of it"
        with joined(relay, raw_local) as (second_client, second_server):
            second_client.sendall(b"ping")
            assert second_server.recv(100) == b"ping"
            second_server.sendall(b"pong")
            assert second_client.recv(100) == b"pong"
        # Then it closes while most data is in flight: nothing may overtake the queued data.
        rest = threading.Thread(
            target=lambda: (writing.sendall(text[sent:]), writing.shutdown(socket.SHUT_WR))
        )
        rest.start()
        received = read_to_the_end(reading)
        rest.join()
        assert hashlib.sha256(received).digest() == hashlib.sha256(text).digest()
        reading.shutdown(socket.SHUT_WR)
        assert writing.recv(1) == b""
    assert agent.exit_code is None, agent.output


def test_data_before_a_reset_arrives_before_it(
    agents: Agents, relay: RelayProcess, raw_local: RawLocal
) -> None:
    """The client's window is closed, so the bytes wait in the agent."""
    agents.start(relay.url, raw_local.port).when_line("connected to")
    text = random.Random(4).randbytes(200_000)
    with joined(relay, raw_local) as (client, server):
        server.sendall(text)
        time.sleep(0.3)  # wait until the agent has read it: a reset discards data in the server's kernel
        reset(server)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                received += piece
        assert received == text


def test_unreachable_local_server_gives_502_until_it_listens(agents: Agents, relay: RelayProcess) -> None:
    port = free_port()
    agents.start(relay.url, port).when_line("connected to")
    for _ in range(3):
        assert status_of(client_url(relay.url, "js")) == 502
    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(TIMEOUT_SECONDS)
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            client.sendall(
                b"GET /client?room=js HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
            )
            listening.accept()[0].close()


def test_agent_reconnects_to_a_restarted_relay(agents: Agents, local: LocalAddress) -> None:
    port = free_port()
    listen = f"tcp:{port}:interface=127.0.0.1"
    with RelayProcess(listen=listen) as first:
        agent = agents.start(first.url, local.port)
        agent.when_line("connected to")
        with dial(client_url(first.url, "js")) as client:
            first.kill()
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=15)
    agent.when_line("next attempt in")
    with running_relay(listen=listen) as second:
        agent.when_line("connected to", deadline_seconds=30)
        with dial(client_url(second.url, "js")) as client:
            client.send("again")
            assert client.recv(timeout=15) == "again"


def test_agent_moves_to_the_relay_that_takes_the_port(agents: Agents, local: LocalAddress) -> None:
    """The old relay sends ``drain``, and keeps its client until its turn to stop."""
    port = free_port()
    listen = f"tcp:{port}:interface=127.0.0.1"
    with RelayProcess(*PATIENT, listen=listen) as first:
        agent = agents.start(first.url, local.port)
        agent.when_line("connected to")
        with dial(client_url(first.url, "js")) as client:
            client.send("hello")
            assert client.recv(timeout=15) == "hello"
            first.signal(signal.SIGTERM)
            with running_relay(listen=listen) as second:
                agent.when_line("moved to another relay", deadline_seconds=30)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(timeout=15)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
                assert first.when_exited(deadline_seconds=30) == 0
                with dial(client_url(second.url, "js")) as client_of_second:
                    client_of_second.send("again")
                    assert client_of_second.recv(timeout=15) == "again"
                assert agent.exit_code is None, agent.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_agent_closes_its_clients_in_order(
    agents: Agents, relay: RelayProcess, local: LocalAddress, number: signal.Signals
) -> None:
    agent = agents.start(relay.url, local.port)
    agent.when_line("connected to")
    with dial(client_url(relay.url, "js")) as client:
        client.send("hello")
        assert client.recv(timeout=15) == "hello"
        agent.signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=15)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert agent.when_exited() == 0
    assert "stopped" in agent.output
    until("the local server has no client", lambda: local.client_count == 0)


def test_next_agent_gets_the_room_of_a_killed_one(
    agents: Agents, relay: RelayProcess, local: LocalAddress
) -> None:
    """The second agent gets 409 while the first one is connected, and retries."""
    first = agents.start(relay.url, local.port)
    first.when_line("connected to")
    second = agents.start(relay.url, local.port)
    second.when_line("the relay answered 409: .*; next attempt in")
    first.kill()
    second.when_line("connected to", deadline_seconds=30)
    with dial(client_url(relay.url, "js")) as client:
        client.send("again")
        assert client.recv(timeout=15) == "again"


def test_unreachable_relay_is_dialled_with_backoff(agents: Agents) -> None:
    agent = agents.start(f"ws://127.0.0.1:{free_port()}", 1)
    for _ in range(3):
        agent.when_line("ECONNREFUSED.*; next attempt in")
    agent.signal(signal.SIGTERM)
    assert agent.when_exited() == 0


def token(seconds: int) -> str:
    """A token for the agent."""
    said = claims(room="js", role="agent", sub="ada", exp=int(time.time()) + seconds)
    return sign(said, material=secret_key().signing, algorithm="HS256", kid=secret_key().key_id)


def test_token_is_read_for_each_attempt(agents: Agents, tmp_path: Path) -> None:
    keys = write_jwks(tmp_path / "keys", secret_key())
    file = tmp_path / "token"
    file.write_text("wrong\n")
    with RelayProcess("--auth-key", str(keys)) as relay:
        agent = agents.start(relay.url, 1, SEANCE_TOKEN_FILE=str(file))
        agent.when_line("the relay answered 401: .*; next attempt in")
        file.write_text(token(600) + "\n")
        agent.when_line("connected to")
        file.write_text(token(1200) + "\n")
        relay.when_line("has renewed its token")
        agent.signal(signal.SIGTERM)
        assert agent.when_exited() == 0


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"\x01" + b"\0" * 11, "bad_version"),
        (frame(9, 0, 0, 0), "bad_type"),
        (window(2, SYN) + frame(DATA, 0, 2, 1 << 20), "window_exceeded"),
        (window(2, SYN) + data(2, b"x" * 200_000) * 2, "window_exceeded"),
    ],
)
def test_relay_that_breaks_yamux_gets_the_reason(agents: Agents, said: bytes, word: str) -> None:
    with ScriptedRelay([said]) as relay, socket.create_server(("127.0.0.1", 0)) as local:
        agent = agents.start(relay.url, local.getsockname()[1])
        until("the agent has closed the carrier", lambda: relay.closed is not None)
        agent.when_line("next attempt in")
        agent.kill()
    assert relay.closed == (4400, word)
    assert (relay.frames[-1].kind, relay.frames[-1].length) == (GO_AWAY, 1)


def test_frames_may_be_cut_anywhere(agents: Agents, raw_local: RawLocal) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
    said = window(2, SYN) + data(2, head[:50]) + data(2, head[50:]) + data(2, b"hello" * 1000)
    with ScriptedRelay([said[at : at + 7] for at in range(0, len(said), 7)]) as relay:
        agent = agents.start(relay.url, raw_local.port)
        with raw_local.accept() as server:
            received = b""
            while len(received) < 5000:
                received += server.recv(5000)
            assert received == b"hello" * 1000
            server.sendall(b"x" * 100_000)
            until("it is back", lambda: sum(len(one.body) for one in relay.frames) > 100_000)
        agent.kill()
    assert (relay.frames[0].kind, relay.frames[0].flags) == (WINDOW, ACK)
    assert max(len(one.body) for one in relay.frames) <= 16 * 1024


@pytest.mark.parametrize(
    "text", ["no JSON", "null", "[1]", '{"t": "unknown"}', '{"t": "drain", "in": "x", "try": null}']
)
def test_text_message_of_the_relay_does_not_end_the_agent(agents: Agents, text: str) -> None:
    with ScriptedRelay([text]) as relay:
        agent = agents.start(relay.url, 1)
        agent.when_line("connected to")
        if text == "no JSON":
            until("the agent has closed the carrier", lambda: relay.closed is not None)
            agent.when_line("next attempt in")
            assert relay.closed == (1002, "a text message must be JSON")
        time.sleep(0.3)
        assert agent.exit_code is None, agent.output
        agent.kill()


@pytest.mark.parametrize("hangs", [True, False])
def test_refusal_without_its_body_leads_to_another_attempt(agents: Agents, hangs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as relay:
        relay.settimeout(TIMEOUT_SECONDS)
        agent = agents.start(f"ws://127.0.0.1:{relay.getsockname()[1]}", 1)
        first, _ = relay.accept()
        with first:
            read_head(first)
            first.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nLater")
            if hangs:
                relay.accept()[0].close()
        if not hangs:
            relay.accept()[0].close()
        agent.when_line("the relay answered 503: Later; next attempt in")
        agent.kill()
