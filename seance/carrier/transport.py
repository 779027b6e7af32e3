"""A carrier: a WebSocket that passes for a byte transport.

Not a WebSocket implementation (that is Autobahn, behind ``seance.carrier.websocket``). To the
protocol at its end it is an ``ITransport`` like TCP, and held to the same contract
(``tests/contract.py``), except that it cannot half-close: a WebSocket ends in both directions at
once. Each ``write`` or ``writeSequence`` of up to 64 KiB leaves as one binary message; on receipt
message boundaries mean nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import classImplements

from seance.carrier.close_codes import CloseCode

__all__ = ["MESSAGE_BYTES", "Carrier", "Socket"]

MESSAGE_BYTES = 64 * 1024
"""The longest binary message we send; proxies and other implementations all take it."""


class Socket(Protocol):
    """What a carrier needs of the WebSocket under it. Once that is closing, nothing is sent any more."""

    transport: object

    def send_binary(self, payload: bytes) -> None:
        """Send one binary message."""

    def send_text(self, payload: bytes) -> None:
        """Send one text message."""

    def send_ping(self) -> None:
        """Ask for a sign of life."""

    def send_close(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame."""

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call in the next turn; a failure ends the carrier."""

    def drained(self) -> None:
        """Take note that the connection below is full no more."""


class Carrier:
    """The transport of whatever runs over the WebSocket.

    Args:
        socket: The open WebSocket, which also bounds how long a closing handshake may take.
        subprotocol: What was negotiated; None is a plain peer that gets no text messages.
        headers: See below.

    Attributes:
        headers: On the agent's side, what the 101 said, names in small letters; on the relay's, what
            we have added to it.
        on_control: Called with each link control message (an object with a ``t``).
        peer_close_code: The code of the other side's close frame, once the carrier is lost; None
            without one.
        was_cut: Whether, once the carrier is lost, that was without a close frame of the other side and
            without a fault of it: the connection below is gone, and nobody said why.
        has_heard: Set with every byte that comes; whoever listens for life (``seance.carrier.pulse``)
            takes it back.
        is_full: Whether a push producer is being held back, because the peer does not read.
    """

    def __init__(
        self, socket: Socket, *, subprotocol: str | None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._socket = socket
        self.transport = cast(ITransport, socket.transport)
        self.subprotocol = subprotocol
        self.headers = headers or {}
        self.on_control: Callable[[dict[str, object]], None] | None = None
        self.peer_close_code: int | None = None
        self.was_cut = False
        self.has_heard = True
        self.is_full = False
        self._protocol: IProtocol | None = None
        self._producer: IProducer | None = None
        self._waiting: deque[bytes] = deque()
        self._reason: Failure | None = None  # the WebSocket is over, for this reason
        self._is_paused = False
        self._is_closing = False
        self._is_aborting = False
        self._sent_close = False
        self._has_ended = False
        self._is_lost = False
        self._close_code: int = CloseCode.NORMAL
        self._close_reason = ""

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether it is closing: in no interface, but Twisted's ``LineReceiver`` asks for it."""
        return self._is_closing

    @property
    def is_behind(self) -> bool:
        """Whether the protocol has paused us, or has not been given yet what came meanwhile."""
        return self._is_paused or bool(self._waiting)

    def write(self, data: bytes) -> None:
        """Send ``data``, in messages of at most 64 KiB; after the close it is dropped quietly."""
        if type(data) is not bytes:
            msg = f"a transport takes bytes, not {type(data).__name__}"
            raise TypeError(msg)
        if not data:
            return
        if len(data) <= MESSAGE_BYTES:
            self._socket.send_binary(data)
        else:
            for start in range(0, len(data), MESSAGE_BYTES):
                self._socket.send_binary(data[start : start + MESSAGE_BYTES])

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the concatenation of ``iovec``: one message if it has at most 64 KiB."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close both directions once everything written has left and no producer is registered."""
        self.close(CloseCode.NORMAL, "")

    def close(self, code: int, reason: str) -> None:
        """Close as ``loseConnection`` does, and say why.

        Args:
            code: One of ``CloseCode``.
            reason: For a person; at most 123 bytes of it leave.
        """
        if self._is_closing or self._is_lost:
            return
        self._is_closing = True
        self._close_code, self._close_reason = code, reason
        self._waiting.clear()
        if self._reason is not None:
            self._socket.call_soon(self._lose)
            return
        if self._is_paused:
            # What arrives is dropped, but the peer's close frame has to be read.
            self._is_paused = False
            cast(IPushProducer, self.transport).resumeProducing()
        if self._producer is None:
            self._say_close()

    def abortConnection(self) -> None:
        """Cut the connection now."""
        if self._is_lost or self._is_aborting:
            return
        self._is_closing = self._is_aborting = True
        self._waiting.clear()
        if self._reason is not None:
            self._reason = Failure(ConnectionAborted())
            self._socket.call_soon(self._lose)
        else:
            cast(ITCPTransport, self.transport).abortConnection()

    def getPeer(self) -> IAddress:
        """The address of the other end of the connection below."""
        return self.transport.getPeer()

    def getHost(self) -> IAddress:
        """The address of this end of the connection below."""
        return self.transport.getHost()

    # -- IConsumer -------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause and resume ``producer`` as the connection below takes what is written."""
        if self._producer is not None:
            msg = f"cannot register {producer!r}: {self._producer!r} is registered already"
            raise RuntimeError(msg)
        if self._has_ended:
            producer.stopProducing()
            return
        self._producer = producer
        below = _Valve(self, cast(IPushProducer, producer)) if streaming else producer
        cast(IConsumer, self.transport).registerProducer(below, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer; a close that waited for it goes on."""
        self._forget_producer()
        if self._is_closing and not self._is_lost:
            self._say_close()

    def _forget_producer(self) -> IProducer | None:
        producer, self._producer = self._producer, None
        if producer is not None:
            cast(IConsumer, self.transport).unregisterProducer()
            self.note_full(False)
        return producer

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing until ``resumeProducing``. ``seance.mux`` never does this."""
        if not self._is_closing and not self._is_lost:
            self._is_paused = True
            cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver what was read already, from the next turn on, then read on."""
        if self._is_paused:
            self._is_paused = False
            cast(IPushProducer, self.transport).resumeProducing()
            if self._waiting or self._reason is not None:
                self._socket.call_soon(self._deliver)

    def stopProducing(self) -> None:
        """Whoever consumed us is gone: close, as TCP transports do."""
        self.loseConnection()

    # -- life and link control -------------------------------------------------------------

    def ping(self) -> None:
        """Ask for a sign of life; every WebSocket answers."""
        self._socket.send_ping()

    def send_control(self, message: bytes) -> None:
        """Send a link control message.

        A plain peer is never sent one: the call does nothing then, so that callers need not ask.
        """
        if self.subprotocol is not None:
            self._socket.send_text(message)

    # -- from the WebSocket ----------------------------------------------------------------

    def start(self, protocol: IProtocol) -> None:
        """The WebSocket is open: ``protocol`` gets this transport."""
        self._protocol = protocol
        protocol.makeConnection(self)

    def binary_arrived(self, payload: bytes) -> None:
        """Take a piece of a binary message."""
        if self._is_closing or not payload:
            return
        if self._is_paused or self._waiting:
            self._waiting.append(payload)
        else:
            cast(IProtocol, self._protocol).dataReceived(payload)

    def control_arrived(self, message: dict[str, object]) -> None:
        """Take a link control message; words that nobody listens for are ignored."""
        if self.on_control is not None:
            self.on_control(message)

    def note_full(self, is_full: bool) -> None:
        """Take note whether the connection below takes more."""
        self.is_full = is_full
        if not is_full:
            self._socket.drained()

    def ended(self) -> None:
        """The close frames are exchanged: whatever is still written is for nobody."""
        self._has_ended = True
        producer = self._forget_producer()
        if producer is not None:
            producer.stopProducing()

    def lost(self, sentence: str) -> None:
        """The connection below is gone; ``sentence`` says how if it was not orderly."""
        self._has_ended = True
        self._producer = None
        if self._is_aborting:
            self._reason = Failure(ConnectionAborted())
        else:
            self._reason = Failure(ConnectionLost(sentence) if sentence else ConnectionDone())
        # An orderly end waits its turn behind what the protocol has not wanted to read yet.
        if sentence or self._is_closing or not (self._is_paused or self._waiting):
            self._lose()

    # -- inside ----------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._waiting and not self._is_paused:
            cast(IProtocol, self._protocol).dataReceived(self._waiting.popleft())
        if self._reason is not None and not self._waiting and not self._is_paused:
            self._lose()

    def _lose(self) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        self._waiting.clear()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(cast(Failure, self._reason))

    def _say_close(self) -> None:
        if not self._sent_close:
            self._sent_close = True
            self._socket.send_close(self._close_code, self._close_reason)


class _Valve:
    """Stands between the connection below and a push producer, to know whether it is shut."""

    def __init__(self, carrier: Carrier, producer: IPushProducer) -> None:
        self._carrier = carrier
        self._producer = producer

    def pauseProducing(self) -> None:
        self._carrier.note_full(True)
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._carrier.note_full(False)
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._producer.stopProducing()


# Not by the decorator: what has one stays interpreted in the compiled form (decision 20).
classImplements(Carrier, ITransport, IConsumer, IPushProducer)
classImplements(_Valve, IPushProducer)
