"""The agent's side of a link: one yamux session with a relay, over one carrier after the other.

If the relay can resume, the session outlives its carrier: the connections to the local server stay open, and
``resume_request`` returns what the next dial asks for. The relay decides whether the session continues. If
the relay cannot be reached for longer than it keeps the session, the session ends here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, TimeoutError  # Twisted's own
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from seance.agent.states import LINK, LinkEvent, LinkState, next_state
from seance.carrier import (
    RESUMABLE,
    Carrier,
    CarrierHeartbeat,
    CarrierProtocol,
    CloseCode,
    ResumableTransport,
)
from seance.core.link_session import link_session
from seance.core.settings import AgentSettings
from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.net import OneShotEvent, tune
from seance.resume import ResumeRequest, SessionInfo
from seance.yamux import Role, WindowBudget

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["RelayLink"]

REFUSED_STREAMS = 64
"""Streams beyond ``--streams`` on which the agent answers 503. It resets further ones (502 of the relay)."""

CLOSE_FRACTION = 0.25
"""Fraction of ``drain_seconds`` reserved for the WebSocket closing handshake."""

CLIENTS_POLL_SECONDS = 0.1
"""Interval of the check whether the clients of the old relay have left."""

QUEUE_POLL_SECONDS = 0.02
"""Interval of the check whether data is still queued."""

EMPTY_POLLS = 3
"""Consecutive checks with empty queues before the queues count as drained: data that the local server has
sent already may still fill a queue that has just become empty."""

EXPIRY_MARGIN_SECONDS = 5.0
"""Added to the relay's time for resumption, because the relay may notice the loss later than the agent."""


