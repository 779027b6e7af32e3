"""A carrier: a WebSocket as a byte transport.

The WebSocket implementation is Autobahn, behind ``seance.carrier.websocket``. A ``Carrier`` is an
``ITransport`` that passes the same contract tests as TCP (``tests/contract.py``), but it has no half-close,
because a WebSocket ends in both directions together. Each ``write`` or ``writeSequence`` of up to
``max_message_bytes`` is sent as one binary message. Received message boundaries have no meaning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, cast

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
from seance.carrier.link_control import RESUMABLE
from seance.carrier.states import CARRIER, CarrierState, CarrierStep
from seance.yamux import LARGE_MESSAGE_BYTES, MESSAGE_BYTES

__all__ = ["Carrier", "Socket"]

# A constant for each message's check, because reading an enum's member takes 0.1 us before Python 3.12.
OPEN: Final = CarrierState.OPEN


class Socket(Protocol):
    """The WebSocket below a carrier. Once it is closing, it sends no further messages."""

    transport: object

    def send_binary(self, payload: bytes) -> None:
        """Send one binary message."""

    def send_text(self, payload: bytes) -> None:
        """Send one text message."""

    def send_ping(self) -> None:
        """Send a WebSocket ping."""

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame."""

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call in the reactor's next turn; an exception cuts the carrier."""

    def drained(self) -> None:
        """Handle that the connection below is no longer full."""


