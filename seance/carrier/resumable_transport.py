"""A byte transport over one carrier after the other, for a session between peers that can resume.

The protocol above (``seance.mux.Mux``) sees one ordinary transport, which is full while it has no carrier.
Each carrier below has a ``CarrierProtocol``. ``seance.resume.Continuity`` decides which data is new and which
has to be sent again. The callers decide who may resume and for how long (``seance.relay``, ``seance.agent``).

A carrier that is lost without a close frame only detaches the transport. A ``bye`` or a close frame ends it,
except with two close codes that proxies send when they stop. Acknowledgements are text messages. They are not
sent while the carrier is full, so a peer that sends but never reads cannot fill the memory with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from seance.carrier.carrier_heartbeat import CarrierHeartbeat
from seance.carrier.close_codes import CloseCode
from seance.carrier.protocol import CarrierProducer, CarrierProtocol
from seance.carrier.states import FLOW, TRANSPORT, Flow, FlowStep, TransportState, TransportStep
from seance.carrier.transport import Carrier
from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.resume import ACK_AFTER_BYTES, ACK_AFTER_SECONDS, BYE, KEPT_BYTES, Ack, AckTimeout, Continuity
from seance.yamux import LARGE_MESSAGE_BYTES

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ResumableTransport"]

# Constants for checks on each message: before Python 3.12, reading an enum member takes 0.1 us.
OPEN: Final = TransportState.OPEN
CLOSING: Final = TransportState.CLOSING
CLOSED: Final = TransportState.CLOSED
BACKLOG: Final = Flow.BACKLOG

PROXY_CLOSE_CODES = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)
"""Close codes of proxies that stop or reload (Caddy sends 1001). A peer that closes with these sends ``bye``
first."""


class ResumableTransport:
    """The transport. Its states are in ``seance.carrier.states``.

    Call ``begin`` and ``join`` with each carrier; the first ``join`` connects the protocol.

    Args:
        reactor: Provides the time.
        protocol: The protocol above.
        on_detached: Called with the reason when the carrier is lost and another one may follow.
        kept_bytes: Maximum amount of unacknowledged data; writing pauses above it.

    Attributes:
        continuity: The counters, for metrics and for the resumption handshake.
        carrier: The present carrier; None while detached.
        on_control: Called with each link control message that does not concern resumption.
        on_settled: Called when the peer has acknowledged data on a new carrier.
        is_broken: Whether the transport has ended because one peer found an error in the other's counters.
    """

    _log = Logger()

    max_message_bytes = LARGE_MESSAGE_BYTES  # as ``Carrier.max_message_bytes``, of every carrier

    def __init__(
        self,
        reactor: IReactorTime,
        protocol: IProtocol,
        *,
        on_detached: Callable[[str], None],
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._reactor = reactor
        self._protocol: IProtocol | None = protocol
        self._on_detached = on_detached
        self.continuity = Continuity(kept_bytes)
        self.carrier: Carrier | None = None
        self.on_control: Callable[[dict[str, object]], None] | None = None
        self.on_settled: Callable[[], None] | None = None
        self.is_broken = False
        self._heartbeat: CarrierHeartbeat | None = None
        self._peer: IAddress | None = None
        self._host: IAddress | None = None
        self._producer: IProducer | None = None
        self._state = OPEN
        self._flow = BACKLOG
        # Not in the tables, because each of these is independent of both states and of the others.
        self._is_streaming = True
        self._is_paused = False
        self._has_started = False
        self._has_settled = False
        self._owes_ack = False
        self._ack_call: IDelayedCall | None = None
        self._close: tuple[int, str] = (CloseCode.NORMAL, "")

    # -- attaching and losing carriers -----------------------------------------------------

    @property
    def is_attached(self) -> bool:
        """Whether there is a carrier."""
        return self.carrier is not None

    def begin(self, peer_count: int, peer_crc: int) -> int:
        """Drop the old carrier, if there is one, and prepare for a new one. Call ``join`` next.

        Args:
            peer_count: Number of bytes that the peer has received.
            peer_crc: Their checksum.

        Returns:
            The epoch of the new carrier.

        Raises:
            LocalProtocolError: The transport is closing or over (``"link_over"``).
            RemoteProtocolError: The peer's numbers are wrong; nothing has changed.
        """
        if self._state is CLOSING:
            raise LocalProtocolError("The link is closing and takes no further carrier.", code="link_over")
        epoch = self.continuity.attach(peer_count, peer_crc)
        stale, self.carrier = self.carrier, None
        self._forget_carrier()
        self._step_flow(FlowStep.DETACHED)
        if stale is not None:
            stale.abortConnection()  # undelivered data is sent again over the next carrier
        return epoch

    def join(self, carrier_protocol: CarrierProtocol, epoch: int) -> None:
        """Continue over the carrier of ``carrier_protocol``.

        Args:
            carrier_protocol: The protocol of an open carrier.
            epoch: The epoch that ``begin`` returned; if it is outdated, the carrier is cut.
        """
        carrier = carrier_protocol.carrier
        if not self.continuity.is_current(epoch) or self.carrier is not None:
            carrier.abortConnection()
            return
        carrier_protocol.serve(self, epoch)
        self.carrier = carrier
        self._peer, self._host = carrier.getPeer(), carrier.getHost()
        timeout = AckTimeout(self._reactor.seconds())
        self._heartbeat = CarrierHeartbeat(self._reactor, carrier, lambda: self._check_unacked(timeout))
        self._has_settled = False
        carrier.on_control = lambda message: self._control_arrived(epoch, message)
        carrier.registerProducer(CarrierProducer(self, epoch), True)
        if self._is_paused:
            carrier.pauseProducing()
        if not self._has_started:
            self._has_started = True
            self._catch_up()
            cast(IProtocol, self._protocol).makeConnection(self)
        else:
            self._catch_up()

    def give_up(self, epoch: int) -> None:
        """Handle that the carrier prepared by ``begin`` could not be opened."""
        if self.carrier is None and self.continuity.detach(epoch):
            self._on_detached("The new carrier did not open.")

    def carrier_lost(self, epoch: int, reason: Failure) -> None:
        """Handle the loss of a carrier. Called by ``CarrierProtocol``."""
        if not self.continuity.detach(epoch):
            return
        carrier = cast(Carrier, self.carrier)
        self.carrier = None
        self._forget_carrier()
        may_resume = carrier.was_cut or carrier.peer_close_code in PROXY_CLOSE_CODES
        self.is_broken = not may_resume and carrier.peer_close_code == CloseCode.PROTOCOL_ERROR
        if self._state is not OPEN or not may_resume:
            self._finish(reason)
        else:
            self._step_flow(FlowStep.DETACHED)
            self._on_detached(reason.getErrorMessage())

    def expire(self, message: str) -> None:
        """End now, without waiting for the peer; a present carrier is closed."""
        if self.carrier is not None:
            code, reason = self._close
            self._close_carrier(code, reason or message)
        self._finish(Failure(ConnectionLost(message)))

    def probe(self) -> None:
        """Cut the carrier unless the peer answers within two seconds."""
        if self._heartbeat is not None:
            self._heartbeat.probe()

    def _forget_carrier(self) -> None:
        self._owes_ack = False
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._ack_call is not None:
            self._ack_call.cancel()
            self._ack_call = None

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether this side has closed. Not part of an interface, but used by Twisted's ``LineReceiver``."""
        return self._state in (CLOSING, CLOSED)

    def write(self, data: bytes) -> None:
        """Send ``data``, over this carrier or the next; after the close it is dropped."""
        if type(data) is not bytes:
            msg = f"a transport takes bytes, not {type(data).__name__}"
            raise TypeError(msg)
        if not data or (self._state is not OPEN and self._drops_writes()):
            return
        if self._flow is BACKLOG:
            is_full = self.continuity.outgoing.hold(data)
        else:
            is_full = self.continuity.outgoing.add(data)
            self.carrier.write(data)  # type: ignore[union-attr]  # without a carrier there is a backlog
        if is_full:
            self._step_flow(FlowStep.FILLED)
        elif not self._is_streaming and self._producer is not None and self._flow is Flow.FLOWING:
            self._reactor.callLater(0, self._ask_for_more)

    def _drops_writes(self) -> bool:
        return self._state is CLOSED or (self._state is CLOSING and self._producer is None)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the concatenation of ``iovec``: one message if it is not longer than ``max_message_bytes``."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close once all written data is sent and no producer is registered."""
        self.close(CloseCode.NORMAL, "")

    def close(self, code: int, reason: str) -> None:
        """Close as ``loseConnection`` does, with a code and a reason.

        Args:
            code: One of ``CloseCode``.
            reason: Readable text.
        """
        if self._step(TransportStep.CLOSE):
            self._close = (code, reason)
            if self._producer is None:
                self._say_bye()

    def abortConnection(self) -> None:
        """Cut the connection now. The peer may keep its end until its session expires."""
        if self._state is CLOSED:
            return
        self._step(TransportStep.CLOSE)
        if self.carrier is not None:
            self.carrier.abortConnection()
        else:
            self._reactor.callLater(0, self._finish, Failure(ConnectionAborted()))

    def getPeer(self) -> IAddress:
        """Return the peer's address of the latest carrier."""
        return cast(IAddress, self._peer)

    def getHost(self) -> IAddress:
        """Return the local address of the latest carrier."""
        return cast(IAddress, self._host)

    def send_control(self, message: bytes) -> None:
        """Send a link control message; without a carrier it is dropped."""
        if self.carrier is not None:
            self.carrier.send_control(message)

    # -- IConsumer -------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause ``producer`` while there is no carrier, or the carrier or the memory is full."""
        if self._producer is not None:
            msg = f"cannot register {producer!r}: {self._producer!r} is registered already"
            raise RuntimeError(msg)
        if self._state is CLOSED:
            producer.stopProducing()
            return
        self._producer = producer
        self._is_streaming = streaming
        is_flowing = self._flow is Flow.FLOWING
        if streaming and not is_flowing:
            cast(IPushProducer, producer).pauseProducing()
        elif is_flowing and not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """Remove the producer, and continue a close that was waiting for this."""
        self._producer = None
        if self._state is CLOSING:
            self._say_bye()

    def _step_flow(self, step: FlowStep) -> None:
        """Go to the next state of the flow, and pause or resume the producer."""
        old = self._flow
        new = FLOW.get((old, step), old)
        self._flow = new
        if self._producer is None or new is old:
            return
        if new is Flow.FLOWING:
            cast(IPushProducer, self._producer).resumeProducing()
        elif old is Flow.FLOWING and self._is_streaming:
            cast(IPushProducer, self._producer).pauseProducing()

    def _ask_for_more(self) -> None:
        if self._producer is not None and self._flow is Flow.FLOWING:
            cast(IPullProducer, self._producer).resumeProducing()

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing until ``resumeProducing``. ``seance.mux`` never does this."""
        self._is_paused = True
        if self.carrier is not None:
            self.carrier.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver again."""
        self._is_paused = False
        if self.carrier is not None:
            self.carrier.resumeProducing()

    def stopProducing(self) -> None:
        """Close, as TCP transports do when their consumer has ended."""
        self.loseConnection()

    # -- from the carrier ------------------------------------------------------------------

    def data_arrived(self, epoch: int, data: bytes) -> None:
        """Count received data and deliver it. Called by ``CarrierProtocol``."""
        unacked_bytes = self.continuity.receive(epoch, data)
        if not unacked_bytes:
            return
        try:
            if self._ack_call is None:
                self._ack_call = self._reactor.callLater(ACK_AFTER_SECONDS, self._send_ack)
            if unacked_bytes >= ACK_AFTER_BYTES:
                self._send_ack()
            if self._state is not CLOSING:
                self._protocol.dataReceived(data)  # type: ignore[union-attr]  # it is not over
        except Exception:
            # The carrier is cut for this. The session has lost data, so it must not resume over another
            # carrier.
            self._step(TransportStep.CLOSE)
            raise

    def carrier_is_full(self, epoch: int) -> None:
        """Pause the producer. Called by ``CarrierProducer``."""
        if self.continuity.is_current(epoch):
            self._step_flow(FlowStep.FILLED)

    def carrier_has_room(self, epoch: int) -> None:
        """Send the backlog and resume the producer. Called by ``CarrierProducer``."""
        if self.continuity.is_current(epoch):
            if self._owes_ack:
                self._send_ack()
            self._catch_up()

    def _catch_up(self) -> None:
        """Send the backlog until the carrier is full; resume the producer once all of it is sent."""
        carrier, outgoing = self.carrier, self.continuity.outgoing
        while carrier is not None and not carrier.is_full:
            message = outgoing.next_unsent()
            if message is None:
                self._step_flow(FlowStep.CAUGHT_UP)
                if not outgoing.is_full:
                    self._step_flow(FlowStep.DRAINED)
                return
            carrier.write(message)

    def _send_ack(self) -> None:
        if self._ack_call is not None:
            if self._ack_call.active():
                self._ack_call.cancel()
            self._ack_call = None
        carrier = self.carrier
        if carrier is None:
            return
        self._owes_ack = carrier.is_full
        if not carrier.is_full and self.continuity.incoming.unacked_bytes:
            carrier.send_control(Ack(*self.continuity.incoming.make_ack()).written())

    def _control_arrived(self, epoch: int, message: dict[str, object]) -> None:
        if not self.continuity.is_current(epoch):
            return
        word = message["t"]
        if word == "ack":
            self._take_ack(epoch, message)
        elif word == "bye":
            # The transport ends with the close frame that follows, because its code is the reason. Data that
            # the protocol has not yet read is delivered first.
            self._step(TransportStep.BYE)
            carrier = cast(Carrier, self.carrier)
            if not carrier.is_behind:
                self._step(TransportStep.CLOSE)
                carrier.unregisterProducer()
                carrier.close(CloseCode.NORMAL, "the answer to bye")
        elif self.on_control is not None:
            self.on_control(message)

    def _take_ack(self, epoch: int, message: dict[str, object]) -> None:
        ack = Ack.read(message)
        try:
            if ack is None:
                raise RemoteProtocolError("The peer sent a malformed acknowledgement.", code="ack_malformed")
            self.continuity.acknowledge(epoch, ack.count, ack.crc)
        except RemoteProtocolError as error:
            self._fail(error.message)
            return
        if not self._has_settled:
            self._has_settled = True
            if self.on_settled is not None:
                self.on_settled()
        if not cast(Carrier, self.carrier).is_full and not self.continuity.outgoing.is_full:
            self._step_flow(FlowStep.DRAINED)

    # -- inside ----------------------------------------------------------------------------

    def _step(self, step: TransportStep) -> bool:
        """Go to the next state; return False if the step is ignored in the present one."""
        state = TRANSPORT.get((self._state, step))
        if state is None:
            return False
        self._state = state
        return True

    def _check_unacked(self, timeout: AckTimeout) -> bool:
        """Return whether the peer has data to acknowledge; fail if it has not done so in time."""
        outgoing, is_full = self.continuity.outgoing, cast(Carrier, self.carrier).is_full
        kept = outgoing.kept_bytes
        if timeout.has_expired(self._reactor.seconds(), base=outgoing.base, kept_bytes=kept, is_full=is_full):
            self._fail("The peer does not acknowledge the data that it is sent.")
        return kept > 0

    def _fail(self, message: str) -> None:
        """End the link because of an error of the peer."""
        self._log.error("A link has ended because of an error: {reason}", reason=message, event="link.desync")
        self.is_broken = True
        self._close_carrier(CloseCode.PROTOCOL_ERROR, message)
        self._finish(Failure(ConnectionLost(message)))

    def _say_bye(self) -> None:
        if self.carrier is None:
            self._reactor.callLater(0, self._finish, Failure(ConnectionDone()))
        else:
            while (message := self.continuity.outgoing.next_unsent()) is not None:
                self.carrier.write(message)
            self._close_carrier(*self._close)

    def _close_carrier(self, code: int, reason: str) -> None:
        carrier = cast(Carrier, self.carrier)
        carrier.send_control(BYE)
        carrier.unregisterProducer()
        carrier.close(code, reason)

    def _finish(self, reason: Failure) -> None:
        if not self._step(TransportStep.FINISH):
            return
        self.carrier = None
        self._forget_carrier()
        self.continuity.end()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self._protocol = self._protocol, None
        if protocol is not None and self._has_started:
            protocol.connectionLost(reason)


# Without the decorator, because mypyc does not compile decorated classes
# (docs/decisions/0020-a-compiled-form.md).
classImplements(ResumableTransport, ITransport, IConsumer, IPushProducer)