class RelayLink:
    """One session with a relay. Call ``attach`` with the first carrier and ``resume`` with each later one.

    Args:
        reactor: Provides the timers.
        settings: The agent's settings.
        streams: Makes a protocol for each stream that the relay opens.
        subprotocol: The negotiated subprotocol; None for a plain relay.
        on_control: Called with this link and each link control message: a dict with a ``t``.
        windows: The budget that the windows of all sessions of this process share.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: AgentSettings,
        streams: IProtocolFactory,
        subprotocol: str | None,
        on_control: Callable[[RelayLink, dict[str, object]], None],
        windows: WindowBudget,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._on_control = on_control
        self._state = LinkState.NEW
        self.mux = link_session(
            reactor,
            Role.CLIENT,
            streams=settings.streams + REFUSED_STREAMS,
            is_plain=subprotocol is None,
            windows=windows,
            on_lost=self._note_lost,
        )
        self.mux.listen(streams)
        self._resumable: ResumableTransport | None = None
        if subprotocol == RESUMABLE:
            self._resumable = ResumableTransport(
                reactor, self.mux, on_detached=self._note_detached, kept_bytes=settings.resume_bytes
            )
        self._session: SessionInfo | None = None
        self._carrier: Carrier | None = None
        self._heartbeat: CarrierHeartbeat | None = None
        self._expiry: IDelayedCall | None = None
        self._detached: OneShotEvent[str] = OneShotEvent()

    # -- facts -----------------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the session has ended, and its streams with it."""
        return self._state is LinkState.LOST

    @property
    def is_attached(self) -> bool:
        """Whether a carrier is open."""
        return self._state in (LinkState.ATTACHED, LinkState.MOVED)

    @property
    def is_resuming(self) -> bool:
        """Whether the carrier is lost, and the session can continue over another one."""
        return self._state is LinkState.RESUMING

    @property
    def has_moved(self) -> bool:
        """Whether another link has replaced this one, which still serves its clients."""
        return self._state is LinkState.MOVED

    @property
    def carrier(self) -> Carrier | None:
        """The latest carrier; None before the first."""
        return self._carrier

    @property
    def round_trip_seconds(self) -> float | None:
        """Round trip time of the latest yamux ping that was answered."""
        return self.mux.session.round_trip_seconds

    def measure(self) -> None:
        """Send a yamux ping, to update ``round_trip_seconds``."""
        if self.is_attached:
            self.mux.ping()

    @property
    def kept_bytes(self) -> int:
        """Bytes sent that the relay has not acknowledged."""
        return 0 if self._resumable is None else self._resumable.continuity.outgoing.kept_bytes

    @property
    def stream_count(self) -> int:
        """Clients on this link now."""
        return self.mux.stream_count

    def when_detached(self) -> Deferred[str]:
        """Wait until the carrier is lost, the session ends or the agent moves; fires with a message."""
        return self._detached.when()

    def resume_request(self) -> ResumeRequest | None:
        """Return what the next dial asks for; None if there is nothing to resume."""
        if self.is_lost or self._resumable is None or self._session is None:
            return None
        incoming = self._resumable.continuity.incoming
        return ResumeRequest(self._session.sid, self._session.token, incoming.count, incoming.crc)

    # -- carriers --------------------------------------------------------------------------

    def attach(self, protocol: CarrierProtocol, session: SessionInfo) -> None:
        """Start the session over its first carrier.

        Args:
            protocol: The protocol of the open carrier.
            session: The relay's data about the session.
        """
        resumable = cast(ResumableTransport, self._resumable)
        self._session = session
        resumable.on_control = lambda message: self._on_control(self, message)
        self._note_carrier(LinkEvent.OPENED, protocol.carrier)
        resumable.join(protocol, resumable.begin(0, 0))

    def attach_plain(self) -> None:
        """Note that the only carrier of a link without resumption is open."""
        carrier = cast(Carrier, self.mux.transport)
        carrier.on_control = lambda message: self._on_control(self, message)
        self._note_carrier(LinkEvent.OPENED, carrier)
        if self.is_attached:
            self._heartbeat = CarrierHeartbeat(self._reactor, carrier)

    def resume(self, protocol: CarrierProtocol, session: SessionInfo) -> None:
        """Continue the session over another carrier.

        Raises:
            RemoteProtocolError: The relay's counts do not fit; the session has ended.
        """
        resumable = cast(ResumableTransport, self._resumable)
        try:
            epoch = resumable.begin(session.received, session.crc)
        except (LocalProtocolError, RemoteProtocolError) as error:
            self.end(str(error))
            raise RemoteProtocolError(str(error), code="resume") from error
        self._session = session
        self._detached = OneShotEvent()
        self._stop_expiry()
        self._note_carrier(LinkEvent.RESUMED, protocol.carrier)
        self.mux.resume_clock()
        resumable.join(protocol, epoch)

    def probe(self) -> None:
        """Check that the relay responds; the carrier is aborted if it does not within two seconds."""
        if self._resumable is not None:
            self._resumable.probe()
        elif self._heartbeat is not None:
            self._heartbeat.probe()

    def drop_carrier(self) -> None:
        """Abort the carrier without a check; ``when_detached`` fires."""
        if self.is_attached and self._carrier is not None:
            self._carrier.abortConnection()

    # -- leaving ---------------------------------------------------------------------------

    def send_control(self, message: bytes) -> None:
        """Send a link control message, if there is a carrier and the relay supports them."""
        if not self.is_lost and self.mux.transport is not None:
            self._below.send_control(message)

    def leave(self, code: int, reason: str) -> None:
        """End the session for good: GoAway, ``bye``, a close frame. Then ``when_detached`` fires."""
        if not self.is_lost:
            self.mux.leave()
            self._below.close(code, reason)

    def go_away(self) -> None:
        """Ask the relay to open no more streams. A stopping relay then closes the clients and the carrier."""
        if not self.is_lost:
            self.mux.go_away()

    def move(self, message: str) -> None:
        """Fire ``when_detached`` with the carrier open: another link replaces this one. Next: ``drain``."""
        self._advance(LinkEvent.MOVED)
        self._detached.fire(message)

    async def drain(self, seconds: float, reason: str) -> None:
        """Serve the remaining clients until the relay has disconnected them, then leave.

        GoAway asks the relay to start; the relay paces the disconnects (docs/protocol.md).

        Args:
            seconds: Timeout for the clients to leave.
            reason: Sent in the close frame.
        """
        until_seconds = self._reactor.seconds() + seconds
        self.mux.go_away()
        while self.is_attached and self.stream_count and self._reactor.seconds() < until_seconds:
            await deferLater(self._reactor, CLIENTS_POLL_SECONDS)
        if self.is_attached:
            self._detached = OneShotEvent()
            await self.close_gracefully(self._settings.drain_seconds, CloseCode.NORMAL, reason)
        self.end(reason)

    async def close_gracefully(self, seconds: float, code: int, reason: str) -> None:
        """Send what is queued, then ``leave`` and wait for the end; at most ``seconds`` in all.

        A Seance relay gets the GoAway first, so that it opens no streams meanwhile. Other implementations
        close the session when they receive GoAway, so they get it last.
        """
        reactor = self._reactor
        until_seconds = reactor.seconds() + seconds
        if self._carrier is not None and self._carrier.subprotocol is not None:
            self.mux.go_away()
        empty_polls = 0
        while empty_polls < EMPTY_POLLS and (self.stream_count or self.mux.queued_bytes):
            if reactor.seconds() >= until_seconds - seconds * CLOSE_FRACTION:
                break
            empty_polls = 0 if self.mux.queued_bytes else empty_polls + 1
            await deferLater(reactor, QUEUE_POLL_SECONDS)
        detached = self.when_detached()
        self.leave(code, reason)
        left_seconds = max(until_seconds - reactor.seconds(), 0.0)
        await detached.addTimeout(left_seconds, reactor).addErrback(
            lambda failure: failure.trap(TimeoutError)
        )

    def end(self, message: str) -> None:
        """End the session now, without the relay's consent: reset the streams and abort the carrier."""
        if self._resumable is not None:
            self._resumable.expire(message)
        elif not self.is_lost and self.mux.transport is not None:
            cast(Carrier, self.mux.transport).abortConnection()

    # -- inside ----------------------------------------------------------------------------

    def _advance(self, event: LinkEvent) -> None:
        self._state = next_state(LINK, self._state, event)

    @property
    def _below(self) -> Carrier | ResumableTransport:
        """The transport of the session."""
        return cast("Carrier | ResumableTransport", self.mux.transport)

    def _note_carrier(self, event: LinkEvent, carrier: Carrier) -> None:
        self._advance(event)
        self._carrier = carrier
        tune(carrier, is_carrier=True)

    def _note_detached(self, message: str) -> None:
        if self.has_moved:
            self.end(message)  # the agent does not return to this relay
            return
        self._advance(LinkEvent.DETACHED)
        self.mux.pause_clock()
        seconds = cast(SessionInfo, self._session).window_seconds + EXPIRY_MARGIN_SECONDS
        self._expiry = self._reactor.callLater(seconds, self._expire)
        self._detached.fire(message)

    def _expire(self) -> None:
        self._expiry = None
        self.end("The relay could not be reached in time; it has disconnected the clients by now.")

    def _note_lost(self, message: str) -> None:
        self._advance(LinkEvent.ENDED)
        self._stop_expiry()
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        self._detached.fire(message)

    def _stop_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