class Carrier:
    """The transport over one WebSocket. Its states are in ``seance.carrier.states``.

    Args:
        socket: The open WebSocket, which also limits the time for the closing handshake.
        subprotocol: The negotiated subprotocol; None for a plain peer, which gets no text messages.
        headers: See below.

    Attributes:
        headers: On the agent's side, the fields of the 101, names in lower case; on the relay's side, the
            fields that the relay added to it.
        on_control: Called with each link control message, a JSON object with a ``t``.
        max_message_bytes: Maximum length of a binary message: 64 KiB, or 256 KiB for a peer that resumes,
            which accepts messages of any size.
        peer_close_code: Once the carrier is lost, the code of the peer's close frame; None if there was none.
        was_cut: Once the carrier is lost, whether it ended without a close frame and without a protocol error
            of the peer: the connection below was lost.
        has_heard: Set when data is received; ``CarrierHeartbeat`` clears it.
        is_full: Whether the producer is paused because the connection below is full.
    """

    def __init__(
        self, socket: Socket, *, subprotocol: str | None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._socket = socket
        self.transport = cast(ITransport, socket.transport)
        self.subprotocol = subprotocol
        self.headers = headers or {}
        self.max_message_bytes = LARGE_MESSAGE_BYTES if subprotocol == RESUMABLE else MESSAGE_BYTES
        self.on_control: Callable[[dict[str, object]], None] | None = None
        self.peer_close_code: int | None = None
        self.was_cut = False
        self.has_heard = True
        self.is_full = False
        self._protocol: IProtocol | None = None
        self._producer: IProducer | None = None
        self._waiting: deque[bytes] = deque()
        self._reason: Failure | None = None  # why the WebSocket has ended, once it has
        self._state = OPEN
        # Not in the table: reading can be paused, and the WebSocket can stop sending, in several of its
        # states.
        self._is_paused = False
        self._has_ended = False
        self._close_code: int = CloseCode.NORMAL
        self._close_reason = ""

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether this side has closed. Not part of an interface, but used by Twisted's ``LineReceiver``."""
        return self._state not in (OPEN, CarrierState.UNREAD)

    @property
    def is_behind(self) -> bool:
        """Whether the protocol has paused reading, or has not yet received data that arrived meanwhile."""
        return self._is_paused or bool(self._waiting)

    def write(self, data: bytes) -> None:
        """Send ``data``, in messages of at most ``max_message_bytes``; after the close it is dropped."""
        if type(data) is not bytes:
            msg = f"a transport takes bytes, not {type(data).__name__}"
            raise TypeError(msg)
        if not data:
            return
        limit = self.max_message_bytes
        if len(data) <= limit:
            self._socket.send_binary(data)
        else:
            for start in range(0, len(data), limit):
                self._socket.send_binary(data[start : start + limit])

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the concatenation of ``iovec``: one message if it is not longer than ``max_message_bytes``."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close both directions once all written data is sent and no producer is registered."""
        self.close(CloseCode.NORMAL, "")

    def close(self, code: int, reason: str) -> None:
        """Close as ``loseConnection`` does, with a code and a reason.

        Args:
            code: One of ``CloseCode``.
            reason: Readable text; at most 123 bytes of it are sent.
        """
        if not self._step(CarrierStep.CLOSE):
            return
        self._close_code, self._close_reason = code, reason
        self._waiting.clear()
        if self._state is CarrierState.ENDING:
            self._socket.call_soon(self._report_loss)
            return
        if self._is_paused:
            # Received data is dropped from now on, but the peer's close frame must be read.
            self._is_paused = False
            cast(IPushProducer, self.transport).resumeProducing()
        if self._producer is None:
            self._send_close()

    def abortConnection(self) -> None:
        """Cut the connection now."""
        if not self._step(CarrierStep.ABORT):
            return
        self._waiting.clear()
        if self._state is CarrierState.ENDING:
            self._reason = Failure(ConnectionAborted())
            self._socket.call_soon(self._report_loss)
        else:
            cast(ITCPTransport, self.transport).abortConnection()

    def getPeer(self) -> IAddress:
        """Return the peer's address of the connection below."""
        return self.transport.getPeer()

    def getHost(self) -> IAddress:
        """Return the local address of the connection below."""
        return self.transport.getHost()

    # -- IConsumer -------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause ``producer`` while the connection below is full."""
        if self._producer is not None:
            msg = f"cannot register {producer!r}: {self._producer!r} is registered already"
            raise RuntimeError(msg)
        if self._has_ended:
            producer.stopProducing()
            return
        self._producer = producer
        below = _FullnessObserver(self, cast(IPushProducer, producer)) if streaming else producer
        cast(IConsumer, self.transport).registerProducer(below, streaming)

    def unregisterProducer(self) -> None:
        """Remove the producer, and send a close frame that was waiting for this."""
        self._forget_producer()
        self._send_close()

    def _forget_producer(self) -> IProducer | None:
        producer, self._producer = self._producer, None
        if producer is not None:
            cast(IConsumer, self.transport).unregisterProducer()
            self.note_full(False)
        return producer

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing until ``resumeProducing``. ``seance.mux`` never does this."""
        if self._state in (OPEN, CarrierState.UNREAD):
            self._is_paused = True
            cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver again: data that was read already from the next turn on, then new data."""
        if self._is_paused:
            self._is_paused = False
            cast(IPushProducer, self.transport).resumeProducing()
            if self._waiting or self._reason is not None:
                self._socket.call_soon(self._deliver)

    def stopProducing(self) -> None:
        """Close, as TCP transports do when their consumer has ended."""
        self.loseConnection()

    # -- pings and link control ------------------------------------------------------------

    def ping(self) -> None:
        """Send a ping, which every WebSocket implementation answers."""
        self._socket.send_ping()

    def send_control(self, message: bytes) -> None:
        """Send a link control message; do nothing if the peer is a plain one."""
        if self.subprotocol is not None:
            self._socket.send_text(message)

    # -- from the WebSocket ----------------------------------------------------------------

    def start(self, protocol: IProtocol) -> None:
        """Connect ``protocol`` to this transport, now that the WebSocket is open."""
        self._protocol = protocol
        protocol.makeConnection(self)

    def binary_arrived(self, payload: bytes) -> None:
        """Receive a piece of a binary message."""
        if self._state is not OPEN or not payload:
            return
        if self._is_paused or self._waiting:
            self._waiting.append(payload)
        else:
            cast(IProtocol, self._protocol).dataReceived(payload)

    def control_arrived(self, message: dict[str, object]) -> None:
        """Receive a link control message; it is ignored if ``on_control`` is not set."""
        if self.on_control is not None:
            self.on_control(message)

    def note_full(self, is_full: bool) -> None:
        """Record whether the connection below is full."""
        self.is_full = is_full
        if not is_full:
            self._socket.drained()

    def ended(self) -> None:
        """Handle the end of the closing handshake: data written from now on is dropped."""
        self._has_ended = True
        producer = self._forget_producer()
        if producer is not None:
            producer.stopProducing()

    def lost(self, error: str) -> None:
        """Handle the loss of the connection below; ``error`` is empty after a normal close."""
        self._has_ended = True
        self._producer = None
        if self._state is CarrierState.ABORTING:
            self._reason = Failure(ConnectionAborted())
        else:
            self._reason = Failure(ConnectionLost(error) if error else ConnectionDone())
        # A normal end is reported only after the data that the protocol has not yet read.
        if error or not self.is_behind or not self._step(CarrierStep.ENDED_UNREAD):
            self._report_loss()

    # -- inside ----------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._waiting and not self._is_paused:
            cast(IProtocol, self._protocol).dataReceived(self._waiting.popleft())
        if self._reason is not None and not self._waiting and not self._is_paused:
            self._report_loss()

    def _step(self, step: CarrierStep) -> bool:
        """Go to the next state; return False if the step is ignored in the present one."""
        state = CARRIER.get((self._state, step))
        if state is None:
            return False
        self._state = state
        return True

    def _report_loss(self) -> None:
        if not self._step(CarrierStep.LOST):
            return
        self._waiting.clear()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(cast(Failure, self._reason))

    def _send_close(self) -> None:
        if self._step(CarrierStep.SEND_CLOSE):
            self._socket.send_close(self._close_code, self._close_reason)


class _FullnessObserver:
    """The producer of the connection below: passes pauses on and records whether that connection is full."""

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


# Without the decorator, because mypyc does not compile decorated classes
# (docs/decisions/0020-a-compiled-form.md).
classImplements(Carrier, ITransport, IConsumer, IPushProducer)
classImplements(_FullnessObserver, IPushProducer)
