"""The relay's side of a link: one agent, attached for one room."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.carrier import Carrier
from seance.errors import LocalProtocolError, Refusal
from seance.mux import Mux, StreamTransport
from seance.net import Occasion
from seance.tunnel.gate import Pace
from seance.tunnel.introduction import REPLACED
from seance.tunnel.permits import Permit, Permits
from seance.tunnel.ports import Grant, TokenRole, Verifier, identity_of
from seance.tunnel.settings import RelaySettings
from seance.yamux import Limits, Role

__all__ = ["Link"]

GOING_AWAY = 1001
RETRY_AFTER = (b"Retry-After", b"2")
ROOM_FULL = "This room has as many clients as it may have; try again later."


class Link:
    """One attached agent. Made before the 101, so that its room is claimed by then.

    Args:
        reactor: Where time comes from.
        settings: The relay's.
        room: What it serves.
        on_lost: Called once with a sentence when the link is over.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        room: str,
        on_lost: Callable[[Link, str], None],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._on_lost = on_lost
        self._mux: Mux | None = None
        self._lost: Occasion[None] = Occasion()
        self._is_leaving = False
        self.room = room
        rate = settings.bytes_per_second_per_room
        self.pace = Pace(reactor, rate) if rate else None
        self.most_clients: int | None = None
        self.permit: Permit | None = None
        self._renewal: Deferred[Grant] | None = None
        self._next_token: str | None = None

    @property
    def was_attached(self) -> bool:
        """Whether the carrier has ever been open."""
        return self._mux is not None

    @property
    def is_attached(self) -> bool:
        """Whether the carrier is open."""
        return self._mux is not None and not self._mux.is_over

    @property
    def stream_count(self) -> int:
        """Clients on this link now."""
        return 0 if self._mux is None else self._mux.stream_count

    def stand_on(self, grant: Grant, permits: Permits) -> None:
        """Live as long as the agent's token is good, within the bounds that it sets for its room."""
        self.permit = permits.add(grant, self.leave)
        self.most_clients = grant.max_clients
        rate = grant.max_bytes_per_second
        if rate and (self.pace is None or rate < self._settings.bytes_per_second_per_room):
            self.pace = Pace(self._reactor, rate)

    def take_tokens(self, verifier: Verifier | None, permits: Permits | None) -> None:
        """Let the agent renew its token over the link: ``{"t": "token", "token": "..."}``."""
        if verifier is None or permits is None or self._mux is None or self._mux.is_over:
            return

        def arrived(message: dict[str, object]) -> None:
            token = message.get("token")
            if message["t"] == "token" and isinstance(token, str):
                self._next_token = token  # the latest counts, if several come while one is looked at
                if self._renewal is None:
                    look()

        def look() -> None:
            token, self._next_token = self._next_token, None
            if token is not None:
                deciding = self._renewal = verifier.verify(token, TokenRole.AGENT, self.room)
                deciding.addCallback(self._renew, permits).addErrback(self._note_refused)
                deciding.addCallback(lambda _: look())

        cast(Carrier, self._mux.transport).on_control = arrived

    def _renew(self, grant: Grant, permits: Permits) -> None:
        self._renewal = None
        before = self.permit
        if before is None or self._mux is None or self._mux.is_over:
            return
        if identity_of(grant) != identity_of(before.grant):
            self._log.warn("The agent of room {room} sent somebody else's token", **self._named("refused"))
            return
        permits.remove(before)
        self.stand_on(grant, permits)
        self._log.info("The agent of room {room} has renewed its token", **self._named("renewed"))

    def _note_refused(self, failure: Failure) -> None:
        self._renewal = None
        failure.trap(Refusal, CancelledError)
        self._log.warn("The agent of room {room} sent a token that is not good", **self._named("refused"))

    def _named(self, what: str) -> dict[str, str]:
        return {"room": self.room, "event": f"token.{what}"}

    def make_protocol(self, subprotocol: str | None) -> Mux:
        """Make what runs over the carrier, for ``CarrierAnswerer.answer``."""
        settings = self._settings
        # What others keep for us is 256 of each (yamux.md 1.2, rows 6 and 7); ours has no such bounds.
        limits = Limits(streams=settings.streams_per_plain_agent)
        if subprotocol is not None:
            streams = settings.streams_per_agent
            limits = Limits(streams=streams, unacknowledged=streams, accept_backlog=streams)
        self._log.info("An agent serves room {room}", room=self.room, event="link.attached")
        self._mux = Mux(self._reactor, Role.SERVER, limits=limits, on_lost=self._note_lost)
        return self._mux

    def open_stream(self, protocol: IProtocol) -> StreamTransport:
        """Open a stream to the agent for one client.

        Raises:
            Refusal: 429 when the room has as many clients as it may, 503 when the agent leaves.
        """
        mux = self._mux
        if self.most_clients is not None and self.stream_count >= self.most_clients:
            raise Refusal(429, ROOM_FULL, code="room_full", headers=(RETRY_AFTER,))
        if mux is None or self._is_leaving or mux.is_over:
            sentence = "The agent of this room is not there at the moment; try again."
            raise Refusal(503, sentence, code="agent_away", headers=(RETRY_AFTER,))
        try:
            return mux.open_stream(protocol)
        except LocalProtocolError as error:
            if error.code in ("too_many_streams", "too_many_unacknowledged"):
                raise Refusal(429, ROOM_FULL, code="room_full", headers=(RETRY_AFTER,)) from error
            sentence = "The agent of this room is leaving; try again."
            raise Refusal(503, sentence, code="agent_leaving", headers=(RETRY_AFTER,)) from error

    def when_lost(self) -> Deferred[None]:
        """Wait for the end of the link."""
        return self._lost.when()

    def leave(self, reason: str) -> None:
        """Take leave of the agent: GoAway, then a close frame with 1001."""
        self._is_leaving = True
        mux = self._mux
        if mux is None or mux.is_over:
            return
        mux.leave()
        cast(Carrier, mux.transport).close(GOING_AWAY, reason)

    def make_way(self) -> None:
        """The same agent has come with another carrier: end now, and say why to whoever still listens.

        What the old carrier still brings is dropped, and so is the carrier if it does not close.
        The close code matters when the old one is no stale one but that of a second process with
        the same key: that one must not take the room back.
        """
        mux = self._mux
        if mux is None or mux.is_over:
            return
        carrier = cast(Carrier, mux.transport)
        mux.leave()
        carrier.close(REPLACED, "the same agent has taken the room with another connection")
        mux.end("The same agent has taken the room with another connection.")

    def cut(self) -> None:
        """End the link now, if it is still there."""
        if self.is_attached:
            cast(Carrier, cast(Mux, self._mux).transport).abortConnection()

    def _note_lost(self, sentence: str) -> None:
        self._next_token = None
        if self._renewal is not None:
            self._renewal.cancel()
        self._on_lost(self, sentence)
        self._lost.fire(None)
