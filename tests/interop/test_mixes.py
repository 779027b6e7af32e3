"""Our relay with foreign agents, and our agent with foreign relays, as processes.

The foreign ones are written in Go with hashicorp/yamux and gorilla/websocket, as one would write them from
the protocol description. They negotiate nothing, so the tests also show what a plain peer sees of us.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.interop.mixes import (
    Tunnel,
    agent_of,
    client_url,
    local_server,
    relay_of,
    status_of,
    yardstick,
)
from tests.processes import Process, free_port, until

pytestmark = pytest.mark.slow

FOREIGN = ["go", "yardstick"]
MIXES = [("ours", make) for make in FOREIGN] + [(make, "ours") for make in FOREIGN]
KIB = 1024
MIB = 1024 * KIB


def dial(url: str, **options: Any) -> ClientConnection:
    client: ClientConnection = connect(url, proxy=None, max_size=None, **options)
    return client


@pytest.fixture(scope="module", params=MIXES, ids=["_relay-".join(mix) + "_agent" for mix in MIXES])
def tunnel(request: pytest.FixtureRequest) -> Iterator[Tunnel]:
    relay_make, agent_make = request.param
    with (
        local_server() as local,
        relay_of(relay_make) as relay_url,
        agent_of(agent_make, relay_url, "mixed", local.port),
    ):
        yield Tunnel(relay_url, "mixed", local)


def test_messages_are_echoed_unchanged(tunnel: Tunnel) -> None:
    with dial(tunnel.client_url) as client:
        for message in ("séance", b"\x00\xff", "", b"x" * 125, b"x" * 126, "y" * 70_000):
            client.send(message)
            assert client.recv(timeout=15) == message


def test_subprotocol_and_close_code_come_from_the_local_server(tunnel: Tunnel) -> None:
    with dial(tunnel.client_url, subprotocols=["other", "echo"]) as client:
        assert client.subprotocol == "echo"
        client.send("close 4321 enough of it")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=15)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough of it")


def test_twenty_concurrent_clients_are_separate(tunnel: Tunnel) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(tunnel.client_url)) for _ in range(20)]
        for round_number in range(10):
            for number, client in enumerate(clients):
                client.send(f"{number} {round_number}")
        for round_number in range(10):
            for number, client in enumerate(clients):
                assert client.recv(timeout=15) == f"{number} {round_number}"


def test_message_of_five_megabytes_arrives_whole(tunnel: Tunnel) -> None:
    message = random.Random(5).randbytes(5 * MIB)
    with dial(tunnel.client_url, compression=None) as client:
        client.send(message)
        assert client.recv(timeout=15) == message


def test_local_server_sees_a_client_leave(tunnel: Tunnel) -> None:
    until("nobody is there", lambda: tunnel.local.client_count == 0)
    with dial(tunnel.client_url) as client:
        client.send("hello")
        client.recv(timeout=15)
        assert tunnel.local.client_count == 1
        client.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake
        until("the local server has lost its client", lambda: tunnel.local.client_count == 0)


@pytest.mark.slow
def test_sixty_four_megabytes_are_echoed(tunnel: Tunnel) -> None:
    """Sent without waiting for the answers: both directions are full most of the time."""
    chance, count = random.Random(64), 256
    messages = [chance.randbytes(256 * KIB) for _ in range(8)]

    async def bulk() -> bool:
        # Not the threaded client: it cannot receive while its send blocks.
        async with async_connect(tunnel.client_url, proxy=None, max_size=None, compression=None) as client:

            async def send_all() -> None:
                for number in range(count):
                    await client.send(messages[number % 8])

            sending = asyncio.create_task(send_all())
            answers = [await asyncio.wait_for(client.recv(), 60) for _ in range(count)]
            await sending
        return all(answer == messages[number % 8] for number, answer in enumerate(answers))

    with ThreadPoolExecutor(1) as another_thread:
        assert another_thread.submit(asyncio.run, bulk()).result()


@pytest.mark.parametrize(("relay_make", "agent_make"), MIXES)
def test_dead_local_server_gives_502(relay_make: str, agent_make: str) -> None:
    with relay_of(relay_make) as relay_url, agent_of(agent_make, relay_url, "dead", free_port()):
        assert status_of(client_url(relay_url, "dead")) == 502


@pytest.mark.parametrize("make", FOREIGN)
def test_room_of_a_dead_foreign_agent_is_free_again(make: str) -> None:
    with local_server() as local, relay_of("ours") as relay_url:
        url = client_url(relay_url, "left")
        with agent_of(make, relay_url, "left", local.port) as agent, dial(url) as client:
            agent.kill()
            with pytest.raises(ConnectionClosed):
                client.recv(timeout=15)
        with agent_of(make, relay_url, "left", local.port), dial(url) as client:
            client.send("again")
            assert client.recv(timeout=15) == "again"


@pytest.mark.parametrize("make", FOREIGN)
def test_our_agent_reconnects_to_a_foreign_relay(make: str) -> None:
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(local_server())
        first = contextlib.ExitStack()
        with first:
            relay_url = first.enter_context(relay_of(make))
            stack.enter_context(agent_of("ours", relay_url, "back", local.port))
        port = int(relay_url.rpartition(":")[2])
        stack.enter_context(relay_of(make, port=port))
        url = client_url(relay_url, "back")
        until("the agent is there again", lambda: status_of(url) != 404, deadline_seconds=30)
        with dial(url) as client:
            client.send("again")
            assert client.recv(timeout=15) == "again"


def finished(argv: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.mark.parametrize("mix", [mix for mix in MIXES if "yardstick" in mix], ids="_".join)
@pytest.mark.parametrize(
    "load",
    [
        pytest.param("-mode echo -n 20 -m 20 -s 64", id="echo"),
        pytest.param("-mode fan -n 20 -m 10 -s 128", id="fan"),
        pytest.param("-mode flood -n 8 -m 500 -s 64", id="flood"),
        pytest.param("-mode flood -n 4 -m 64 -s 262144", id="bulk", marks=pytest.mark.slow),
    ],
)
def test_yardstick_load_succeeds(mix: tuple[str, str], load: str) -> None:
    """The load generator fails if any message does not return unchanged.

    In ``fan`` it may also wait forever, even without a tunnel: its server counts a client only after the 101
    was sent, and on a busy machine the first broadcast may come earlier. Then it is started again.
    """
    port = free_port()
    server = Process([yardstick("load"), "-mode", "server", "-addr", f"127.0.0.1:{port}"], name="load server")
    with (
        server,
        relay_of(mix[0]) as relay_url,
        agent_of(mix[1], relay_url, "test-room", port),
    ):
        until("the local server is up", lambda: status_of(client_url(relay_url, "test-room")) == 101)
        argv = [yardstick("load"), *load.split(), "-url", client_url(relay_url, "test-room")]
        try:
            result = finished(argv, 15 if "fan" in argv else 100)
        except subprocess.TimeoutExpired:
            assert "fan" in argv
            result = finished(argv, 60)
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
        assert "msgs/s=" in result.stdout
