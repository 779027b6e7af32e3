"""Autobahn, hardened, between a document and a stock client: one object per connection.

The head was read and answered for by ``seance.yserver.door``, which shows Autobahn one of its own
making. Autobahn's timers and log lines are off, for the reasons that ``seance.carrier.websocket``
gives: the timers run on the global reactor, the log lines quote requests. Here a message arrives
whole, because that is how y-protocols thinks; the limit on it is checked at the frame header.

When the socket is full, the document holds this connection, so that nothing piles up here.
"""

# ruff: noqa: D102, N802  # Autobahn's and Twisted's names, documented there

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import RemoteProtocolError
from seance.yserver.document import Document
from seance.yserver.documents import Documents
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import decode

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["YSocket", "make_socket_factory"]

CLOSE_SECONDS = 2.0
"""How long a closing handshake may take before the connection is cut."""

UNSUPPORTED_DATA = 1003
TOO_BIG = 1009

BAD_MESSAGE = 4400
TOO_MUCH = 4413
"""Codes of 4400 to 4499 tell y-websocket since 3.1 not to come back with the same message."""

CODES = {"document_full": TOO_MUCH, "state_too_big": TOO_MUCH, "too_many_states": TOO_MUCH}


class _Silence:
    """A logger for Autobahn that says nothing; see the top of the file."""

    def debug(self, *args: object, **kwargs: object) -> None:
        pass

    trace = info = warn = error = critical = debug


@implementer(IPushProducer)
class YSocket(WebSocketServerProtocol):
    """One client's connection.

    Args:
        reactor: Where time comes from.
        documents: Where its document is.
        name: Which document that is.
    """

    _log = Logger()
    log = _Silence()

    failedByMe: bool  # noqa: N815  # Autobahn's

    def __init__(self, reactor: IReactorTime, documents: Documents, name: str) -> None:
        super().__init__()
        self._reactor = reactor
        self._documents = documents
        self._name = name
        self._document: Document | None = None
        self._awaits_pong = False
        self._abort_call: IDelayedCall | None = None

    # -- from Twisted ----------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self._awaits_pong = False
        try:
            self._dataReceived(data)
        except Exception:  # noqa: BLE001  # whatever our own callbacks raise
            self._log.failure("A client's connection failed and is cut", event="yserver.failed")
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._abort_call is not None:
            self._abort_call.cancel()
            self._abort_call = None
        super().connectionLost(reason)
        self._leave()

    def pauseProducing(self) -> None:
        if self._document is not None:
            self._document.hold(self)

    def resumeProducing(self) -> None:
        if self._document is not None:
            self._document.release(self)

    def stopProducing(self) -> None:
        self._leave()

    # -- from Autobahn ---------------------------------------------------------------------

    def onOpen(self) -> None:
        self.registerProducer(self, True)
        try:
            self._document = self._documents.join(self._name, self)
        except Exception:  # noqa: BLE001  # Autobahn would go on with a connection to nothing
            self._log.failure("A document cannot be opened", event="yserver.failed")
            self.transport.abortConnection()

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: N803  # Autobahn's name
        if isBinary:
            super().onMessageBegin(isBinary)
        else:
            self._fail(UNSUPPORTED_DATA, "y-protocols messages are binary")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803  # Autobahn's name
        if self._document is None:
            return
        try:
            message = decode(payload)
            if message is not None:
                self._document.receive(self, message)
        except RemoteProtocolError as error:
            self._log.warn(
                "A client broke a rule: {sentence}",
                sentence=error.sentence,
                code=error.code,
                event="yserver.rule_broken",
            )
            self._fail(CODES.get(error.code, BAD_MESSAGE), error.sentence)

    def sendCloseFrame(
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,  # noqa: N803  # Autobahn's name
        isReply: bool = False,  # noqa: N803
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)
        self._leave()
        if self._abort_call is None:
            self._abort_call = self._reactor.callLater(CLOSE_SECONDS, self._give_up)

    # -- from the document and the service -------------------------------------------------

    def send_message(self, payload: bytes) -> None:
        """Send one message; does nothing once the connection is closing."""
        self.sendMessage(payload, isBinary=True)

    def ping_or_cut(self) -> None:
        """Ask whether anybody is there; cut the connection if the last question got no answer."""
        if self._awaits_pong:
            self.transport.abortConnection()
        elif self._document is not None:
            self._awaits_pong = True
            self.sendPing()

    def close(self, code: int, reason: str) -> None:
        """End the connection in order."""
        self.sendCloseFrame(code, reason.encode("ascii", "replace")[:123])

    # -- inside ----------------------------------------------------------------------------

    def _fail(self, code: int, reason: str) -> None:
        if not self.failedByMe:
            self.failedByMe = True
            self.wasNotCleanReason = reason
            self.close(code, reason)

    def _leave(self) -> None:
        document, self._document = self._document, None
        if document is not None:
            self._documents.leave(self._name, self)

    def _give_up(self) -> None:
        self._abort_call = None
        self.transport.abortConnection()


def make_socket_factory(reactor: IReactorTime, limits: YServerLimits) -> WebSocketServerFactory:
    """Make the object from which Autobahn's protocols take their options."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.log = _Silence()
    factory.server = "seance-yserver"
    options: dict[str, Any] = {
        "webStatus": False,
        "serveFlashSocketPolicy": False,
        "allowedOrigins": ["*"],
        "allowNullOrigin": True,
        "requireMaskedClientFrames": True,
        "maskServerFrames": False,
        "maxFramePayloadSize": limits.message_bytes,
        "maxMessagePayloadSize": limits.message_bytes,
        "autoFragmentSize": 0,
        "failByDrop": False,
        "echoCloseCodeReason": False,
        "openHandshakeTimeout": 0,
        "closeHandshakeTimeout": 0,
        "tcpNoDelay": True,
        "autoPingInterval": 0,
        "autoPingTimeout": 0,
        "perMessageCompressionAccept": lambda offers: None,
    }
    factory.setProtocolOptions(**options)
    return factory
