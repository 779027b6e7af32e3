"""Autobahn's WebSocket protocols with safe options, connected to a ``Carrier``.

These features of Autobahn (26.10) are switched off:

* the status page, which contains an open redirect, and the Flash policy;
* compression, because the data is compressed or random already;
* all timers, because they use the global reactor and whole seconds; this module has its own;
* origin checks, because the relay's frontend makes them;
* log lines, because some quote whole requests.

Autobahn's head parser is lenient and unbounded, so it gets checked heads only: on the relay a rebuilt
request, on the agent a response that ``seance.carrier.dial`` has read.

An exception in a callback would leave Autobahn's connection open but unusable, so it is logged and the
carrier is cut. A peer that violates the protocol gets a close frame with the reason, and further data from it
is dropped.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.util import encode_truncate
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.carrier.close_codes import CloseCode
from seance.carrier.fast_frames import MAX_MESSAGE_BYTES, Bytes, FastFrameCodec, frame, masked_frame
from seance.carrier.link_control import MAX_TEXT_BYTES, parse_control
from seance.carrier.transport import Carrier
from seance.errors import RemoteProtocolError
from seance.heads.fields import format_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ClientSocket", "ServerSocket", "check_headers", "make_client_factory", "make_server_factory"]

CLOSE_SECONDS = 2.0
"""Time for the closing handshake; after it the connection is cut and queued data is lost."""

MAX_JOIN_BYTES = 4096
"""Below this length it is cheaper to join header and payload than to write them separately."""

NORMAL_CLOSE_CODES = (None, CloseCode.NORMAL, CloseCode.GOING_AWAY)

MAX_CONTROL_BYTES = 125
"""Maximum payload of a control frame (RFC 6455, 5.5); in a close frame two of these bytes are the code."""

OPTIONS: dict[str, Any] = {
    "maxFramePayloadSize": MAX_MESSAGE_BYTES,
    "maxMessagePayloadSize": MAX_MESSAGE_BYTES,
    "autoFragmentSize": 0,
    "failByDrop": False,
    "echoCloseCodeReason": False,
    "openHandshakeTimeout": 0,
    "closeHandshakeTimeout": 0,
    "tcpNoDelay": True,
    "autoPingInterval": 0,
    "autoPingTimeout": 0,
}


class _NullLogger:
    """A logger for Autobahn that drops everything; see the module's docstring."""

    def debug(self, *args: object, **kwargs: object) -> None:
        pass

    trace = info = warn = error = critical = debug


