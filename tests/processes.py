"""Real processes for tests: start them, read their output, query the kernel about them, end them.

Tests start the same programs as users; fakes do not belong here. Tests under ``tests/e2e`` use the fixtures
of their ``conftest.py``. Any other test file may use the context managers directly::

    with running_relay() as relay, running_agent(relay, "my-room", local_port=1234) as agent:
        dial(relay.client_url("my-room"))

No test sleeps for a guessed time. A process is ready when it prints so: a thread reads its output line by
line, and a test waits for a line with a deadline that only a broken program misses. A process always ends
with its context. A relay or agent whose output has a traceback fails the test, because that is the only sign
of an error that Twisted logged and no code handled.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tests.canaries import tokens_in
from tests.tools import ROOT, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "DEADLINE_SECONDS",
    "PEERS",
    "AgentProcess",
    "Process",
    "RelayProcess",
    "environment",
    "free_port",
    "node_modules",
    "running_agent",
    "running_node",
    "running_process",
    "running_relay",
    "twistd",
    "until",
]

DEADLINE_SECONDS = 15.0
"""Time after which a waiting test counts the program as broken. It asserts no speed, and is below the 30 s
after which Yjs clients drop a silent connection.
"""

PEERS = ROOT / "tests" / "peers"
"""The Node project with the stock Yjs clients and servers."""

_TROUBLE = re.compile(r"Traceback \(most recent call last\)|Unhandled|Main loop terminated unexpectedly")


class Process:
    """A running program; its output is kept, line by line.

    Args:
        argv: The command; its first word is looked up on the PATH.
        name: Its name in failure messages.
        env: Added to the environment of the tests.
        cwd: Its working directory; a new temporary directory by default, never the checkout.
        stdin: ``subprocess.PIPE`` for a program with input, or a file descriptor.
        may_show_tokens: Whether the program prints tokens on purpose.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        may_show_tokens: bool = False,
    ) -> None:
        self.name = name
        self._may_show_tokens = may_show_tokens
        self._scratch = tempfile.TemporaryDirectory(prefix="seance-")
        self._news = threading.Condition()
        self._lines: list[str] = []
        self._read = 0
        self._child = subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd or self._scratch.name,
            env={**os.environ, **(env or {})},
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._keep_lines, daemon=True)
        self._reader.start()

    def _keep_lines(self) -> None:
        stdout = self._child.stdout
        assert stdout is not None
        for line in stdout:
            with self._news:
                self._lines.append(line.rstrip("\r\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def stdin(self) -> IO[str]:
        assert self._child.stdin is not None
        return self._child.stdin

    @property
    def exit_code(self) -> int | None:
        """None while it runs; a negative number is the signal that ended it."""
        return self._child.poll()

    @property
    def output(self) -> str:
        """All output so far."""
        with self._news:
            return "\n".join(self._lines)

    def when_line(self, pattern: str, *, deadline_seconds: float = DEADLINE_SECONDS) -> re.Match[str]:
        """Return the next line that contains ``pattern``; earlier lines count as read."""
        wanted = re.compile(pattern)
        end = time.monotonic() + deadline_seconds
        while True:
            with self._news:
                while self._read < len(self._lines):
                    self._read += 1
                    if found := wanted.search(self._lines[self._read - 1]):
                        return found
                left = end - time.monotonic()
                over = not self._reader.is_alive()
                if left > 0 and not over:
                    self._news.wait(min(left, 0.2))
                    continue
            why = f"ended with {self._child.poll()}" if over else f"ran for {deadline_seconds} s"
            msg = f"{self.name} {why} without saying {pattern!r}; it said:\n{self.output}"
            raise AssertionError(msg)

    def when_exited(self, *, deadline_seconds: float = DEADLINE_SECONDS) -> int:
        """Return its exit code, once it has ended and all its output is read."""
        try:
            code = self._child.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            msg = f"{self.name} still runs after {deadline_seconds} s; it said:\n{self.output}"
            raise AssertionError(msg) from None
        self._reader.join(deadline_seconds)
        return code

    def open_descriptors(self) -> dict[int, str]:
        """Return number and target of each of its open file descriptors."""
        found: dict[int, str] = {}
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[int(entry.name)] = str(entry.readlink())
        return found

    def resident_bytes(self) -> int:
        """Return its resident memory (RSS)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None, f"{self.name} has no memory: it has ended"
        return int(found[1]) * 1024

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; do nothing if the process has ended."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait until the kernel has closed its sockets."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> int:
        """Send SIGTERM, then SIGKILL if it has no effect; return the exit code."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._reader.join(DEADLINE_SECONDS)
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._scratch.cleanup()
        return self._child.returncode

    def check_quiet(self) -> None:
        """Fail if it logged a traceback or an unhandled error."""
        assert _TROUBLE.search(self.output) is None, f"{self.name} logged an error:\n{self.output}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if kind is None and not self._may_show_tokens:
            assert tokens_in(self.output) == [], f"{self.name} shows a token"


class RelayProcess(Process):
    """A relay on a port that the kernel chooses; ready when constructed."""

    def __init__(self, *options: str, listen: str = "tcp:0:interface=127.0.0.1") -> None:
        listening = ["--listen", listen] if listen else []
        argv = twistd("seance-relay", *listening, *options)
        super().__init__(argv, name="relay", env=environment())
        try:
            self.port = int(self.when_line(r"starting on port (\d+)")[1])
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def client_url(self, room: str) -> str:
        """Return the share link of a room, to which a provider may append its document."""
        return f"{self.url}/c/{room}"


class AgentProcess(Process):
    """An agent; ``when_connected()`` waits until the relay has accepted it."""

    def __init__(self, room: str, *options: str) -> None:
        self.room = room
        argv = twistd("seance-agent", "--room", room, *options)
        super().__init__(argv, name=f"agent of {room}", env=environment())

    def when_connected(self) -> None:
        """Read up to the line that reports the connection to the relay."""
        self.when_line(rf"\[Agent\] Connected to relay for room: {re.escape(self.room)}")


def twistd(plugin: str, *options: str) -> list[str]:
    """Return the command line of a twistd plugin, with the interpreter of the tests."""
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    return [sys.executable, "-c", code, "-n", plugin, *options]


_state = tempfile.TemporaryDirectory(prefix="seance-state-")
"""The folder of agents' keys: the same for all, as on a user's machine, but not the user's own."""


def environment() -> dict[str, str]:
    """Return the environment of processes under test.

    The checkout comes first on the path, so processes run the code that the tests import. The default admin
    port is off; a test that needs it sets it.
    """
    path = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "XDG_STATE_HOME": _state.name,
        "SEANCE_ADMIN": "none",
    }


@contextlib.contextmanager
def running_relay(*options: str, listen: str = "tcp:0:interface=127.0.0.1") -> Iterator[RelayProcess]:
    """Run a relay for a ``with`` block; fail if it logged an error."""
    with RelayProcess(*options, listen=listen) as relay:
        yield relay
    relay.check_quiet()


@contextlib.contextmanager
def running_agent(
    relay: RelayProcess, room: str, *options: str, local_port: int | None = None, local: str | None = None
) -> Iterator[AgentProcess]:
    """Run a connected agent for a ``with`` block; fail if it logged an error."""
    place = local if local is not None else f"127.0.0.1:{local_port}"
    with AgentProcess(room, "--relay", relay.url, "--local", place, *options) as agent:
        agent.when_connected()
        yield agent
    agent.check_quiet()


@contextlib.contextmanager
def running_process(
    argv: Sequence[str],
    *,
    name: str,
    ready: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Process]:
    """Run any program for a ``with`` block, from the line that shows that it is ready."""
    with Process(argv, name=name, env=env, cwd=cwd, stdin=stdin) as process:
        process.when_line(ready)
        yield process


@contextlib.contextmanager
def running_node(
    script: str,
    *arguments: str,
    ready: str,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Process]:
    """Run a script of ``tests/peers`` (or of a package in it) with Node; see ``node_modules``."""
    node_modules()
    argv = ["node", str(PEERS / script), *arguments]
    with running_process(argv, name=script, ready=ready, env=env, cwd=PEERS, stdin=stdin) as process:
        yield process


def node_modules() -> Path:
    """Return the installed packages of ``tests/peers``, as in its lock file.

    Skips the test without Node. The first caller installs; others of the same checkout wait.
    """
    require("node", "npm")
    modules = PEERS / "node_modules"
    stamp = modules / ".installed-from"
    with (PEERS / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = lock.read()
        if not stamp.exists() or stamp.read_bytes() != wanted:
            result = subprocess.run(["npm", "ci"], cwd=PEERS, capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"npm ci failed:\n{result.stdout}{result.stderr}"
            stamp.write_bytes(wanted)
    return modules


def free_port() -> int:
    """Return a port that was free a moment ago, for programs that cannot report a port that they choose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(what: str, holds: Callable[[], bool], *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
    """Call ``holds()`` until it is true; for conditions that only the kernel knows, such as descriptors."""
    end = time.monotonic() + deadline_seconds
    while not holds():
        assert time.monotonic() < end, f"after {deadline_seconds} s still not: {what}"
        time.sleep(0.01)
