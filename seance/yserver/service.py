"""The Y-WebSocket server as a Twisted service, and the WebSocket connections of its clients.

``YServer(reactor)`` listens on a free port of 127.0.0.1 and serves ``ws://127.0.0.1:PORT/NAME`` to stock
y-websocket clients. It has no accounts and no TLS: it is for one machine and the tunnel in front of it.

Autobahn does the WebSocket: handshake, frames, pings, closing handshake and their timeouts. Autobahn's
timers run on the global reactor.
"""

# ruff: noqa: N803  # Autobahn's and Twisted's names, documented there

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.carrier.close_codes import CloseCode
from seance.errors import ConfigError, RemoteProtocolError
from seance.heads.boundary import DEFAULT_HEAD_BYTES
from seance.net import OneShotEvent
from seance.yserver.document import REOPENED, Document, YServerLimits
from seance.yserver.store import Store

__all__ = ["YServer"]

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

INTERNAL_ERROR = 1011

BAD_MESSAGE = 4400
"""y-websocket since 3.1 does not connect again after a code of 4400 to 4499."""

OPTIONS: dict[str, Any] = {
    "webStatus": False,
    "serveFlashSocketPolicy": False,
    "allowNullOrigin": True,  # origins are checked by _check_origin
    "requireMaskedClientFrames": True,
    "failByDrop": False,
    "tcpNoDelay": True,
    "openHandshakeTimeout": 10,
    "closeHandshakeTimeout": 2,
    "autoPingInterval": 30,
    "autoPingTimeout": 30,
    "autoPingRestartOnAnyTraffic": True,
    "perMessageCompressionAccept": lambda offers: None,
}


