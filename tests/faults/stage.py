"""A relay, a cutting proxy, an agent and numbered clients; relay and agent are real processes.

Tests use ``Stage`` as a context, and break its parts by name (``stage.cutter.reset()``,
``stage.agent.kill()``). At its end relay and agent must have logged no error, and must have as many
descriptors as before the clients connected and about as much memory; the local server must have no
connection.
"""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.certificates import Authority
from tests.faults.conversations import Numbered
from tests.faults.cutter import Cutter
from tests.faults.figures import Stopwatch
from tests.faults.loops import Loop
from tests.processes import AgentProcess, Process, RelayProcess, free_port, until

__all__ = ["RESTORE_SECONDS", "ROOM", "SecureStage", "Stage", "frozen", "settles"]

ROOM = "stage"
MIB = 1024 * 1024

SLACK_BYTES = 24 * MIB
"""Allowed growth of a process after its clients have disconnected: Python returns little memory to the
system. The first clients of a new process cost a few MiB of code and caches.
"""

RESTORE_SECONDS = 30.0
"""Time for the next message after a fault before the tunnel counts as broken. No speed is asserted;
browsers give up after this time.
"""


class Stage:
    """Everything between the clients and the local server; each part can be broken.

    Args:
        clients: Number of clients.
        every_seconds: Interval between messages of a client.
        relay_options: Command line options of the relay.
        agent_options: Command line options of the agent.
        slack_bytes: Allowed growth of relay and agent after the clients have disconnected.
    """

    def __init__(
        self,
        *,
        clients: int = 20,
        every_seconds: float = 0.1,
        relay_options: tuple[str, ...] = (),
        agent_options: tuple[str, ...] = (),
        slack_bytes: int = SLACK_BYTES,
    ) -> None:
        self._clients = clients
        self._every_seconds = every_seconds
        self._relay_options = relay_options
        self._agent_options = agent_options
        self._slack_bytes = slack_bytes
        self._ended: list[Process] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._prepare(stack)
            stack.callback(lambda: self.relay.stop())
            self.agent = self.new_agent()
            stack.callback(lambda: self.agent.stop())
            self.agent.when_connected()
            self._before = [self._held(process) for process in (self.relay, self.agent)]
            self._stack = stack.pop_all()
        return self

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        """Make the loop, the relay, the proxy and the clients."""
        loop = stack.enter_context(Loop())
        self.relay = RelayProcess(*self._relay_options)
        self.cutter = stack.enter_context(Cutter(loop, ("127.0.0.1", self.relay.port)))
        self.load = stack.enter_context(
            Numbered(loop, count=self._clients, every_seconds=self._every_seconds)
        )

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.load.hang_up()
                self.check_baseline()
        finally:
            self._stack.close()
        if kind is None:
            for process in (self.relay, self.agent, *self._ended):
                process.check_quiet()

    @property
    def relay_address(self) -> tuple[str, int]:
        """The address for clients: the relay itself, because the fault is on the agent's side."""
        return "127.0.0.1", self.relay.port

    @property
    def agent_dials(self) -> str:
        """The relay's URL for the agent."""
        return f"ws://127.0.0.1:{self.cutter.port}"

    def let_clients_in(self, *, deadline_seconds: float = 60.0) -> None:
        """Connect the clients and wait until each has received a message."""
        self.load.dial(self.relay_address, ROOM, deadline_seconds=deadline_seconds)
        self.when_messages_pass()

    def when_messages_pass(self, *, deadline_seconds: float = RESTORE_SECONDS) -> float:
        """Wait until every client has received a new message; return the seconds."""
        watch = Stopwatch()
        before = self.load.heard_counts()

        def all_heard() -> bool:
            now = self.load.heard_counts()
            return len(now) == self._clients and all(now[one] > before.get(one, 0) for one in now)

        until("messages pass", all_heard, deadline_seconds=deadline_seconds)
        return watch.seconds

    def new_agent(self, *options: str) -> AgentProcess:
        """Start another agent of the room, which connects through the cutter."""
        local = f"127.0.0.1:{self.load.port}"
        told = ("--relay", self.agent_dials, "--local", local, *self._agent_options, *options)
        return AgentProcess(ROOM, *told)

    def replace_agent(self) -> None:
        """Start an agent in place of one that was killed."""
        self._ended.append(self.agent)
        self.agent.stop()
        self.agent = self.new_agent()

    def replace_relay(self) -> None:
        """Start a relay in place of one that was killed, on the same port."""
        port = self.relay.port
        self._ended.append(self.relay)
        self.relay.stop()
        self.relay = RelayProcess(*self._relay_options, listen=f"tcp:{port}:interface=127.0.0.1")

    def restart_relay(self) -> RelayProcess:
        """Send SIGTERM, and start another relay on its port as soon as it is free; return the old one."""
        old = self.relay
        self._ended.append(old)
        old.signal(signal.SIGTERM)
        old.when_line("Draining")
        self.relay = RelayProcess(*self._relay_options, listen=f"tcp:{old.port}:interface=127.0.0.1")
        return old

    def figures(self) -> dict[str, object]:
        """Return descriptors and memory of relay and agent."""
        running = [process for process in (self.relay, self.agent) if process.exit_code is None]
        return {
            "fds": [len(process.open_descriptors()) for process in running],
            "rss_mib": [process.resident_bytes() // MIB for process in running],
        }

    def _held(self, process: Process) -> tuple[int, int]:
        return len(process.open_descriptors()), process.resident_bytes()

    def check_baseline(self) -> None:
        """Wait until all parts have the descriptors and memory of before the clients connected.

        A restarted process is compared with the one that it replaced.
        """
        until("the local server has been left", lambda: self.load.local_count == 0)
        for process, (descriptors, memory) in zip((self.relay, self.agent), self._before, strict=True):
            if process.exit_code is None:
                settles(process, descriptors)
                grown = process.resident_bytes() - memory
                assert grown < self._slack_bytes, f"{process.name} has grown by {grown // MIB} MiB"


class SecureStage(Stage):
    """The same, but the agent dials ``wss://`` and verifies the relay's certificate."""

    def _prepare(self, stack: contextlib.ExitStack) -> None:
        authority = Authority(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        certificate = authority.issue("localhost")
        port = free_port()
        files = f"privateKey={certificate.key}:certKey={certificate.chain}"
        self._relay_options += ("--listen", f"ssl:{port}:interface=127.0.0.1:{files}")
        self._agent_options += ("--tls-ca", str(authority.file))
        super()._prepare(stack)
        self.cutter.target = ("127.0.0.1", port)

    @property
    def agent_dials(self) -> str:
        return f"wss://localhost:{self.cutter.port}"


def settles(process: Process, descriptors: int) -> None:
    """Wait until a process has no more descriptors than that."""
    try:
        until("as before", lambda: len(process.open_descriptors()) <= descriptors)
    except AssertionError:
        msg = f"{process.name} should hold {descriptors} descriptors and has {process.open_descriptors()}"
        raise AssertionError(msg) from None


@contextlib.contextmanager
def frozen(process: Process) -> Iterator[None]:
    """Stop a process with SIGSTOP during a ``with`` block: it is silent, and its connections stay open."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)
