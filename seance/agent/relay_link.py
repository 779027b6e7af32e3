"""The agent's side of a link: a session, and the carriers it has run over.

Made by ``Agent`` with each session. Where the relay can resume, the session survives its carrier: the
connections to the local server stay open, and ``resume_request`` says what the next dial has to ask for. It
is the relay that judges; if it stays out of reach for longer than it would keep our clients, waiting has no
purpose any more, and the session ends here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, TimeoutError  # Twisted's own
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

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
"""Streams beyond ``--streams``, in which clients get a 503. Further ones are reset: a 502 of the relay."""

LAST_PART = 0.25
"""Of the time for taking leave: kept for the closing handshake."""

MOVE_LOOK_SECONDS = 0.1
"""How often is looked whether the old relay's clients are gone."""

LOOK_SECONDS = 0.02
"""How often is looked whether anything is still queued."""

EMPTY_LOOKS = 3
"""In a row, before nothing is: what a local server has said fills a queue that has just become empty."""

MARGIN_SECONDS = 5.0
"""The relay may have noticed the loss later than we have, and its time runs from then."""


class RelayLink:
    """One session with a relay. ``open`` it over the first carrier, ``resume`` it over the next ones.

    Args:
        reactor: Where time comes from.
        settings: The agent's.
        streams: Gets the streams that the relay opens.
        subprotocol: What was negotiated; None is a plain relay.
        on_control: Called with link control messages: an object with a ``t``.
        windows: What the windows of all sessions together may grow by.
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
        self.mux = link_session(
            reactor,
            Role.CLIENT,
            streams=settings.streams + REFUSED_STREAMS,
            is_plain=subprotocol is None,
            windows=windows,
            on_lost=self._over,
        )
        self.mux.listen(streams)
        self._lasting: ResumableTransport | None = None
        if subprotocol == RESUMABLE:
            self._lasting = ResumableTransport(
                reactor, self.mux, on_detached=self._detached, kept_bytes=settings.resume_bytes
            )
        self._field: SessionInfo | None = None
        self._carrier: Carrier | None = None
        self._pulse: CarrierHeartbeat | None = None
        self._expiry: IDelayedCall | None = None
        self._down: OneShotEvent[str] = OneShotEvent()

    # -- facts -----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the session has ended, and its streams with it."""
        return self.mux.is_over

    @property
    def is_up(self) -> bool:
        """Whether it has a carrier now."""
        if self.is_over or self._carrier is None:
            return False
        return self._lasting is None or self._lasting.is_attached

    @property
    def carrier(self) -> Carrier | None:
        """The latest carrier."""
        return self._carrier

    @property
    def round_trip_seconds(self) -> float | None:
        """How long the latest yamux ping took that was answered."""
        return self.mux.session.round_trip_seconds

    def measure(self) -> None:
        """Have ``round_trip_seconds`` say soon how long it takes now."""
        if self.is_up:
            self.mux.ping()

    @property
    def kept_bytes(self) -> int:
        """What the relay has not acknowledged."""
        return 0 if self._lasting is None else self._lasting.continuity.outgoing.kept_bytes

    @property
    def stream_count(self) -> int:
        """Clients now."""
        return self.mux.stream_count

    def when_down(self) -> Deferred[str]:
        """Wait until the carrier is lost or the session over: fires with a sentence."""
        return self._down.when()

    def resume_request(self) -> ResumeRequest | None:
        """What the next dial has to ask for; None if there is nothing to resume."""
        if self.is_over or self._lasting is None or self._field is None:
            return None
        incoming = self._lasting.continuity.incoming
        return ResumeRequest(self._field.sid, self._field.token, incoming.count, incoming.crc)

    # -- carriers --------------------------------------------------------------------------

    def open(self, inlet: CarrierProtocol, field: SessionInfo) -> None:
        """Begin over the first carrier.

        Args:
            inlet: At its end.
            field: What the relay says about the session.
        """
        lasting = cast(ResumableTransport, self._lasting)
        self._field = field
        lasting.on_control = lambda message: self._on_control(self, message)
        lasting.join(inlet, lasting.begin(0, 0))
        self._note_carrier(inlet.carrier)

    def resume(self, inlet: CarrierProtocol, field: SessionInfo) -> None:
        """Go on over another carrier.

        Raises:
            RemoteProtocolError: The relay's numbers do not fit; the session is over.
        """
        lasting = cast(ResumableTransport, self._lasting)
        try:
            epoch = lasting.begin(field.received, field.crc)
        except (LocalProtocolError, RemoteProtocolError) as error:
            self.end(str(error))
            raise RemoteProtocolError(str(error), code="resume") from error
        self._field = field
        self._down = OneShotEvent()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.mux.go_on()
        lasting.join(inlet, epoch)
        self._note_carrier(inlet.carrier)

    def note_open(self) -> None:
        """The one carrier of a link that cannot resume is open."""
        carrier = cast(Carrier, self.mux.transport)
        carrier.on_control = lambda message: self._on_control(self, message)
        self._note_carrier(carrier)
        self._pulse = CarrierHeartbeat(self._reactor, carrier)

    def probe(self) -> None:
        """Look whether the relay is still there, within two seconds."""
        if self._lasting is not None:
            self._lasting.probe()
        elif self._pulse is not None:
            self._pulse.probe()

    def drop_carrier(self) -> None:
        """Take the carrier for dead without asking; ``when_down`` fires."""
        if self.is_up and self._carrier is not None:
            self._carrier.abortConnection()

    def send_control(self, message: bytes) -> None:
        """Send a link control message, if the relay understands any."""
        if not self.is_over and self.mux.transport is not None:
            self._below.send_control(message)

    def leave(self, code: int, reason: str) -> None:
        """Take leave for good: GoAway, ``bye``, a close frame. Next: ``when_down``."""
        if not self.is_over:
            self.mux.leave()
            self._below.close(code, reason)

    def go_away(self) -> None:
        """Tell the relay to open nothing more. One that stops closes the clients, and the carrier last."""
        if not self.is_over:
            self.mux.go_away()

    def let_go(self, sentence: str) -> None:
        """Have ``when_down`` fire although the carrier is up: another attachment has taken its place.

        Next: ``move_out``.
        """
        self._down.fire(sentence)

    async def move_out(self, seconds: float, reason: str) -> None:
        """Serve the clients that are left until the relay has seen them off, then leave.

        GoAway tells the relay that it may begin; it paces them (docs/protocol.md, "Stopping").
        """
        until_seconds = self._reactor.seconds() + seconds
        self.mux.go_away()
        while self.is_up and self.stream_count and self._reactor.seconds() < until_seconds:
            await deferLater(self._reactor, MOVE_LOOK_SECONDS)
        if self.is_up:
            self._down = OneShotEvent()
            await self.finish(self._settings.drain_seconds, CloseCode.NORMAL, reason)
        self.end(reason)

    async def finish(self, seconds: float, code: int, reason: str) -> None:
        """Let what is queued leave, then ``leave`` and wait for the end; ``seconds`` at most in all.

        GoAway goes ahead where the relay is one of ours: it opens nothing more meanwhile. Other
        implementations close over it, so they get it last.
        """
        reactor = self._reactor
        until_seconds = reactor.seconds() + seconds
        if self._carrier is not None and self._carrier.subprotocol is not None:
            self.mux.go_away()
        looks = 0
        while looks < EMPTY_LOOKS and (self.stream_count or self.mux.queued_bytes):
            if reactor.seconds() >= until_seconds - seconds * LAST_PART:
                break
            looks = 0 if self.mux.queued_bytes else looks + 1
            await deferLater(reactor, LOOK_SECONDS)
        gone = self.when_down()
        self.leave(code, reason)
        left_seconds = max(until_seconds - reactor.seconds(), 0.0)
        await gone.addTimeout(left_seconds, reactor).addErrback(lambda failure: failure.trap(TimeoutError))

    def end(self, sentence: str) -> None:
        """It is over here, whatever the relay believes: cut the streams and the carrier."""
        if self._lasting is not None:
            self._lasting.expire(sentence)
        elif not self.is_over and self.mux.transport is not None:
            cast(Carrier, self.mux.transport).abortConnection()

    # -- inside ----------------------------------------------------------------------------

    @property
    def _below(self) -> Carrier | ResumableTransport:
        return cast("Carrier | ResumableTransport", self.mux.transport)

    def _note_carrier(self, carrier: Carrier) -> None:
        self._carrier = carrier
        tune(carrier, is_carrier=True)

    def _detached(self, sentence: str) -> None:
        self.mux.stand_still()
        seconds = cast(SessionInfo, self._field).window_seconds + MARGIN_SECONDS
        self._expiry = self._reactor.callLater(seconds, self._expire)
        self._down.fire(sentence)

    def _expire(self) -> None:
        self._expiry = None
        self.end("The relay could not be reached in time; its clients are gone by now.")

    def _over(self, sentence: str) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None
        self._down.fire(sentence)
