"""The embedded Y-WebSocket server as a Twisted service.

``YServer(reactor)`` listens on a free port of 127.0.0.1 and serves ``ws://127.0.0.1:PORT/NAME`` to
stock y-websocket clients. It is for one machine and its tunnel: no accounts, no TLS, because
whoever reaches it has the link already. For anything bigger use a document server of its own; the
agent does not mind which.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.errors import ConfigError
from seance.net import Occasion
from seance.yserver.documents import Documents
from seance.yserver.door import Door
from seance.yserver.limits import YServerLimits
from seance.yserver.store import Store
from seance.yserver.websocket import YSocket, make_socket_factory

__all__ = ["YServer"]

PING_SECONDS = 30.0
"""A client that did not answer the last ping by the next one is gone; ``@y/websocket-server`` too."""

STOP_SECONDS = 3.0
"""How long stopping waits for closing handshakes."""

UNANSWERED_CONNECTIONS = 64
"""Connections beyond ``YServerLimits.clients`` that may be about to be refused with a sentence."""

GOING_AWAY = 1001


class YServer(Service):
    """A Y-WebSocket server.

    Args:
        reactor: Twisted's reactor.
        host: The address to listen on.
        port: The port; 0 lets the system choose.
        store: A file that keeps the documents; without one they live as long as the service.
        limits: What it takes on.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        store: Path | None = None,
        limits: YServerLimits | None = None,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port_number = port
        self._store_path = store
        self._limits = limits or YServerLimits()
        self._sockets = make_socket_factory(reactor, self._limits)
        self._doors: dict[Door, YSocket | None] = {}
        self._listening: Occasion[IListeningPort] = Occasion()
        self._port: IListeningPort | None = None
        self._documents: Documents | None = None
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = reactor
        self._empty: Deferred[None] | None = None

    @property
    def client_count(self) -> int:
        """Clients that edit a document now."""
        return 0 if self._documents is None else self._documents.connection_count

    def when_listening(self) -> Deferred[IListeningPort]:
        """Wait for the listening port; ``getHost().port`` is its number."""
        return self._listening.when()

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Open the store and listen.

        Raises:
            ConfigError: The store cannot be opened or the port cannot be had.
        """
        store = None if self._store_path is None else Store(self._store_path)
        try:
            port = self._reactor.listenTCP(self._port_number, DoorFactory(self), interface=self._host)
        except CannotListenError as error:
            if store is not None:
                store.close()
            why = getattr(error.socketError, "strerror", None) or str(error.socketError)
            sentence = f"The document server cannot listen on {self._host}:{self._port_number}: {why}."
            raise ConfigError(sentence, code="listen") from error
        super().startService()
        self._documents = Documents(self._limits, store)
        self._port = port
        self._pinging.start(PING_SECONDS, now=False).addErrback(self._note_failure)
        self._log.info(
            "Documents are served at ws://{host}:{port}",
            host=self._host,
            port=port.getHost().port,
            event="yserver.listening",
        )
        self._listening.fire(port)

    def stopService(self) -> Deferred[None]:
        """Close every connection in order, waiting at most three seconds, and put the documents away."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._listening.reset()
        if self._pinging.running:
            self._pinging.stop()
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        for door, socket in list(self._doors.items()):
            if socket is None:
                door.cut()
            else:
                socket.close(GOING_AWAY, "the document server is stopping")
        if self._doors:
            self._empty = Deferred()
            self._empty.addTimeout(STOP_SECONDS, self._reactor)
            await self._empty.addErrback(lambda _: None)
        documents, self._documents = self._documents, None
        if documents is not None:
            documents.close()

    # -- for the doors ---------------------------------------------------------------------

    def open_door(self) -> Door | None:
        """Take in a connection, or None if there are far too many."""
        if len(self._doors) >= self._limits.clients + UNANSWERED_CONNECTIONS:
            return None
        door = Door(self._reactor, lambda name: self._admit(door, name), self._forget)
        self._doors[door] = None
        return door

    def _admit(self, door: Door, name: str) -> IProtocol:
        assert self._documents is not None, "doors open while the service runs"
        self._documents.check(name)
        socket = YSocket(self._reactor, self._documents, name)
        socket.factory = self._sockets
        self._doors[door] = socket
        return socket

    def _forget(self, door: Door) -> None:
        self._doors.pop(door, None)
        if not self._doors and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def _ping(self) -> None:
        for socket in list(self._doors.values()):
            if socket is not None:
                socket.ping_or_cut()

    def _note_failure(self, failure: Failure) -> None:
        self._log.failure("The pings have stopped", failure=failure, event="yserver.failed")


class DoorFactory(Factory):
    """Makes a ``Door`` for each connection."""

    noisy = False

    def __init__(self, server: YServer) -> None:
        self._server = server

    def buildProtocol(self, addr: IAddress | None) -> Door | None:
        return self._server.open_door()
