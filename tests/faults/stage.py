"""A relay, a cutting proxy, an agent and numbered clients, as real processes where people have them.

``Stage`` is a context; what a scenario breaks, it breaks by name (``stage.cutter.reset()``,
``stage.agent.kill()``). At its end relay and agent must have been quiet and must hold as many
descriptors as before the clients came, about as much memory, and the local server no connection.
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
"""What a process may keep when its clients have gone: Python gives little memory back to the system.
The first clients of a fresh process cost a few MiB of code and caches whatever becomes of them."""

RESTORE_SECONDS = 30.0
"""How long the next message after a fault may take before the tunnel counts as broken: no speed is
asserted, and browsers would have given up by then."""


class Stage:
    """Everything between the clients and the local server, each piece breakable.

    Args:
        clients: How many numbered clients.
        every_seconds: From one message of a client to its next.
        relay_options: Of the relay, as on its command line.
        agent_options: Of the agent.
        slack_bytes: What relay and agent may each have grown by when the clients have gone.
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
        """Makes the loop, the relay, the way to it and the clients."""
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
        """Where clients dial: the relay itself, because the fault is on the agent's side."""
        return "127.0.0.1", self.relay.port

    @property
    def agent_dials(self) -> str:
        """The relay's URL for the agent."""
        return f"ws://127.0.0.1:{self.cutter.port}"

    def let_clients_in(self, *, deadline_seconds: float = 60.0) -> None:
        """Connects the clients and waits until each has heard something."""
        self.load.dial(self.relay_address, ROOM, deadline_seconds=deadline_seconds)
        self.when_messages_pass()

    def when_messages_pass(self, *, deadline_seconds: float = RESTORE_SECONDS) -> float:
        """Waits until every client has heard something new; says how long that took."""
        watch = Stopwatch()
        before = self.load.heard_counts()

        def all_heard() -> bool:
            now = self.load.heard_counts()
            return len(now) == self._clients and all(now[one] > before.get(one, 0) for one in now)

        until("messages pass", all_heard, deadline_seconds=deadline_seconds)
        return watch.seconds

    def new_agent(self, *options: str) -> AgentProcess:
        """A further agent of the room, which dials through the cutter."""
        local = f"127.0.0.1:{self.load.port}"
        told = ("--relay", self.agent_dials, "--local", local, *self._agent_options, *options)
        return AgentProcess(ROOM, *told)

    def replace_agent(self) -> None:
        """Starts an agent in place of one that has been killed."""
        self._ended.append(self.agent)
        self.agent.stop()
        self.agent = self.new_agent()

    def replace_relay(self) -> None:
        """Starts a relay in place of one that has been killed, on the same port."""
        port = self.relay.port
        self._ended.append(self.relay)
        self.relay.stop()
        self.relay = RelayProcess(*self._relay_options, listen=f"tcp:{port}:interface=127.0.0.1")

    def restart_relay(self) -> RelayProcess:
        """SIGTERM, and another one on its port as soon as it does not listen there; gives the old one."""
        old = self.relay
        self._ended.append(old)
        old.signal(signal.SIGTERM)
        old.when_line("Draining")
        self.relay = RelayProcess(*self._relay_options, listen=f"tcp:{old.port}:interface=127.0.0.1")
        return old

    def figures(self) -> dict[str, object]:
        """What the kernel says about relay and agent now."""
        running = [process for process in (self.relay, self.agent) if process.exit_code is None]
        return {
            "fds": [len(process.open_descriptors()) for process in running],
            "rss_mib": [process.resident_bytes() // MIB for process in running],
        }

    def _held(self, process: Process) -> tuple[int, int]:
        return len(process.open_descriptors()), process.resident_bytes()

    def check_baseline(self) -> None:
        """Waits until everything holds what it held before the clients came.

        A process that was started since is compared with the one that it stands for.
        """
        until("the local server has been left", lambda: self.load.local_count == 0)
        for process, (descriptors, memory) in zip((self.relay, self.agent), self._before, strict=True):
            if process.exit_code is None:
                settles(process, descriptors)
                grown = process.resident_bytes() - memory
                assert grown < self._slack_bytes, f"{process.name} has grown by {grown // MIB} MiB"


class SecureStage(Stage):
    """The same, but the agent dials ``wss://`` and looks at the relay's certificate."""

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
    """Waits until a process holds no more descriptors than that."""
    try:
        until("as before", lambda: len(process.open_descriptors()) <= descriptors)
    except AssertionError:
        msg = f"{process.name} should hold {descriptors} descriptors and has {process.open_descriptors()}"
        raise AssertionError(msg) from None


@contextlib.contextmanager
def frozen(process: Process) -> Iterator[None]:
    """SIGSTOP for the time of a ``with`` block: to everybody else it has fallen silent in mid-word."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)
