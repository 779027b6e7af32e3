"""The manual test of the original program: default ports, ``wscat``, type, see the echo.

::

    node echo_server.mjs                                   # an echo server on 1234
    twistd -n seance-relay
    twistd -n seance-agent --room test-room
    wscat -c "ws://localhost:8080/client?room=test-room"
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.processes import (
    DEADLINE_SECONDS,
    PEERS,
    AgentProcess,
    Process,
    RelayProcess,
    node_modules,
    running_node,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "ws://localhost:8080/client?room=test-room"


def check_free(port: int) -> None:
    """The test uses the default ports, so another program on one of them prevents it."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            probe.settimeout(DEADLINE_SECONDS)
            assert probe.connect_ex((host, port)) != 0, (
                f"another program listens on port {port}, which this test needs: stop it and run again"
            )


class Typist:
    """``wscat`` on a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        master, slave = pty.openpty()
        self._terminal = master
        self._seen = b""
        os.set_blocking(master, False)
        argv = ["node", str(PEERS / "node_modules/wscat/bin/wscat"), "--no-color", *arguments]
        self._child = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=os.environ
        )
        os.close(slave)

    def type(self, line: str) -> None:
        os.write(self._terminal, line.encode() + b"\r")

    def when_shown(self, text: str) -> None:
        until(f"wscat shows {text!r}", lambda: text.encode() in self._screen())

    def when_exited(self) -> int:
        until("wscat exits", lambda: bool(self._screen()) and self._child.poll() is not None)
        return self._child.returncode

    def _screen(self) -> bytes:
        try:
            self._seen += os.read(self._terminal, 65536)
        except OSError as error:
            # A pseudo-terminal reports EIO when its last program has exited.
            if error.errno not in (errno.EAGAIN, errno.EIO):
                raise
        return self._seen

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._terminal)


@pytest.fixture
def echo_server() -> Iterator[Process]:
    check_free(1234)
    with running_node("echo_server.mjs", ready="on port 1234") as server:
        yield server


@pytest.mark.slow
@pytest.mark.alone
def test_text_typed_into_wscat_is_echoed(echo_server: Process) -> None:
    check_free(8080)
    node_modules()
    with RelayProcess(listen="") as relay:
        assert "🔌 Tunnel Relay Server starting on port 8080" in relay.output
        relay.when_line(r"Agent endpoint: ws://localhost:8080/agent\?room=<room-id>")
        relay.when_line(r"Client endpoint: ws://localhost:8080/client\?room=<room-id>")
        with AgentProcess("test-room") as agent:
            agent.when_line(r"\[Agent\] Connecting to relay: ")
            agent.when_line(r"\[Agent\] Connected to relay for room: test-room")
            agent.when_line(r"\[Agent\] Tunneling: localhost:1234 -> relay")
            with Typist("-c", URL) as wscat:
                wscat.when_shown("Connected (press CTRL+C to quit)")
                wscat.type("hello through the tunnel")
                wscat.when_shown("< hello through the tunnel")
                echo_server.kill()
                wscat.when_shown("Disconnected (code: 1006")
                wscat.when_exited()
        agent.check_quiet()
    relay.check_quiet()


@pytest.mark.slow
@pytest.mark.alone
def test_wscat_shows_that_the_room_has_no_agent() -> None:
    check_free(8080)
    node_modules()
    with RelayProcess(listen="") as relay, Typist("-c", URL) as wscat:
        wscat.when_shown("Unexpected server response: 404")
    relay.check_quiet()


def test_wscat_shows_the_echo_without_a_tunnel() -> None:
    """The control for the typing and reading of this file, on a free port."""
    with running_node("echo_server.mjs", ready="running at", env={"PORT": "0"}) as server:
        port = server.output.rsplit(" ", 1)[1]
        with Typist("-c", f"ws://127.0.0.1:{port}/") as wscat:
            wscat.when_shown("Connected (press CTRL+C to quit)")
            wscat.type("hello")
            wscat.when_shown("< hello")
