"""Start relay, agent and local server as subprocesses, and read their CPU time and memory.

The commands are those of a user (``seance relay``, ``seance agent``), without the user's ``SEANCE_*``
variables. CPU time and memory come from ``/proc``; where it is missing (macOS), they are None.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from seance.errors import ConfigError
from seance.wsclient import Reactor

__all__ = ["Subprocess", "TunnelProcesses"]

START_SECONDS = 20.0
STOP_SECONDS = 5.0
MAX_LINES = 20
MAX_LINE_BYTES = 65536

OPTION_VARIABLES = re.compile(r"SEANCE_(?!REACTOR$).*|RELAY_URL|ROOM_ID|LOCAL_HOST|LOCAL_PORT")
"""Variables that configure the user's own relay or agent. The choice of the reactor is kept."""

WARNING = re.compile(r"#(?:warn|error|critical)\] (?:\[Agent\] )?(.*)")
"""A warning or error in the format of Twisted's log."""


class Subprocess(ProcessProtocol):
    """A running program.

    Args:
        reactor: Twisted's reactor.
        name: Its name in error messages.
        argv: The command and its arguments.
        environment: All environment variables.
    """

    def __init__(
        self, reactor: Reactor, name: str, argv: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._pattern = re.compile("")
        self._matched: Deferred[re.Match[str]] | None = None
        self._ended: Deferred[None] = Deferred()
        self._process = reactor.spawnProcess(self, argv[0], argv, env=dict(environment))
        self.pid = int(self._process.pid)

    async def when_line(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the output matches.

        Raises:
            ConfigError: The process ended or 20 s passed first; the message has its last warning.
        """
        self._pattern = re.compile(pattern)
        for line in self._lines:
            if found := self._pattern.search(line):
                return found
        if self._ended.called:
            raise self._start_error("")
        self._matched = Deferred()
        self._matched.addTimeout(START_SECONDS, self._reactor)
        try:
            return await self._matched
        except DeferredTimeout:
            raise self._start_error(f" within {START_SECONDS:g} s") from None

    async def stop(self) -> None:
        """End the process with SIGTERM, after 5 s with SIGKILL."""
        for signal in ("TERM", "KILL"):
            if self._ended.called:
                return
            with contextlib.suppress(ProcessExitedAlready):
                self._process.signalProcess(signal)
            waiting: Deferred[None] = Deferred()
            self._ended.chainDeferred(waiting)
            with contextlib.suppress(DeferredTimeout):
                await waiting.addTimeout(STOP_SECONDS, self._reactor)

    @property
    def cpu_seconds(self) -> float | None:
        """User and system time so far (proc(5)); None without ``/proc``."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text("utf-8")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_bytes(self) -> int | None:
        """Resident memory; None without ``/proc``."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        except OSError:
            return None
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else None

    # -- ProcessProtocol -------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted calls us
        """Keep the last lines of the output, and compare each with the pattern that is waited for."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-MAX_LINE_BYTES:]
        for raw in lines:
            line = raw.decode("utf-8", "replace").strip()
            if line:
                self._lines.append(line)
            if self._matched is not None and (found := self._pattern.search(line)):
                matched, self._matched = self._matched, None
                matched.callback(found)

    errReceived = outReceived  # noqa: N815  # Twisted calls us

    def processEnded(self, reason: Failure) -> None:  # noqa: N802  # Twisted calls us
        """Fail a pending ``when_line`` and finish ``stop``."""
        matched, self._matched = self._matched, None
        if matched is not None:
            matched.errback(self._start_error(""))
        self._ended.callback(None)

    def _start_error(self, when: str) -> ConfigError:
        """Return the error with the last warning, or the last line: an agent logs its next attempt later."""
        warnings = filter(None, map(WARNING.search, reversed(self._lines)))
        last = self._lines[-1] if self._lines else "it printed nothing."
        reason = next((found[1] for found in warnings), last)
        return ConfigError(f"The {self.name} did not start{when}: {reason}", code="child")


class TunnelProcesses:
    """Starts relay, agent and local server, and stops them together.

    Args:
        reactor: Twisted's reactor.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._running: list[Subprocess] = []

    async def local_server(self, command: str) -> int:
        """Start ``seance bench --serve`` or ``seance check --serve`` and return its port."""
        process = self._start("local server", command, "--serve", "0")
        return int((await process.when_line(r"on port (\d+)"))[1])

    async def relay(self) -> tuple[Subprocess, int]:
        """Start a relay on a free loopback port; return the process and its port."""
        listen = "tcp:0:interface=127.0.0.1"
        process = self._start("relay", "relay", "--listen", listen, "--admin", "none")
        return process, int((await process.when_line(r"starting on port (\d+)"))[1])

    async def agent(self, relay: str, room: str, local_port: int, *options: str) -> Subprocess:
        """Start an agent and wait until the relay has accepted it."""
        address = ("--relay", relay, "--room", room, "--local", f"127.0.0.1:{local_port}")
        process = self._start("agent", "agent", *address, "--identity", "none", *options)
        await process.when_line(r"Connected to relay for room")
        return process

    async def stop(self) -> None:
        """Stop all processes in reverse order of their start."""
        while self._running:
            await self._running.pop().stop()

    def _start(self, name: str, *arguments: str) -> Subprocess:
        inherited = {
            name: value for name, value in os.environ.items() if not OPTION_VARIABLES.fullmatch(name)
        }
        environment = {**inherited, "PYTHONUNBUFFERED": "1"}
        process = Subprocess(self._reactor, name, [sys.executable, "-m", "seance", *arguments], environment)
        self._running.append(process)
        return process
