"""Writes the status of an agent to stdout as JSON lines, for ``seance agent --status-json``.

Each line is complete (docs/programmatic.md lists the fields). The agent never waits for a slow parent, which
loses old lines instead. If the parent has ended, the agent notices it within half a second and stops: an app
that has crashed must not leave its room open.

The log is on stderr in this mode. An app that runs the agent in its own process uses ``Agent.on_status``.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from seance.agent.service import AgentStatus
from seance.carrier import RelayAddress
from seance.core.settings import AgentSettings
from seance.logs.format import utc_time
from seance.logs.writer import LogWriter, descriptor_writer

__all__ = ["CHECK_SECONDS", "MAX_QUEUED_LINES", "StatusLines", "room_url"]

CHECK_SECONDS = 0.5
"""Interval between checks of the number of clients and of the reader."""

MAX_QUEUED_LINES = 64
"""Lines that wait for a parent that does not read; one more drops the oldest."""

MAX_MESSAGE_LENGTH = 1000
"""In characters. A line is then shorter than PIPE_BUF (4096 bytes), so a pipe takes it in one piece."""


class StatusSource(Protocol):
    """The interface of ``Agent`` that ``StatusLines`` uses."""

    settings: AgentSettings

    @property
    def client_count(self) -> int:
        """Number of connected clients."""

    def on_status(self, listener: Callable[[AgentStatus], None]) -> Callable[[], None]:
        """See ``Agent.on_status``."""


class StatusLines(Service):
    """Writes a line for each status of an agent and each change of its number of clients.

    Start it before the agent. After ``stopService`` it still writes the last status of the agent.

    Args:
        reactor: Twisted's reactor.
        agent: The agent.
        descriptor: The file descriptor to write to.
        on_reader_gone: Called once when no process reads the lines any more.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        agent: StatusSource,
        descriptor: int,
        on_reader_gone: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._agent = agent
        self._descriptor = descriptor
        self._on_reader_gone = on_reader_gone
        self._queue: deque[bytes] = deque(maxlen=MAX_QUEUED_LINES)
        self._unsent = b""
        self._clients = 0
        self._is_reader_gone = False
        self._call: IDelayedCall | None = None
        self._url = room_url(agent.settings)
        self._poll: Any = None
        self._closed_states = 0
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
            self._closed_states = select.POLLERR | select.POLLHUP | select.POLLNVAL
        else:
            # Windows: a thread writes, and notices only with the next line that the parent has ended.
            self._writer = LogWriter(descriptor_writer(descriptor), on_broken=self._writer_broken)
        agent.on_status(self._write_status)

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Start the periodic check of the client count and of the reader."""
        super().startService()
        self._check()

    def stopService(self) -> None:
        """Stop the checks. Statuses of the agent, which is stopping too, are still written."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # -- inside ----------------------------------------------------------------------------

    def _write_status(self, status: AgentStatus) -> None:
        self._enqueue(
            type="status",
            state=status.state.value,
            room=self._agent.settings.room,
            url=self._url,
            sentence=status.sentence[:MAX_MESSAGE_LENGTH],
            code=status.code,
            retry_seconds=None if status.retry_seconds is None else round(status.retry_seconds, 3),
        )

    def _check(self) -> None:
        self._call = self._reactor.callLater(CHECK_SECONDS, self._check)
        clients = self._agent.client_count
        if clients != self._clients:
            self._clients = clients
            self._enqueue(type="clients", clients=clients)
        else:
            self._write()

    def _enqueue(self, **content: object) -> None:
        if not self._is_reader_gone:
            line = json.dumps({"time": utc_time(time.time()), **content}, separators=(",", ":"))
            self._queue.append(line.encode() + b"\n")
            self._write()

    def _write(self) -> None:
        if self._poll is None:
            if self._queue and self._writer.drain(0):
                self._writer.write(b"".join(self._queue).decode())
                self._queue.clear()
            return
        while not self._is_reader_gone:
            [(_, state)] = self._poll.poll(0) or [(0, 0)]
            if state & self._closed_states:
                self._reader_gone()
            if not state & select.POLLOUT or not (self._unsent or self._queue):
                return
            line = self._unsent or self._queue.popleft()
            try:
                sent = os.write(self._descriptor, line)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._reader_gone()
                return
            self._unsent = line[sent:]

    def _writer_broken(self) -> None:
        self._reactor.callFromThread(self._reader_gone)

    def _reader_gone(self) -> None:
        if self._is_reader_gone:
            return
        self._is_reader_gone = True
        self._queue.clear()
        self._log.info("No process reads the status lines any more; stopping", event="status.unread")
        self._on_reader_gone()


def room_url(settings: AgentSettings) -> str:
    """Return the URL of an agent's room for clients, as y-websocket and Hocuspocus need it."""
    relay = RelayAddress.from_url(settings.relay)
    scheme = "wss" if relay.is_secure else "ws"
    return f"{scheme}://{relay.host_header}{relay.base_path}/c/{settings.room}"