class _Socket:
    """The common part of ``ClientSocket`` and ``ServerSocket``; a mixin before an Autobahn protocol."""

    _log = Logger()
    log = _NullLogger()

    # Autobahn and Twisted set these.
    factory: Any
    transport: Any
    state: int
    STATE_OPEN: int
    STATE_CLOSING: int
    current_frame: Any
    data: bytes
    inside_message: bool
    failedByMe: bool
    wasClean: bool
    wasNotCleanReason: str | None
    remoteCloseCode: int | None
    remoteCloseReason: str | None
    websocket_protocol_in_use: str | None

    answer_headers: Mapping[str, str] = {}  # of the 101
    takes_views = False
    """Whether ``dataReceived`` accepts a writable view, which the transport uses again after the call."""

    _carrier: Carrier | None = None
    _frames: FastFrameCodec  # set together with the carrier
    _abort_call: IDelayedCall | None = None
    _unanswered_ping: bytes | None = None
    _is_binary = True
    _text: bytearray

    def __init__(self, reactor: IReactorTime, make_protocol: Callable[[str | None], IProtocol]) -> None:
        super().__init__()
        self._reactor = reactor
        self._make_protocol = make_protocol

    # -- from Twisted ----------------------------------------------------------------------

    def connectionMade(self) -> None:
        # Autobahn's own method computes a channel ID for WAMP, which works with pyOpenSSL only.
        self.peer = ""
        self._connectionMade()  # type: ignore[attr-defined]  # Autobahn's

    def dataReceived(self, data: Bytes) -> None:
        carrier = self._carrier
        if carrier is None:
            self._dataReceived(data)  # type: ignore[attr-defined]  # Autobahn's dataReceived without its logging
            return
        carrier.has_heard = True
        try:
            if self._is_between_frames() or self._frames.has_begun:
                data = self._frames.take(data)
            if data:
                self._dataReceived(bytes(data))  # type: ignore[attr-defined]  # as above
        except Exception:  # noqa: BLE001  # as in _cut_on_failure, inlined to save two calls per message
            self._log_and_cut()

    def _is_between_frames(self) -> bool:
        return (
            self.state == self.STATE_OPEN
            and not self.data
            and self.current_frame is None
            and not self.inside_message
            and not self.failedByMe
        )

    def _deliver(self, payload: bytes) -> bool:
        if self.state != self.STATE_OPEN or self.failedByMe:
            return False
        self._carrier.binary_arrived(payload)  # type: ignore[union-attr]  # set before the frames
        return self.state == self.STATE_OPEN and not self.failedByMe

    def _leave_control(self, frame: bytes) -> bool:
        self._dataReceived(frame)  # type: ignore[attr-defined]  # as above
        return self._is_between_frames()

    def _deliver_text(self, text: bytes) -> bool:
        if (
            self.state != self.STATE_OPEN
            or self.failedByMe
            or cast(Carrier, self._carrier).subprotocol is None
        ):
            return False
        self._take_control(text)
        return True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._abort_call is not None:
            self._abort_call.cancel()
            self._abort_call = None
        super().connectionLost(reason)  # type: ignore[misc]  # Autobahn's
        if self._carrier is not None:
            self._carrier.peer_close_code = self.remoteCloseCode
            self._carrier.was_cut = self.remoteCloseCode is None and not self.failedByMe
            self._carrier.lost(self._close_error())

    def _close_error(self) -> str:
        """Return why the WebSocket ended, or "" if it was closed normally."""
        if self.failedByMe or not self.wasClean:
            return self.wasNotCleanReason or "the connection was cut"
        if self.remoteCloseCode in NORMAL_CLOSE_CODES:
            return ""
        return f"the peer closed with {self.remoteCloseCode} ({self.remoteCloseReason or 'no reason'})"

    # -- from Autobahn ---------------------------------------------------------------------

    def consumeData(self) -> None:
        # Data behind a handshake is also processed here, inside a Deferred that would swallow the failure.
        self._cut_on_failure(super().consumeData)  # type: ignore[misc]  # Autobahn's

    def onOpen(self) -> None:
        self._frames = FastFrameCodec(
            self.factory.isServer, self._deliver, self._deliver_text, self._leave_control
        )
        self._carrier = Carrier(self, subprotocol=self.websocket_protocol_in_use, headers=self.answer_headers)
        # Without a mask, a view saves no copy.
        self.takes_views = self.factory.isServer
        self._cut_on_failure(self._start)

    def onPing(self, payload: bytes) -> None:
        # A peer that pings but does not read must not fill the memory with pongs. Answering the latest ping
        # is enough (RFC 6455, 5.5.3).
        if self._carrier is not None and self._carrier.is_full:
            self._unanswered_ping = payload
        else:
            self.sendPong(payload)  # type: ignore[attr-defined]  # Autobahn's

    def onFrameData(self, payload: bytes) -> bool | None:
        # Autobahn keeps buffering a control frame after it has reported that the frame is too long.
        if self.failedByMe and self.current_frame.length > MAX_CONTROL_BYTES:
            return None
        handled: bool | None = super().onFrameData(payload)  # type: ignore[misc]  # Autobahn's
        return handled

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: N803  # Autobahn's name
        self._is_binary = isBinary
        self._text = bytearray()
        if not isBinary and self._carrier is not None and self._carrier.subprotocol is None:
            self._fail(
                CloseCode.UNSUPPORTED_DATA, "this endpoint accepts binary messages only, with yamux data"
            )

    def onMessageFrameBegin(self, length: int) -> None:
        limit = MAX_MESSAGE_BYTES if self._is_binary else MAX_TEXT_BYTES
        if length + len(self._text) > limit:
            self._fail(CloseCode.TOO_BIG, f"the message is longer than {limit} bytes")

    def onMessageFrameData(self, payload: bytes) -> None:
        if self.failedByMe or self._carrier is None:
            return
        if self._is_binary:
            self._carrier.binary_arrived(payload)
        else:
            self._text += payload

    def onMessageFrameEnd(self) -> None:
        pass

    def onMessageEnd(self) -> None:
        if self._is_binary or self.failedByMe or self._carrier is None:
            return
        self._take_control(bytes(self._text))

    def _take_control(self, text: bytes) -> None:
        try:
            message = parse_control(text)
        except RemoteProtocolError as error:
            self._fail(CloseCode.PROTOCOL_ERROR, error.message)
        else:
            cast(Carrier, self._carrier).control_arrived(message)

    def sendCloseFrame(
        self,
        code: int | None = None,
        reasonUtf8: bytes | None = None,  # noqa: N803  # Autobahn's name
        isReply: bool = False,  # noqa: N803
    ) -> None:
        super().sendCloseFrame(code, reasonUtf8, isReply)  # type: ignore[misc]  # Autobahn's
        if self.state == self.STATE_CLOSING and self._abort_call is None:
            self._abort_call = self._reactor.callLater(CLOSE_SECONDS, self._give_up)

    def dropConnection(self, abort: bool = False) -> None:
        # Autobahn's last step. An open carrier is not aborted here, which would drop a close frame that is
        # still queued. If the peer does not read it in time, the timer above cuts the connection.
        super().dropConnection(abort=abort and self._carrier is None)  # type: ignore[misc]  # Autobahn's

    def unregisterProducer(self) -> None:
        # Autobahn calls this in its last step only.
        if self._carrier is not None:
            self._carrier.ended()

    def _fail_connection(self, code: int, reason: str) -> None:
        # Autobahn calls this when the peer has violated the protocol.
        self._fail(code, reason)

    # -- from the carrier ------------------------------------------------------------------

    def send_binary(self, payload: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return
        pieces = frame(payload) if self.factory.isServer else masked_frame(payload, os.urandom(4))
        if len(payload) < MAX_JOIN_BYTES:
            self.transport.write(b"".join(pieces))
        else:
            # The transports of seance.net send a bytearray without a copy, others accept only bytes.
            takes_buffers = getattr(self.transport, "takes_buffers", False)
            self.transport.writeSequence(pieces if takes_buffers else list(map(bytes, pieces)))

    def send_text(self, payload: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return
        if self.factory.isServer:
            pieces = frame(payload, is_text=True)
        else:
            pieces = masked_frame(payload, os.urandom(4), is_text=True)
        self.transport.write(b"".join(pieces))

    def send_ping(self) -> None:
        if self.state == self.STATE_OPEN:
            self.sendPing()  # type: ignore[attr-defined]  # Autobahn's

    def send_close(self, code: int, reason: str) -> None:
        self.sendCloseFrame(int(code), encode_truncate(reason, MAX_CONTROL_BYTES - 2))

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._reactor.callLater(0, self._cut_on_failure, callback)

    def drained(self) -> None:
        payload, self._unanswered_ping = self._unanswered_ping, None
        if payload is not None:
            self.sendPong(payload)  # type: ignore[attr-defined]  # Autobahn's

    # -- inside ----------------------------------------------------------------------------

    def _start(self) -> None:
        carrier = cast(Carrier, self._carrier)
        carrier.start(self._make_protocol(carrier.subprotocol))

    def _cut_on_failure(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001  # the callbacks of this project may raise anything
            self._log_and_cut()

    def _log_and_cut(self) -> None:
        self._log.failure("A carrier is cut because of an unexpected error", event="carrier.failed")
        (self._carrier or self.transport).abortConnection()

    def _fail(self, code: int, reason: str) -> None:
        if not self.failedByMe:
            self.failedByMe = True
            self.wasNotCleanReason = reason
            self.send_close(code, reason)

    def _give_up(self) -> None:
        self._abort_call = None
        if not self.wasClean and not self.failedByMe:
            self.failedByMe = True
            self.wasNotCleanReason = "the peer did not answer the close frame"
        self.transport.abortConnection()


class ServerSocket(_Socket, WebSocketServerProtocol):
    """The relay's side of a carrier."""

    def onConnect(self, request: ConnectionRequest) -> tuple[str | None, Mapping[str, str]]:
        """Select the subprotocol: ``seance.carrier.answer`` puts only the chosen one into the request."""
        return next(iter(request.protocols), None), self.answer_headers


class ClientSocket(_Socket, WebSocketClientProtocol):
    """The agent's side of a carrier; ``seance.carrier.dial`` reads the head of the response first."""


def check_headers(headers: Mapping[str, str]) -> None:
    """Check additional header fields, because Autobahn writes them unchecked, line breaks included.

    Raises:
        LocalProtocolError: A field is not legal (``"field_invalid"``).
    """
    format_head(b"GET / HTTP/1.1", [(name.encode(), value.encode()) for name, value in headers.items()])


def make_server_factory(reactor: IReactorTime) -> WebSocketServerFactory:
    """Return the factory that holds the options of Autobahn's server protocols."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.log = _NullLogger()
    factory.server = "seance-relay"
    factory.setProtocolOptions(
        webStatus=False,
        serveFlashSocketPolicy=False,
        allowedOrigins=["*"],
        allowNullOrigin=True,
        requireMaskedClientFrames=True,
        maskServerFrames=False,
        perMessageCompressionAccept=lambda offers: None,
        **OPTIONS,
    )
    return factory


def make_client_factory(
    reactor: IReactorTime,
    host: str,
    port: int,
    target: str,
    user_agent: str,
    headers: Mapping[str, str],
    offers: Sequence[str],
) -> WebSocketClientFactory:
    """Return the factory that holds the request and the options of Autobahn's client protocols.

    Raises:
        LocalProtocolError: One of ``headers`` is not legal.
    """
    check_headers(headers)
    factory = WebSocketClientFactory(
        protocols=list(offers), useragent=user_agent, headers=dict(headers), reactor=reactor
    )
    factory.log = _NullLogger()
    # Only the request is made from these. From a URL, Autobahn would write the Host of an IPv6 address
    # without brackets, and treat a host named "unix" as a UNIX socket.
    factory.host = f"[{host}]" if ":" in host else host
    factory.port = port
    factory.resource = target
    factory.setProtocolOptions(
        acceptMaskedServerFrames=False,
        maskClientFrames=True,
        serverConnectionDropTimeout=0,
        perMessageCompressionOffers=[],
        **OPTIONS,
    )
    return factory
