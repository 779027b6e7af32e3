"""The test's end of a process with Yjs clients (``tests/peers/peer.mjs`` and ``peer.py``).

A test reads as a script: open clients, edit, wait until they are equal. Requests are sent one at a time and
answered in order. An error in an answer fails the test with its message.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.processes import (
    DEADLINE_SECONDS,
    PEERS,
    Process,
    free_port,
    node_modules,
    running_node,
    running_process,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Asked", "LocalAddress", "Peer", "node_crowd", "node_peer", "python_peer"]


class Asked:
    """A process that answers requests, one JSON object per line."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asked = 0

    def ask(self, question: str, **rest: Any) -> Any:
        """Send a request and wait for its answer; the scripts of ``tests/peers`` define the requests.

        Requests that wait do so for at most ``seconds``, and answer with the ``ms`` that it took.
        """
        self._asked += 1
        rest.setdefault("seconds", DEADLINE_SECONDS)
        self._process.stdin.write(json.dumps({"id": self._asked, "do": question, **rest}) + "\n")
        self._process.stdin.flush()
        patience = rest["seconds"] + DEADLINE_SECONDS
        line = self._process.when_line(rf'^{{"id": ?{self._asked},', deadline_seconds=patience)
        answer = json.loads(line.string)
        assert "error" not in answer, f"{question} {rest}: {answer['error']}"
        return answer["ok"]


class Peer(Asked):
    """Stock Yjs clients in a separate process, each with a name."""

    def open(self, name: str, kind: str, url: str, doc: str, **options: Any) -> None:
        """Make a document and connect it; ``when_synced`` waits for the first synchronization."""
        self.ask("open", name=name, kind=kind, url=url, doc=doc, **options)

    def when_equal(self, *names: str) -> dict[str, Any]:
        """Wait until the documents of these clients have the same bytes; return that state."""
        answer: dict[str, Any] = self.ask("when_equal", names=names)
        return answer

    def when_synced(self, *names: str) -> None:
        """Wait until each of these clients reports that it is synchronized."""
        for name in names:
            self.ask("when_synced", name=name)


@contextlib.contextmanager
def node_peer() -> Iterator[Peer]:
    """Start clients of the kinds y-websocket-3, y-websocket-1 and hocuspocus."""
    with running_node("peer.mjs", ready='"ready":true', stdin=subprocess.PIPE) as process:
        yield Peer(process)


@contextlib.contextmanager
def node_crowd() -> Iterator[Asked]:
    """Start many identical WebSocket clients that send messages to an echo server."""
    with running_node("crowd.mjs", ready='"ready":true', stdin=subprocess.PIPE) as process:
        yield Asked(process)


@contextlib.contextmanager
def python_peer() -> Iterator[Peer]:
    """Start clients of the kind pycrdt."""
    argv = [sys.executable, str(PEERS / "peer.py")]
    ready = '"ready": true'
    with running_process(argv, name="peer.py", ready=ready, stdin=subprocess.PIPE) as process:
        yield Peer(process)


class LocalAddress:
    """A stock Yjs server that keeps its port over a restart; it ends with its context."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.port = free_port()
        self._process = self._start()

    def _start(self) -> Process:
        env = {"HOST": "127.0.0.1", "PORT": str(self.port)}
        if self.kind == "pycrdt":
            argv = [sys.executable, str(PEERS / "pycrdt_server.py")]
        else:
            node_modules()
            script = {
                "y-websocket": "node_modules/@y/websocket-server/src/server.js",
                "hocuspocus": "hocuspocus_server.mjs",
            }[self.kind]
            argv = ["node", str(PEERS / script)]
        process = Process(argv, name=f"{self.kind} server", env=env)
        process.when_line("unning")
        return process

    @property
    def url(self) -> str:
        """The URL for a client that connects without the tunnel."""
        return f"ws://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Send SIGKILL; documents in memory are lost."""
        self._process.kill()

    def restart(self) -> None:
        """Start again on the same port, without documents."""
        self._process.stop()
        self._process = self._start()

    def __enter__(self) -> LocalAddress:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.stop()
