"""Tells a parent process how an agent does: JSON lines on stdout, for ``seance agent --status-json``.

Each line is complete in itself (docs/operations.md has its fields), so that a parent which is slow loses old
ones and nothing else: this never waits for it, since the agent that waits serves nobody. A parent that is
gone is noticed within half a second, and the agent then ends in order, for whoever started it is no longer
there to end it; an app that has crashed must not leave its room open to the world.

Not the log, which is on stderr then. An app that runs the agent in its own process uses ``Agent.on_status``.
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

__all__ = ["LOOK_SECONDS", "MOST_WAITING", "StatusLines", "room_url"]

LOOK_SECONDS = 0.5
"""From one look at the number of clients, and at whether somebody reads, to the next."""

MOST_WAITING = 64
"""Lines that wait for a parent that does not read; the oldest goes when there is one more."""

LONGEST_SENTENCE = 1000
"""Characters. So a line is shorter than what a pipe takes at once (PIPE_BUF, 4096 bytes)."""


class StatusSource(Protocol):
    """What is told of: an ``Agent``."""

    settings: AgentSettings

    @property
    def client_count(self) -> int:
        """Clients that are connected now."""

    def on_status(self, listener: Callable[[AgentStatus], None]) -> Callable[[], None]:
        """See ``Agent.on_status``."""


class StatusLines(Service):
    """Start it before the agent. It goes on until the agent has said its last word.

    Args:
        reactor: Twisted's reactor.
        agent: Of whom to tell.
        descriptor: Where to write.
        on_gone: Called once when nobody reads any more.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        agent: StatusSource,
        descriptor: int,
        on_gone: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._agent = agent
        self._descriptor = descriptor
        self._on_gone = on_gone
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        self._half_sent = b""
        self._clients = 0
        self._is_gone = False
        self._call: IDelayedCall | None = None
        self._url = room_url(agent.settings)
        self._poll: Any = None
        self._gone_states = 0
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
            self._gone_states = select.POLLERR | select.POLLHUP | select.POLLNVAL
        else:
            # Windows: a thread writes, and finds out that the parent is gone with the next line only.
            self._writer = LogWriter(descriptor_writer(descriptor), on_broken=self._note_broken)
        agent.on_status(self._note)

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._look()

    def stopService(self) -> None:
        """Look no more; the agent, which stops too, is still listened to."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # -- inside ----------------------------------------------------------------------------

    def _note(self, status: AgentStatus) -> None:
        self._tell(
            type="status",
            state=status.state.value,
            room=self._agent.settings.room,
            url=self._url,
            sentence=status.sentence[:LONGEST_SENTENCE],
            code=status.code,
            retry_seconds=None if status.retry_seconds is None else round(status.retry_seconds, 3),
        )

    def _look(self) -> None:
        self._call = self._reactor.callLater(LOOK_SECONDS, self._look)
        clients = self._agent.client_count
        if clients != self._clients:
            self._clients = clients
            self._tell(type="clients", clients=clients)
        else:
            self._write()

    def _tell(self, **content: object) -> None:
        if not self._is_gone:
            line = json.dumps({"time": utc_time(time.time()), **content}, separators=(",", ":"))
            self._waiting.append(line.encode() + b"\n")
            self._write()

    def _write(self) -> None:
        if self._poll is None:
            if self._waiting and self._writer.drain(0):
                self._writer.write(b"".join(self._waiting).decode())
                self._waiting.clear()
            return
        while not self._is_gone:
            [(_, state)] = self._poll.poll(0) or [(0, 0)]
            if state & self._gone_states:
                self._note_gone()
            if not state & select.POLLOUT or not (self._half_sent or self._waiting):
                return
            line = self._half_sent or self._waiting.popleft()
            try:
                sent = os.write(self._descriptor, line)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._note_gone()
                return
            self._half_sent = line[sent:]

    def _note_broken(self) -> None:
        self._reactor.callFromThread(self._note_gone)

    def _note_gone(self) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        self._waiting.clear()
        self._log.info("Nobody reads the status lines any more: stopping", event="status.unread")
        self._on_gone()


def room_url(settings: AgentSettings) -> str:
    """Return where clients find an agent's room: y-websocket's base, Hocuspocus' url."""
    relay = RelayAddress.from_url(settings.relay)
    scheme = "wss" if relay.is_secure else "ws"
    return f"{scheme}://{relay.host_header}{relay.base_path}/c/{settings.room}"
