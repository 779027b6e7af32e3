"""Autobahn, hardened, with a ``Carrier`` on top: the only file that subclasses its protocols.

What is switched off, and why (yamux.md 5.1 and 5.2, each point checked in the sources of
26.10): the status page and its open redirect; flash policy; compression, since what passes is
dense already; every timer of Autobahn's, because they run on the global reactor and are cut to
whole seconds, so the ones we need are ours; origin checks, which the front does before; its log
lines, some of which quote whole requests. Heads never reach Autobahn unread: the relay's side
gets one that we rebuilt, the agent's side is read by ``seance.carrier.dial`` first, so its
unbounded and lenient head parser sees only what we have checked.

An exception in one of our callbacks would leave Autobahn's connection open and half alive; here
it is logged and ends the carrier. A peer that breaks the protocol gets a close frame that says so,
and after that nothing it sends is kept.
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
from seance.carrier.fast_frames import FastFrameCodec, frame, masked_frame
from seance.carrier.link_control import MAX_TEXT_BYTES, parse_control
from seance.carrier.transport import Carrier
from seance.errors import RemoteProtocolError
from seance.heads.fields import format_head

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ClientSocket", "ServerSocket", "check_headers", "make_client_factory", "make_server_factory"]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""hashicorp/yamux sends a whole window in one message; no peer is granted a larger one."""

CLOSE_SECONDS = 2.0
"""How long a closing handshake may take before the connection is cut, with all that is still queued."""

JOINED_BYTES = 4096
"""Below, header and payload are cheaper to join than to write as pieces."""

GOOD_CLOSES = (None, CloseCode.NORMAL, CloseCode.GOING_AWAY)

CONTROL_BYTES = 125
"""The longest payload of a control frame, and of the reason in a close frame, whose code takes two."""

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


class _Silence:
    """A logger for Autobahn that says nothing; see the top of the file."""

    def debug(self, *args: object, **kwargs: object) -> None:
        pass

    trace = info = warn = error = critical = debug


