"""Relay, agent and local server as processes of their own, with what they cost.

What is started here is what a person would start: ``seance relay`` and ``seance agent``, with an
environment in which nothing is set for them. CPU time and memory are the kernel's own figures, from
``/proc``; where there is none (macOS), nothing is measured and the reports say so.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from seance.errors import ConfigError

__all__ = ["Child", "Children", "clean_environment"]

START_SECONDS = 20.0
STOP_SECONDS = 5.0
LINES_KEPT = 20

OURS = re.compile(r"SEANCE_(?!REACTOR$).*|RELAY_URL|ROOM_ID|LOCAL_HOST|LOCAL_PORT")
"""Variables that would tell a relay or an agent something that is not meant for these. Which reactor is."""

TROUBLE = re.compile(r"#(?:warn|error|critical)\] (?:\[Agent\] )?(.*)")
"""A warning, or worse, as Twisted's log writes it."""


class Child(ProcessProtocol):
    """One process. Wait for ``when_said`` before relying on it.

    Args:
        reactor: Twisted's reactor.
        name: What to call it in sentences.
        argv: The command.
        environment: Its whole environment.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._pattern: re.Pattern[str] | None = None
        self._said: Deferred[re.Match[str]] | None = None
        self._ended: Deferred[None] | None = None
        self._is_running = True
        self._process = reactor.spawnProcess(self, argv[0], argv, env=dict(environment))
        self.pid = int(self._process.pid)

    async def when_said(self, pattern: str) -> re.Match[str]:
        """Wait until a line of its output matches.

        Raises:
            ConfigError: It ended, or said nothing of the kind in time; with its last line.
        """
        self._pattern = re.compile(pattern)
        for line in self._lines:
            if found := self._pattern.search(line):
                return found
        self._said = Deferred()
        if not self._is_running:
            self._give_up()
        self._said.addTimeout(START_SECONDS, self._reactor)
        try:
            return await self._said
        except DeferredTimeout:
            sentence = f"The {self.name} did not start within {START_SECONDS:g} s: {self._last_words}"
            raise ConfigError(sentence, code="child") from None

    async def stop(self) -> None:
        """Have it end in order; after some seconds, at once."""
        if not self._is_running:
            return
        self._ended = Deferred()
        self._signal("TERM")
        self._ended.addTimeout(STOP_SECONDS, self._reactor)
        try:
            await self._ended
        except DeferredTimeout:
            self._ended = Deferred()
            self._signal("KILL")
            await self._ended

    @property
    def cpu_seconds(self) -> float | None:
        """User and system time so far (proc(5)); None where the kernel does not say."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text("utf-8")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_bytes(self) -> int | None:
        """Memory in use; None where the kernel does not say."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        except OSError:
            return None
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else None

    # -- ProcessProtocol -------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted calls us
        """It said something."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-65536:]
        for raw in lines:
            line = raw.decode("utf-8", "replace").strip()
            if line:
                self._lines.append(line)
            if self._said is not None and self._pattern is not None:
                found = self._pattern.search(line)
                if found:
                    said, self._said = self._said, None
                    said.callback(found)

    errReceived = outReceived  # noqa: N815  # Twisted calls us

    def processEnded(self, reason: Failure) -> None:  # noqa: N802  # Twisted calls us
        """It is gone."""
        self._is_running = False
        self._give_up()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.callback(None)

    def _give_up(self) -> None:
        said, self._said = self._said, None
        if said is not None:
            said.errback(ConfigError(f"The {self.name} did not start: {self._last_words}", code="child"))

    @property
    def _last_words(self) -> str:
        """Its last warning, since an agent goes on to say when it tries again; else its last line."""
        if not self._lines:
            return "it said nothing."
        troubles = filter(None, map(TROUBLE.search, reversed(self._lines)))
        return next((found[1] for found in troubles), self._lines[-1])

    def _signal(self, name: str) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self._process.signalProcess(name)


class Children:
    """Those that one run has started, to be stopped together.

    Args:
        reactor: Twisted's reactor.
    """

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # Twisted's reactors have no common type
        self._reactor = reactor
        self._running: list[Child] = []

    async def local_server(self, command: str) -> int:
        """Start ``seance bench --serve`` or ``seance check --serve``; returns its port."""
        child = self._start("local server", command, "--serve", "0")
        return int((await child.when_said(r"on port (\d+)"))[1])

    async def relay(self) -> tuple[Child, int]:
        """Start a relay on a free port of loopback."""
        listen = "tcp:0:interface=127.0.0.1"
        child = self._start("relay", "relay", "--listen", listen, "--admin", "none")
        return child, int((await child.when_said(r"starting on port (\d+)"))[1])

    async def agent(self, relay: str, room: str, local_port: int, *options: str) -> Child:
        """Start an agent and wait until the relay has taken it."""
        child = self._start(
            "agent",
            *("agent", "--relay", relay, "--room", room, "--local", f"127.0.0.1:{local_port}"),
            *("--identity", "none", *options),
        )
        await child.when_said(r"Connected to relay for room")
        return child

    async def stop(self) -> None:
        """Stop them, the last first."""
        while self._running:
            await self._running.pop().stop()

    def _start(self, name: str, *words: str) -> Child:
        argv = [sys.executable, "-m", "seance", *words]
        child = Child(self._reactor, name, argv, clean_environment())
        self._running.append(child)
        return child


def clean_environment() -> dict[str, str]:
    """Return our own environment without what is meant for somebody's relay or agent."""
    kept = {name: value for name, value in os.environ.items() if OURS.fullmatch(name) is None}
    return {**kept, "PYTHONUNBUFFERED": "1"}
