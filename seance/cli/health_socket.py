"""Answers ``seance health`` on a socket of the relay or agent that needs no configuration.

It is a UNIX socket in Linux's abstract namespace: it needs no file and no port, works on a read-only file
system, and disappears with the process. Its name has the process id and the process namespace, so that
several programs on a machine, and containers that share a network, do not collide. The event loop answers, so
a process that hangs gives no answer. Other systems have no such sockets and run without one.

``seance relay`` and ``seance agent`` start one; a relay or an agent that is embedded in a program does not.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.agent.service import Agent
from seance.relay.service import Relay

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Health", "HealthSocket", "health_of_agent", "health_of_relay", "peer_of", "socket_name"]

PREFIX = "seance-health"

BACKLOG = 16
"""Number of checks that can wait while the event loop is busy."""

NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
RETRY_SECONDS = 1.0
"""Pause after a connection could not be accepted for lack of descriptors or memory."""

CREDENTIALS = struct.Struct("3i")
"""``struct ucred``: process, user, group (unix(7))."""


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of a program.

    Attributes:
        program: ``relay`` or ``agent``.
        healthy: Whether the program works. If not, it may be restarted.
        attached: Whether an agent is connected to its relay; False for a relay.
        sentence: A message with the same information.
    """

    program: str
    healthy: bool
    attached: bool
    sentence: str


def health_of_relay(relay: Relay) -> Health:
    """Return whether a relay listens. A full relay is healthy: a restart would disconnect all clients."""
    if relay.is_ready:
        return Health("relay", True, False, "The relay accepts connections.")
    state = "is stopping" if relay.is_draining else "does not listen"
    return Health("relay", False, False, f"The relay {state}.")


def health_of_agent(agent: Agent) -> Health:
    """Return that an agent runs, and whether it is connected to its relay.

    An agent without a relay is healthy: it reconnects, and a restart would lose the clients that
    the relay keeps.
    """
    attached = agent.relay_link is not None and agent.relay_link.is_attached
    status = agent.status
    return Health("agent", True, attached, f"The agent runs ({status.state.value}): {status.sentence}")


def socket_name(pid: int | str = "") -> str:
    """Return the name of a process's health socket in this process namespace, without the leading NUL.

    Args:
        pid: The process; empty for the prefix of all names.
    """
    return f"{PREFIX}/{os.stat('/proc/self/ns/pid').st_ino}/{pid}"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process id and the user id of the peer of a UNIX socket, from the kernel."""
    option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, user, _ = CREDENTIALS.unpack(option)
    return pid, user


class HealthSocket(Service):
    """Listens on the health socket between ``startService`` and ``stopService``; only on Linux.

    Args:
        reactor: Twisted's reactor.
        health: Returns the answer.
        before_close: Called by ``stopService``; the socket is closed when its result fires.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        health: Callable[[], Health],
        before_close: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> None:
        self._reactor = reactor
        self._health = health
        self._before_close = before_close
        self._listener: _Listener | None = None

    def startService(self) -> None:
        """Listen. A failure is only logged, because the program works without the socket."""
        super().startService()
        if not sys.platform.startswith("linux"):
            return
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(f"\0{socket_name(os.getpid())}")
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
            self._log.info(
                "seance health cannot find this process: {why}", why=reason, event="health.no_socket"
            )
            return
        listener.setblocking(False)
        self._listener = _Listener(self._reactor, listener, self._health)
        self._reactor.addReader(self._listener)

    def stopService(self) -> Deferred[None]:
        """Close the socket after ``before_close`` has finished."""
        super().stopService()
        return self._before_close().addCallback(self._close)

    def _close(self, _: None) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


@implementer(IReadDescriptor)
class _Listener:
    """Accepts connections, writes one line on each and closes it, without reading anything."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        listener: socket.socket,
        health: Callable[[], Health],
    ) -> None:
        self._reactor = reactor
        self.listener = listener
        self._health = health
        self._retry: IDelayedCall | None = None

    def fileno(self) -> int:
        return self.listener.fileno()

    def logPrefix(self) -> str:  # Twisted's name
        return "health"

    def doRead(self) -> None:  # Twisted's name
        try:
            connection, _ = self.listener.accept()
        except OSError as error:
            if error.errno in NO_DESCRIPTOR:
                # The listener stays readable, so the reactor would call this in a busy loop.
                self._reactor.removeReader(self)
                self._retry = self._reactor.callLater(RETRY_SECONDS, self._resume_reading)
            return
        with suppress(OSError), connection:  # the peer may have closed it
            _, user = peer_of(connection)
            # Any user of the machine can connect, and the message may name a room.
            if user in (0, os.getuid()):
                connection.setblocking(False)
                connection.send(json.dumps(asdict(self._health())).encode() + b"\n")

    def close(self) -> None:
        """Close the listening socket."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._reactor.removeReader(self)
        self.listener.close()

    def _resume_reading(self) -> None:
        self._retry = None
        self._reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """Required by ``IReadDescriptor``; reactors do not call it for a socket that listens."""
