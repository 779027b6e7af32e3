"""Relays and agents of several implementations as processes, and a local server for them.

``ours`` is twistd with our plugins; ``go`` is ``tests/go/relay`` and ``tests/go/agent``; ``yardstick`` is
another pair of Go programs with a load generator, which some machines have beside the checkout.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.built import built_with, go_program
from tests.processes import AgentProcess, Process, free_port, running_process, running_relay, until
from tests.tools import ROOT, require

__all__ = [
    "YARDSTICK",
    "LocalAddress",
    "Tunnel",
    "agent_of",
    "client_url",
    "local_server",
    "relay_of",
    "status_of",
    "yardstick",
]


def _yardstick_folder() -> Path | None:
    place = Path(os.environ.get("SEANCE_YARDSTICK") or ROOT.parent / "shared" / "yardstick")
    return place if (place / "build.sh").exists() else None


YARDSTICK = _yardstick_folder()
"""The folder of the yardstick, or None: then the tests that need it are skipped."""


def yardstick(name: str) -> str:
    """Return the path of ``relay``, ``agent`` or ``load`` of the yardstick."""
    if YARDSTICK is None:
        pytest.skip("needs the yardstick: set SEANCE_YARDSTICK to its folder")
    require("go")
    return str(built_with(YARDSTICK, ["sh", "build.sh", "{into}"]) / name)


def client_url(relay_url: str, room: str) -> str:
    """Return a client URL in the form that every relay supports."""
    return f"{relay_url}/client?room={room}"


@contextlib.contextmanager
def relay_of(make: str, *, port: int = 0) -> Iterator[str]:
    """Run a relay of this implementation for a ``with`` block; yield its URL."""
    if make == "ours":
        listen = f"tcp:{port}:interface=127.0.0.1"
        with running_relay(listen=listen) as relay:
            yield relay.url
    elif make == "go":
        argv = [str(go_program("relay")), "-listen", f"127.0.0.1:{port}"]
        with running_process(argv, name="go relay", ready=r"starting on port \d+") as process:
            found = re.search(r"starting on port (\d+)", process.output)
            assert found is not None
            yield f"ws://127.0.0.1:{found[1]}"
            check_go(process)
    else:
        port = port or free_port()
        with Process([yardstick("relay"), "-addr", f"127.0.0.1:{port}"], name="yardstick relay") as process:
            until("the relay listens", lambda: _accepts(port))
            yield f"ws://127.0.0.1:{port}"
            check_go(process)


@contextlib.contextmanager
def agent_of(make: str, relay_url: str, room: str, local_port: int) -> Iterator[Process]:
    """Run an agent of this implementation; enter the block when the relay sends clients to it."""
    local = f"127.0.0.1:{local_port}"
    if make == "ours":
        process: Process = AgentProcess(room, "--relay", relay_url, "--local", local)
    elif make == "go":
        argv = [str(go_program("agent")), "-relay", relay_url, "-room", room, "-local", local]
        process = Process(argv, name="go agent")
    else:
        argv = [yardstick("agent"), "-url", f"{relay_url}/agent?room={room}", "-local", local]
        process = Process(argv, name="yardstick agent")
    with process:
        url = client_url(relay_url, room)
        until(f"{process.name} has its room", lambda: status_of(url) != 404)
        yield process
        check_go(process)
    process.check_quiet()


def check_go(process: Process) -> None:
    """Fail if the process ended early or panicked."""
    assert process.exit_code in (None, -9), f"{process.name} ended:\n{process.output}"


def status_of(url: str) -> int:
    """Return the HTTP status of an upgrade; after a 101 the connection is closed."""
    try:
        with connect(url, proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class LocalAddress:
    """A WebSocket echo server, in threads of the test process.

    It supports the subprotocol ``echo``; the text ``close CODE REASON`` makes it close with these values.
    """

    def __init__(self) -> None:
        self._clients: set[ServerConnection] = set()
        self._server = serve(self._echo, "127.0.0.1", 0, select_subprotocol=self._choose, max_size=None)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def client_count(self) -> int:
        return len(self._clients)

    def close_all(self) -> None:
        """Drop every client, for agents that do not report closed clients."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):  # it has ended already
                client.socket.shutdown(socket.SHUT_RDWR)

    def _choose(self, client: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return Subprotocol("echo") if "echo" in offered else None

    def _echo(self, client: ServerConnection) -> None:
        self._clients.add(client)
        try:
            for message in client:
                if isinstance(message, str) and message.startswith("close "):
                    _, code, reason = message.split(maxsplit=2)
                    client.close(int(code), reason)
                else:
                    client.send(message)
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()


@contextlib.contextmanager
def local_server() -> Iterator[LocalAddress]:
    """Run a local server for a ``with`` block."""
    server = LocalAddress()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A relay and an agent of given implementations, with a local server."""

    relay_url: str
    room: str
    local: LocalAddress

    @property
    def client_url(self) -> str:
        return client_url(self.relay_url, self.room)
