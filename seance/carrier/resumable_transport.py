"""A transport that outlives its carriers: what a session stands on when both sides can resume.

To the protocol on top (``seance.mux.Mux``) it is one byte transport like any other, which is "full"
while there is no carrier. Below, carriers come and go; each has an ``CarrierProtocol`` at its end. What
counts and what has to be sent again is decided by ``seance.resume.Continuity``; who may come back, and for
how long, by ``seance.tunnel``.

A carrier that is lost without a word only detaches it. ``bye``, or a close frame, ends it: whoever closes on
purpose wants it to be over. But for two codes that proxies send when they stop. Acknowledgements are text
messages; they are not sent into a carrier that is full, so that a peer which sends and never reads cannot
fill our memory with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

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

from seance.carrier.close_codes import CloseCode
from seance.carrier.protocol import CarrierProducer, CarrierProtocol
from seance.carrier.pulse import Pulse
from seance.carrier.transport import Carrier
from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.resume import ACK_AFTER_BYTES, ACK_AFTER_SECONDS, BYE, KEPT_BYTES, Ack, AckTimeout, Continuity

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["ResumableTransport"]

FROM_BETWEEN = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)
"""Close codes of proxies that stop or reload (Caddy sends 1001). A peer that means it says ``bye`` before."""


class ResumableTransport:
    """The transport. ``begin`` and ``join`` with each carrier; the first ``join`` starts the protocol.

    Args:
        reactor: Where time comes from.
        protocol: What runs on top.
        on_detached: Called with a sentence when the carrier is lost and another may come.
        kept_bytes: What is kept unacknowledged, at most, before writing pauses.

    Attributes:
        continuity: The counts, for figures and for whoever writes the handshake.
        carrier: The present carrier; None while detached.
        on_control: Called with each link control message that is not about resumption.
        on_settled: Called when the peer has acknowledged something on a new carrier.
        is_broken: Whether it is over because one end has found the other's account to be wrong.
    """

    _log = Logger()

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
        self._pulse: Pulse | None = None
        self._address: IAddress | None = None
        self._host: IAddress | None = None
        self._producer: IProducer | None = None
        self._is_streaming = True
        self._is_held = True
        self._has_started = False
        self._has_settled = False
        self._is_caught_up = False
        self._is_paused = False
        self._is_closing = False
        self._has_bye = False
        self._is_over = False
        self._tell_call: IDelayedCall | None = None
        self._owes_ack = False
        self._close: tuple[int, str] = (CloseCode.NORMAL, "")

    # -- carriers come and go --------------------------------------------------------------

    @property
    def is_attached(self) -> bool:
        """Whether there is a carrier."""
        return self.carrier is not None

    def begin(self, peer_count: int, peer_crc: int) -> int:
        """Take leave of the old carrier, if there is one, and expect a new one. Next: ``join``.

        Args:
            peer_count: Bytes that the peer has.
            peer_crc: Their checksum.

        Returns:
            The epoch of the carrier to come.

        Raises:
            LocalProtocolError: It is over, or about to be ("link_over").
            RemoteProtocolError: The peer's numbers do not fit; nothing has changed.
        """
        if self._is_closing:
            raise LocalProtocolError("The link is closing and takes no further carrier.", code="link_over")
        epoch = self.continuity.attach(peer_count, peer_crc)
        stale, self.carrier = self.carrier, None
        self._forget_carrier()
        self._hold(True)
        if stale is not None:
            stale.abortConnection()  # what it did not deliver is sent again over the next one
        return epoch

    def join(self, inlet: CarrierProtocol, epoch: int) -> None:
        """Go on over the carrier of ``inlet``.

        Args:
            inlet: At the end of an open carrier.
            epoch: What ``begin`` returned; a carrier that comes too late is cut.
        """
        carrier = inlet.carrier
        if not self.continuity.is_current(epoch) or self.carrier is not None:
            carrier.abortConnection()
            return
        inlet.serve(self, epoch)
        self.carrier = carrier
        self._address, self._host = carrier.getPeer(), carrier.getHost()
        arrears = AckTimeout(self._reactor.seconds())
        self._pulse = Pulse(self._reactor, carrier, lambda: self._look_at_arrears(arrears))
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
        """The carrier of ``begin`` never came."""
        if self.carrier is None and self.continuity.detach(epoch):
            self._on_detached("The new carrier did not open.")

    def carrier_lost(self, epoch: int, reason: Failure) -> None:
        """Take note that a carrier is gone; for ``CarrierProtocol`` alone."""
        if not self.continuity.detach(epoch):
            return
        carrier = cast(Carrier, self.carrier)
        self.carrier = None
        self._forget_carrier()
        is_lost = carrier.was_cut or carrier.peer_close_code in FROM_BETWEEN
        self.is_broken = not is_lost and carrier.peer_close_code == CloseCode.PROTOCOL_ERROR
        if self._is_closing or self._has_bye or not is_lost:
            self._finish(reason)
        else:
            self._hold(True)
            self._on_detached(reason.getErrorMessage())

    def expire(self, sentence: str) -> None:
        """It is over, now, whatever the other side believes; a carrier that is there is closed."""
        if self.carrier is not None:
            code, reason = self._close
            self._close_carrier(code, reason or sentence)
        self._finish(Failure(ConnectionLost(sentence)))

    def probe(self) -> None:
        """Ask the other side for a sign of life within two seconds."""
        if self._pulse is not None:
            self._pulse.probe()

    def _forget_carrier(self) -> None:
        self._is_caught_up = self._owes_ack = False
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None
        if self._tell_call is not None:
            self._tell_call.cancel()
            self._tell_call = None

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether it is closing: in no interface, but Twisted's ``LineReceiver`` asks for it."""
        return self._is_closing

    def write(self, data: bytes) -> None:
        """Send ``data``, over this carrier or the next; after the close it is dropped quietly."""
        if type(data) is not bytes:
            msg = f"a transport takes bytes, not {type(data).__name__}"
            raise TypeError(msg)
        if self._is_over or (self._is_closing and self._producer is None) or not data:
            return
        if self._is_caught_up:
            is_full = self.continuity.outgoing.add(data)
            self.carrier.write(data)  # type: ignore[union-attr]  # caught up, so there is one
        else:
            is_full = self.continuity.outgoing.hold(data)
        if is_full and not self._is_held:
            self._hold(True)
        elif not self._is_streaming and self._producer is not None and not self._is_held:
            self._reactor.callLater(0, self._ask_for_more)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the concatenation of ``iovec``: one message if it has at most 64 KiB."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """End it once everything written has left and no producer is registered."""
        self.close(CloseCode.NORMAL, "")

    def close(self, code: int, reason: str) -> None:
        """End it as ``loseConnection`` does, and say why.

        Args:
            code: One of ``CloseCode``.
            reason: For a person.
        """
        if not self._is_closing and not self._is_over:
            self._is_closing = True
            self._close = (code, reason)
            if self._producer is None:
                self._say_bye()

    def abortConnection(self) -> None:
        """Cut it now. The peer may not know, and keep its end for a while."""
        if self._is_over:
            return
        self._is_closing = True
        if self.carrier is not None:
            self.carrier.abortConnection()
        else:
            self._reactor.callLater(0, self._finish, Failure(ConnectionAborted()))

    def getPeer(self) -> IAddress:
        """The address of the other end of the latest carrier."""
        return cast(IAddress, self._address)

    def getHost(self) -> IAddress:
        """The address of this end of the latest carrier."""
        return cast(IAddress, self._host)

    def send_control(self, message: bytes) -> None:
        """Send a link control message; one that finds no carrier is lost."""
        if self.carrier is not None:
            self.carrier.send_control(message)

    # -- IConsumer -------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause and resume ``producer`` as carriers come, fill and go."""
        if self._producer is not None:
            msg = f"cannot register {producer!r}: {self._producer!r} is registered already"
            raise RuntimeError(msg)
        if self._is_over:
            producer.stopProducing()
            return
        self._producer = producer
        self._is_streaming = streaming
        if self._is_held and streaming:
            cast(IPushProducer, producer).pauseProducing()
        elif not self._is_held and not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer; a close that waited for it goes on."""
        self._producer = None
        if self._is_closing and not self._is_over:
            self._say_bye()

    def _hold(self, is_held: bool) -> None:
        if is_held == self._is_held:
            return
        self._is_held = is_held
        if self._producer is None:
            return
        if not is_held:
            cast(IPushProducer, self._producer).resumeProducing()
        elif self._is_streaming:
            cast(IPushProducer, self._producer).pauseProducing()

    def _ask_for_more(self) -> None:
        if self._producer is not None and not self._is_held:
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
        """Whoever consumed us is gone: close, as TCP transports do."""
        self.loseConnection()

    # -- from the carrier ------------------------------------------------------------------

    def data_arrived(self, epoch: int, data: bytes) -> None:
        """Count and hand on what the present carrier brings; for ``CarrierProtocol`` alone."""
        unacked_bytes = self.continuity.receive(epoch, data)
        if not unacked_bytes:
            return
        try:
            if self._tell_call is None:
                self._tell_call = self._reactor.callLater(ACK_AFTER_SECONDS, self._tell)
            if unacked_bytes >= ACK_AFTER_BYTES:
                self._tell()
            if not self._is_closing:
                self._protocol.dataReceived(data)  # type: ignore[union-attr]  # it is not over
        except Exception:
            # The carrier is cut for it, and a session with a hole in it does not go on over another.
            self._is_closing = True
            raise

    def carrier_is_full(self, epoch: int) -> None:
        """The carrier takes no more for now; for ``_CarrierProducer`` alone."""
        if self.continuity.is_current(epoch):
            self._hold(True)

    def carrier_has_room(self, epoch: int) -> None:
        """The carrier takes more; for ``_CarrierProducer`` alone."""
        if self.continuity.is_current(epoch):
            if self._owes_ack:
                self._tell()
            self._catch_up()

    def _catch_up(self) -> None:
        """Bring what the peer lacks, as far as the carrier takes it, and let go when there is no more."""
        carrier, outgoing = self.carrier, self.continuity.outgoing
        while carrier is not None and not carrier.is_full:
            message = outgoing.next_unsent()
            if message is None:
                self._is_caught_up = True
                if not outgoing.is_full:
                    self._hold(False)
                return
            carrier.write(message)

    def _tell(self) -> None:
        if self._tell_call is not None:
            if self._tell_call.active():
                self._tell_call.cancel()
            self._tell_call = None
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
            # Over with the close frame that follows, and not before: its code says why. Nor does it overtake
            # what the protocol has not wanted to read yet.
            self._has_bye = True
            carrier = cast(Carrier, self.carrier)
            if not carrier.is_behind:
                self._is_closing = True
                carrier.unregisterProducer()
                carrier.close(CloseCode.NORMAL, "the answer to bye")
        elif self.on_control is not None:
            self.on_control(message)

    def _take_ack(self, epoch: int, message: dict[str, object]) -> None:
        ack = Ack.read(message)
        try:
            if ack is None:
                raise RemoteProtocolError("An acknowledgement without sense came.", code="ack_malformed")
            self.continuity.acknowledge(epoch, ack.count, ack.crc)
        except RemoteProtocolError as error:
            self._fail(error.sentence)
            return
        if not self._has_settled:
            self._has_settled = True
            if self.on_settled is not None:
                self.on_settled()
        if self._is_held and self._is_caught_up and not cast(Carrier, self.carrier).is_full:
            self._hold(self.continuity.outgoing.is_full)

    # -- inside ----------------------------------------------------------------------------

    def _look_at_arrears(self, arrears: AckTimeout) -> bool:
        """Return whether anything is to be acknowledged; end it if that is so for too long."""
        outgoing, is_full = self.continuity.outgoing, cast(Carrier, self.carrier).is_full
        kept = outgoing.kept_bytes
        if arrears.has_expired(self._reactor.seconds(), base=outgoing.base, kept_bytes=kept, is_full=is_full):
            self._fail("The peer does not acknowledge what it is sent.")
        return kept > 0

    def _fail(self, sentence: str) -> None:
        """End it for a mistake of the peer."""
        self._log.error("A link cannot go on: {reason}", reason=sentence, event="link.desync")
        self.is_broken = True
        self._close_carrier(CloseCode.PROTOCOL_ERROR, sentence)
        self._finish(Failure(ConnectionLost(sentence)))

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
        if self._is_over:
            return
        self._is_over = True
        self.carrier = None
        self._forget_carrier()
        self.continuity.end()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self._protocol = self._protocol, None
        if protocol is not None and self._has_started:
            protocol.connectionLost(reason)


# Not by the decorator: what has one stays interpreted in the compiled form (decision 20).
classImplements(ResumableTransport, ITransport, IConsumer, IPushProducer)
