"""Answers ``seance health``: a socket on which a relay or an agent says that it works, without any option.

It is a UNIX socket in Linux's abstract namespace: no file, no port, gone with the process, and reachable on a
read-only file system. Its name holds the process id and the process namespace, so that several programs on a
machine, and containers that share a network, do not meet. The answer comes from the event loop, so a process
that hangs does not give one. Other systems have no such socket and run without it.

``seance relay`` and ``seance agent`` start one; a relay or an agent inside another program does not.
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

NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
RETRY_SECONDS = 1.0
"""Pause after a connection that could not be accepted for lack of descriptors or memory."""
"""Checks that may wait while the event loop is busy."""

CREDENTIALS = struct.Struct("3i")
"""``struct ucred``: process, user, group (unix(7))."""


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of a program.

    Attributes:
        program: ``relay`` or ``agent``.
        healthy: Whether it works. A program that does not may be restarted.
        attached: Whether an agent has its relay; a relay is never attached.
        sentence: The same for a person.
    """

    program: str
    healthy: bool
    attached: bool
    sentence: str


def health_of_relay(relay: Relay) -> Health:
    """Return whether a relay listens. A full one is healthy: a restart would disconnect everyone."""
    if relay.is_ready:
        return Health("relay", True, False, "The relay accepts connections.")
    why = "is stopping" if relay.is_draining else "does not listen"
    return Health("relay", False, False, f"The relay {why}.")


def health_of_agent(agent: Agent) -> Health:
    """Return that an agent runs, and whether it has its relay.

    An agent without its relay is healthy: it dials again by itself, and a restart would only lose the clients
    that the relay keeps for it.
    """
    attached = agent.relay_link is not None and agent.relay_link.is_attached
    status = agent.status
    return Health("agent", True, attached, f"The agent runs ({status.state.value}): {status.sentence}")


def socket_name(pid: int | str = "") -> str:
    """Return the name of the health socket of a process in this process namespace, without the leading NUL.

    Args:
        pid: The process; nothing for the beginning that all names have in common.
    """
    return f"{PREFIX}/{os.stat('/proc/self/ns/pid').st_ino}/{pid}"


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the process and the user at the other end of a UNIX socket, as the kernel knows them."""
    option = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, user, _ = CREDENTIALS.unpack(option)
    return pid, user


class HealthSocket(Service):
    """Listens, between ``startService`` and ``stopService``, where the system has such sockets.

    Args:
        reactor: Twisted's reactor.
        health: Returns the answer.
        before_end: Called by ``stopService``; the socket stays until its result is there.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        health: Callable[[], Health],
        before_end: Callable[[], Deferred[None]] = lambda: succeed(None),
    ) -> None:
        self._reactor = reactor
        self._health = health
        self._before_end = before_end
        self._answers: _Answers | None = None

    def startService(self) -> None:
        """Listen. A program works without, so a failure is a line in the log."""
        super().startService()
        if not sys.platform.startswith("linux"):
            return
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(f"\0{socket_name(os.getpid())}")
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            why = error.strerror or str(error)
            self._log.info("seance health cannot find this process: {why}", why=why, event="health.no_socket")
            return
        listener.setblocking(False)
        self._answers = _Answers(self._reactor, listener, self._health)
        self._reactor.addReader(self._answers)

    def stopService(self) -> Deferred[None]:
        """Close the socket, once the program has stopped."""
        super().stopService()
        return self._before_end().addCallback(self._close)

    def _close(self, _: None) -> None:
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.close()


@implementer(IReadDescriptor)
class _Answers:
    """Writes one line on each connection and closes it. Nothing is read, so there is nothing to wait for."""

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
                # The listener stays readable, so that the reactor would call this all the time.
                self._reactor.removeReader(self)
                self._retry = self._reactor.callLater(RETRY_SECONDS, self._read_again)
            return
        with suppress(OSError), connection:  # the peer may have gone
            _, user = peer_of(connection)
            # Anyone on the machine can connect, and the sentence may name a room.
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

    def _read_again(self) -> None:
        self._retry = None
        self._reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has given it up, which it does not do to sockets that listen."""
