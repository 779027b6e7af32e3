"""An agent of forty lines in JavaScript, around yamux-js 0.2.0, behind our relay.

It is the promise of the protocol: an agent in any language is a small loop around a yamux library. And it is
the pickiest peer that we know. yamux-js 0.2.0 reads no byte stream: a message that ends inside a frame, a
payload that rides on a SYN, or two flags in one frame would be lost without an error, so every test here
also shows that our relay says none of these. Known faults of its own, which no relay can mend: it never
sees FIN (so a client that vanishes without a WebSocket close keeps its local connection), a reset is not told
to the program, and nothing slows down a sender.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.built import built_with
from tests.interop.mixes import Tunnel, client_url, local_server, relay_of, status_of
from tests.processes import running_process, until
from tests.tools import require

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parent / "yamuxjs"
INSTALL = "cp agent.mjs package.json package-lock.json .npmrc {into} && cd {into} && npm ci"


@pytest.fixture(scope="module")
def tunnel() -> Iterator[Tunnel]:
    require("node", "npm")
    folder = built_with(SOURCE, ["sh", "-c", INSTALL])
    with local_server() as local, relay_of("ours") as relay_url:
        argv = ["node", str(folder / "agent.mjs"), relay_url, "from-js", "127.0.0.1", str(local.port)]
        with running_process(argv, name="yamux-js agent", ready="connected") as agent:
            url = client_url(relay_url, "from-js")
            until("the room has its agent", lambda: status_of(url) != 404)
            yield Tunnel(relay_url, "from-js", local)
            assert agent.exit_code is None, agent.output


def test_messages_come_back_as_they_were(tunnel: Tunnel) -> None:
    with connect(tunnel.client_url, proxy=None) as client:
        for message in ("séance", b"\x00\xff", "", b"x" * 125, b"x" * 126, "y" * 70_000):
            client.send(message)
            assert client.recv(timeout=15) == message


def test_message_of_two_megabytes_arrives_whole(tunnel: Tunnel) -> None:
    """Eight windows long: credit has to flow both ways, in frames that never straddle two messages."""
    message = random.Random(2).randbytes(2 * 1024 * 1024)
    with connect(tunnel.client_url, proxy=None, max_size=None, compression=None) as client:
        client.send(message)
        assert client.recv(timeout=15) == message


def test_thirty_clients_at_once_keep_apart(tunnel: Tunnel) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(tunnel.client_url, proxy=None)) for _ in range(30)]
        for round_number in range(10):
            for number, client in enumerate(clients):
                client.send(f"{number} {round_number}")
        for round_number in range(10):
            for number, client in enumerate(clients):
                assert client.recv(timeout=15) == f"{number} {round_number}"
    until("everybody has left the local server", lambda: tunnel.local.client_count == 0)


def test_local_server_that_closes_ends_the_client(tunnel: Tunnel) -> None:
    with connect(tunnel.client_url, proxy=None) as client:
        client.send("close 4321 enough of it")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=15)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough of it")


def test_client_that_vanishes_harms_nobody_else(tunnel: Tunnel) -> None:
    with connect(tunnel.client_url, proxy=None) as stays:
        with connect(tunnel.client_url, proxy=None) as vanishes:
            vanishes.send("hello")
            assert vanishes.recv(timeout=15) == "hello"
            vanishes.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake
        stays.send("still here")
        assert stays.recv(timeout=15) == "still here"
    tunnel.local.close_all()  # the agent has not told it that its client is gone
    until("the local server has no client", lambda: tunnel.local.client_count == 0)