class YServer(Service):
    """A Y-WebSocket server.

    Args:
        reactor: Twisted's reactor.
        host: The address to listen on.
        port: The port; 0 lets the system choose.
        store: A file that keeps the documents; without one they live as long as the service.
        limits: The limits; the defaults of ``YServerLimits`` if None.
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
        self.limits = limits or YServerLimits()
        self._factory = WebSocketServerFactory(reactor=reactor)
        self._factory.noisy = False
        self._factory.protocol = lambda: YConnection(self)
        self._factory.setProtocolOptions(
            **OPTIONS,
            maxConnections=self.limits.clients,
            maxFramePayloadSize=self.limits.message_bytes,
            maxMessagePayloadSize=self.limits.message_bytes,
        )
        self._listening: OneShotEvent[IListeningPort] = OneShotEvent()
        self._port: IListeningPort | None = None
        self._store: Store
        self._documents: dict[str, Document] = {}
        self.connections: dict[YConnection, Deferred[None]] = {}

    @property
    def client_count(self) -> int:
        """Number of clients that edit a document now."""
        return sum(document.connection_count for document in self._documents.values())

    def when_listening(self) -> Deferred[IListeningPort]:
        """Wait for the listening port; ``getHost().port`` is its number."""
        return self._listening.when()

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Open the store and listen.

        Raises:
            ConfigError: The store cannot be opened, or the port is not available.
        """
        store = Store(self._store_path)
        try:
            port = self._reactor.listenTCP(self._port_number, self._factory, interface=self._host)
        except CannotListenError as error:
            store.close()
            why = getattr(error.socketError, "strerror", None) or str(error.socketError)
            message = f"The document server cannot listen on {self._host}:{self._port_number}: {why}."
            raise ConfigError(message, code="listen") from error
        super().startService()
        self._store, self._port = store, port
        self._log.info(
            "Documents are served at ws://{host}:{port}",
            host=self._host,
            port=port.getHost().port,
            event="yserver.listening",
        )
        self._listening.fire(port)

    def stopService(self) -> Deferred[None]:
        """Close every connection, with a closing handshake of at most two seconds, then the store."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._listening.reset()
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        for connection in list(self.connections):
            connection.close(CloseCode.GOING_AWAY, "the document server is stopping")
        await DeferredList(list(self.connections.values()))
        self._store.close()

    # -- for the connections ---------------------------------------------------------------

    def build_connection(self) -> IProtocol:
        """Return the protocol for one connection. For a program that accepts connections itself."""
        connection: IProtocol = self._factory.buildProtocol(None)
        return connection

    def open_document(self, name: str) -> Document:
        """Return the document ``name``, to be given back to ``close_document``.

        Raises:
            ConnectionDeny: There are too many documents, or the store failed.
        """
        if name in self._documents:
            return self._documents[name]
        try:
            names = self._documents.keys() | self._store.names()
            if name not in names and len(names) >= self.limits.documents:
                raise ConnectionDeny(503, f"This server has {len(names)} documents and takes no new ones")
            self._documents[name] = Document(name, self._store, self.limits)
        except ConnectionDeny:
            raise
        except BaseException as error:  # a panic of pycrdt is not an Exception
            self._log.failure("A document cannot be opened", event="yserver.failed")
            raise ConnectionDeny(500, "The document cannot be opened") from error
        return self._documents[name]

    def close_document(self, name: str) -> None:
        """Remove the document ``name`` from memory if it has no connections."""
        document = self._documents.get(name)
        if document is not None and not document.connection_count:
            del self._documents[name]


@implementer(IPushProducer)
class YConnection(WebSocketServerProtocol):
    """A client's connection to one document."""

    _log = Logger()
    log = Logger(observer=LogPublisher())  # no observers: Autobahn's log lines quote requests

    def __init__(self, server: YServer) -> None:
        super().__init__()
        self._server = server
        self._name = ""
        self._document: Document | None = None
        self._is_paused = False
        self._queued_bytes = 0

    # -- from Twisted ----------------------------------------------------------------------

    def connectionMade(self) -> None:
        super().connectionMade()
        if len(self._server.connections) >= 2 * self._server.limits.clients:
            self.transport.abortConnection()
        self._server.connections[self] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self.state == self.STATE_CONNECTING and len(self.data) > DEFAULT_HEAD_BYTES:
            self.failHandshake("The request head is too long", 431)
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._leave()
        self._server.connections.pop(self).callback(None)

    def pauseProducing(self) -> None:
        self._is_paused = True

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._queued_bytes = 0

    def stopProducing(self) -> None:
        """``connectionLost`` follows."""

    # -- from Autobahn ---------------------------------------------------------------------

    def onConnect(self, request: ConnectionRequest) -> None:
        _check_origin(request)
        # Not decoded, as in @y/websocket-server: "a%20b" and "a b" are two documents (docs/sources.md).
        self._name = self.http_request_uri.partition("?")[0][1:]
        self._document = self._server.open_document(self._name)

    def onOpen(self) -> None:
        assert self._document is not None, "onConnect has opened the document"
        self.registerProducer(self, True)
        self._document.join(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._document is None:
            return
        if not isBinary:
            self.close(CloseCode.UNSUPPORTED_DATA, "y-protocols messages are binary")
            return
        try:
            self._document.receive(self, payload)
        except RemoteProtocolError as error:
            self._log.warn(
                "A client broke a rule: {sentence}",
                sentence=error.message,
                code=error.code,
                event="yserver.rule_broken",
            )
            self.close(INTERNAL_ERROR if error.code == REOPENED else BAD_MESSAGE, error.message)

    # -- from the document and the service -------------------------------------------------

    def send_message(self, payload: bytes) -> None:
        """Send one message, or disconnect a client that is too far behind."""
        if self._is_paused:
            self._queued_bytes += len(payload)
            if self._queued_bytes > self._server.limits.queued_bytes:
                self.transport.abortConnection()
                return
        self.sendMessage(payload, isBinary=True)

    def close(self, code: int, reason: str) -> None:
        """Leave the document and start the closing handshake, or abort a connection that is not open."""
        self._leave()
        if self.state == self.STATE_CONNECTING:
            self.dropConnection(abort=True)
        else:
            self.sendCloseFrame(code, reason.encode("ascii", "replace")[:123])

    def _leave(self) -> None:
        document, self._document = self._document, None
        if document is not None:
            document.leave(self)
            self._server.close_document(self._name)


def _check_origin(request: ConnectionRequest) -> None:
    """Refuse web pages of other sites, unless they come through a relay.

    Any web page may open a WebSocket to 127.0.0.1. A relay sets ``X-Forwarded-Host``, which a browser does
    not let a page set; a page that comes through the relay has the link, which is secret.
    """
    if not request.origin or "x-forwarded-host" in request.headers:
        return
    origin = urlsplit(request.origin.lower())
    if origin.hostname not in LOOPBACK_HOSTS and origin.netloc != request.headers["host"].lower():
        raise ConnectionDeny(403, "This web page may not open documents here: it comes from another site")
