"""Ends of connections between real processes: no last message is lost, and a refusal is not a reset."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import Tunnel
from tests.processes import free_port, running_agent, running_node, running_relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import TunnelMaker
    from tests.e2e.peers import LocalAddress, Peer
    from tests.processes import Process, RelayProcess

SECONDS = 10
EDIT = "the last edit before the reset"
RESET = struct.pack("ii", 1, 0)


def dial(relay: RelayProcess, target: str, more: bytes = b"") -> socket.socket:
    """Connect a raw client that sends an upgrade request, followed by ``more``."""
    client = socket.create_connection(("127.0.0.1", relay.port), SECONDS)
    head = f"GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    client.sendall(head.encode() + more)
    return client


def rest_of(client: socket.socket) -> bytes:
    """Read until the end of data or a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65_536):
            received += more
    return received


@pytest.fixture(scope="module")
def refusing() -> Iterator[tuple[RelayProcess, Process]]:
    """A relay, an agent, and a document server in Node that refuses every client."""
    port = free_port()
    with (
        running_node("refusing_server.mjs", ready="running", env={"PORT": str(port)}) as server,
        running_relay() as relay,
        running_agent(relay, "refusing", local_port=port),
    ):
        yield relay, server


FORMS = ["/c/refusing{path}?{query}", "/client{path}?room=refusing&{query}"]
MODES = ["end", "destroy", "wait", "malformed", "long", "broken"]


@pytest.mark.parametrize("form", FORMS, ids=["share link", "parameter"])
@pytest.mark.parametrize("status", [301, 401, 404, 503])
def test_a_local_server_that_refuses_sees_an_orderly_end(
    refusing: tuple[RelayProcess, Process], form: str, status: int
) -> None:
    relay, server = refusing
    for number, mode in enumerate(MODES):
        query = f"n={number}&form={FORMS.index(form)}"
        path = f"/{status}/{mode}/{FORMS.index(form)}"
        client = dial(relay, form.format(path=path, query=query), b"\x81\x80early")
        answer = rest_of(client)
        client.close()
        expected = 502 if mode in ("malformed", "long") else status
        assert answer.startswith(b"HTTP/1.1 %d " % expected), mode
        closed = server.when_line(re.escape(f'{{"closed":"{path}","hadError":') + r"(\w+)")
        assert closed[1] == "false", mode


@pytest.mark.parametrize("form", FORMS, ids=["share link", "parameter"])
@pytest.mark.parametrize(("how", "early"), [("close", b"\x81\x80early"), ("reset", b"")])
def test_a_local_server_that_refuses_a_disconnected_client_sees_an_orderly_end(
    refusing: tuple[RelayProcess, Process], form: str, how: str, early: bytes
) -> None:
    relay, server = refusing
    for mode in ("end", "destroy", "wait", "malformed"):
        path = f"/403/{mode}/{FORMS.index(form)}/{how}/{len(early)}"
        client = dial(relay, form.format(path=path, query="delay=200"), early)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        closed = server.when_line(re.escape(f'{{"closed":"{path}","hadError":') + r"(\w+)")
        assert closed[1] == "false", mode


@pytest.mark.slow
@pytest.mark.parametrize("form", ["/c/{room}", "/client/?room={room}"])
def test_an_edit_right_before_a_reset_arrives_during_a_large_download(
    node: Peer, y_websocket_server: LocalAddress, tunnel: TunnelMaker, form: str
) -> None:
    """y-websocket sends the edit immediately; without a tunnel, none of 20 was lost."""
    shared: Tunnel = tunnel(y_websocket_server.port)
    doc = f"large {form.split('{')[0].strip('/?=')}".replace(" ", "-").replace("/", "-").replace("?", "-")
    writer = f"writer {form}"
    node.open(writer, "y-websocket-3", shared.direct_url, doc)
    node.ask("insert", name=writer, text="x" * 6_000_000)
    node.when_synced(writer)
    reader = f"reader {form}"
    node.open(reader, "y-websocket-3", shared.direct_url, doc)
    node.ask("when_length", name=reader, length=6_000_000)
    assert shared.relay is not None
    base = f"{shared.relay.url}{form.format(room=shared.room)}"
    for number in range(20):
        name, text = f"guest {form} {number}", f"[{EDIT} {number}]"
        node.open(name, "y-websocket-3", base, doc)
        node.ask("insert_and_cut", name=name, text=text)
        node.ask("when_text", name=reader, part=text, seconds=SECONDS)
        node.ask("leave", name=name)
    for name in (writer, reader):
        node.ask("leave", name=name)