class _Socket:
    """What both sides share. Mixed in before an Autobahn protocol."""

    _log = Logger()
    log = _Silence()

    # Set by Autobahn and Twisted.
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

    answer_headers: Mapping[str, str] = {}  # of the 101 that opens it
    _carrier: Carrier | None = None
    _frames: FastFrameCodec  # as soon as there is a carrier
    _abort_call: IDelayedCall | None = None
    _unanswered_ping: bytes | None = None
    _is_binary = True
    _text: bytearray

    def __init__(self, reactor: IReactorTime, make_protocol: Callable[[str | None], IProtocol]) -> None:
        super().__init__()
        self._reactor = reactor
        self._make_protocol = make_protocol

    # -- from Twisted ----------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        carrier = self._carrier
        if carrier is None:
            self._dataReceived(data)  # type: ignore[attr-defined]  # Autobahn's, without its debug line
            return
        carrier.has_heard = True
        try:
            if self._is_between_frames() or self._frames.has_begun:
                data = self._frames.take(data)
            if data:
                self._dataReceived(data)  # type: ignore[attr-defined]  # as above
        except Exception:  # noqa: BLE001  # as in _ending_on_failure, for two calls less a message
            self._cut_for_failure()

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
        self._carrier.binary_arrived(payload)  # type: ignore[union-attr]  # it comes with the frames
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
            self._carrier.lost(self._how_it_ended())

    def _how_it_ended(self) -> str:
        if self.failedByMe or not self.wasClean:
            return self.wasNotCleanReason or "the connection was cut"
        if self.remoteCloseCode in GOOD_CLOSES:
            return ""
        return f"the other side closed with {self.remoteCloseCode} ({self.remoteCloseReason or 'no reason'})"

    # -- from Autobahn ---------------------------------------------------------------------

    def consumeData(self) -> None:
        # Also what is glued to a handshake comes by here, inside a Deferred that would eat the failure.
        self._ending_on_failure(super().consumeData)  # type: ignore[misc]  # Autobahn's

    def onOpen(self) -> None:
        self._frames = FastFrameCodec(
            self.factory.isServer, self._deliver, self._deliver_text, self._leave_control
        )
        self._carrier = Carrier(self, subprotocol=self.websocket_protocol_in_use, headers=self.answer_headers)
        self._ending_on_failure(self._start)

    def onPing(self, payload: bytes) -> None:
        # A peer that pings and does not read may not fill our memory with pongs; the latest is enough
        # (RFC 6455, 5.5.3).
        if self._carrier is not None and self._carrier.is_full:
            self._unanswered_ping = payload
        else:
            self.sendPong(payload)  # type: ignore[attr-defined]  # Autobahn's

    def onFrameData(self, payload: bytes) -> bool | None:
        # Autobahn goes on to collect a control frame of any length after it has called it too long.
        if self.failedByMe and self.current_frame.length > CONTROL_BYTES:
            return None
        handled: bool | None = super().onFrameData(payload)  # type: ignore[misc]  # Autobahn's
        return handled

    def onMessageBegin(self, isBinary: bool) -> None:  # noqa: N803  # Autobahn's name
        self._is_binary = isBinary
        self._text = bytearray()
        if not isBinary and self._carrier is not None and self._carrier.subprotocol is None:
            self._fail(CloseCode.UNSUPPORTED_DATA, "this endpoint takes binary messages: a yamux byte stream")

    def onMessageFrameBegin(self, length: int) -> None:
        limit = MAX_MESSAGE_BYTES if self._is_binary else MAX_TEXT_BYTES
        if length + len(self._text) > limit:
            self._fail(CloseCode.TOO_BIG, f"a message here has at most {limit} bytes")

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
            self._fail(CloseCode.PROTOCOL_ERROR, error.sentence)
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
        # Autobahn's last step. Once open we never abort here: that would drop a close frame on its way,
        # and whoever does not take it in time is cut by the timer above.
        super().dropConnection(abort=abort and self._carrier is None)  # type: ignore[misc]  # Autobahn's

    def unregisterProducer(self) -> None:
        # Part of the last step, and only of it.
        if self._carrier is not None:
            self._carrier.ended()

    def _fail_connection(self, code: int, reason: str) -> None:
        # Autobahn's verdict on a peer that broke the protocol.
        self._fail(code, reason)

    # -- from the carrier ------------------------------------------------------------------

    def send_binary(self, payload: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return
        pieces = frame(payload) if self.factory.isServer else masked_frame(payload, os.urandom(4))
        if len(payload) < JOINED_BYTES:
            self.transport.write(b"".join(pieces))
        else:
            self.transport.writeSequence(pieces)

    def send_text(self, payload: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return
        if self.factory.isServer:
            self.transport.writeSequence(frame(payload, is_text=True))
        else:
            self.transport.writeSequence(masked_frame(payload, os.urandom(4), is_text=True))

    def send_ping(self) -> None:
        if self.state == self.STATE_OPEN:
            self.sendPing()  # type: ignore[attr-defined]  # Autobahn's

    def send_close(self, code: int, reason: str) -> None:
        self.sendCloseFrame(int(code), encode_truncate(reason, CONTROL_BYTES - 2))

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._reactor.callLater(0, self._ending_on_failure, callback)

    def drained(self) -> None:
        payload, self._unanswered_ping = self._unanswered_ping, None
        if payload is not None:
            self.sendPong(payload)  # type: ignore[attr-defined]  # Autobahn's

    # -- inside ----------------------------------------------------------------------------

    def _start(self) -> None:
        carrier = cast(Carrier, self._carrier)
        carrier.start(self._make_protocol(carrier.subprotocol))

    def _ending_on_failure(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except Exception:  # noqa: BLE001  # whatever our own callbacks raise
            self._cut_for_failure()

    def _cut_for_failure(self) -> None:
        self._log.failure("A carrier failed and is cut", event="carrier.failed")
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
            self.wasNotCleanReason = "the other side did not answer the close frame"
        self.transport.abortConnection()


class ServerSocket(_Socket, WebSocketServerProtocol):
    """The relay's side of a carrier."""

    def onConnect(self, request: ConnectionRequest) -> tuple[str | None, Mapping[str, str]]:
        """Select the subprotocol: ``seance.carrier.answer`` offers just the one that was chosen."""
        return next(iter(request.protocols), None), self.answer_headers


class ClientSocket(_Socket, WebSocketClientProtocol):
    """The agent's side of a carrier; ``seance.carrier.dial`` reads the answer's head before it."""


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse further headers that could end a line: Autobahn writes whatever it is given.

    Raises:
        LocalProtocolError: ``"field_invalid"``.
    """
    format_head(b"GET / HTTP/1.1", [(name.encode(), value.encode()) for name, value in headers.items()])


def make_server_factory(reactor: IReactorTime) -> WebSocketServerFactory:
    """Make the object from which Autobahn's server protocols take their options."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.log = _Silence()
    factory.server = "seance-relay"
    factory.setProtocolOptions(
        webStatus=False,
        serveFlashSocketPolicy=False,
        allowedOrigins=["*"],
        allowNullOrigin=True,
        requireMaskedClientFrames=True,
        maskServerFrames=False,
        perMessageCompressionAccept=lambda offers: None,  # none is accepted
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
    """Make the object from which Autobahn's client protocols take request and options.

    Raises:
        LocalProtocolError: A further header is not legal.
    """
    check_headers(headers)
    factory = WebSocketClientFactory(
        protocols=list(offers), useragent=user_agent, headers=dict(headers), reactor=reactor
    )
    factory.log = _Silence()
    # Nothing but the request is made of these. Given a URL, Autobahn would write the Host of an IPv6
    # address without its brackets, and take a host named "unix" for something else.
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
