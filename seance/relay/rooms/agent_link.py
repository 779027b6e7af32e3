"""The relay's side of a link: one agent, attached for one room.

A link of a plain agent lives and dies with its carrier. That of an agent which can resume has a
``ResumableSession`` between the two, and is over when that is.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.carrier import (
    RESUMABLE,
    Carrier,
    CarrierHeartbeat,
    CarrierProtocol,
    CloseCode,
    ResumableTransport,
)
from seance.core.flow_gate import Pace
from seance.core.handshake_fields import REPLACE_FIELD
from seance.core.interfaces import Grant, LinkChange, TokenRole, Verifier, identity_of
from seance.core.link_session import link_session
from seance.core.local_info import LocalServerInfo
from seance.core.observers import room_hash
from seance.core.settings import RelaySettings
from seance.core.token_bucket import TokenBucket
from seance.errors import LocalProtocolError, Refusal
from seance.mux import Mux, StreamTransport
from seance.net import OneShotEvent
from seance.relay.rooms.active_grants import ActiveGrants, GrantHandle
from seance.relay.rooms.resumable_session import ResumableSession
from seance.relay.rooms.sync_limiter import InitialSyncLimiter
from seance.resume import SESSION_FIELD, Drain, ResumeRequest
from seance.yamux import Role, WindowBudget

__all__ = ["AgentLink"]

NO_PACE = 1 << 40
"""Bytes a second of clients whose agent's newer token bounds them no more."""

TOKEN_BURST = 10.0
"""Tokens that may come at once over a link, and then one a second: each costs a signature and a line in the
log. What comes faster is not looked at; our agents look at their file every two seconds."""

MOST_PREDECESSORS = 16
"""Sessions that are remembered; the oldest is forgotten."""

RETRY_AFTER = (b"Retry-After", b"2")
ROOM_FULL = "This room has as many clients as it may have; try again later."


class AgentLink:
    """One attached agent. Made before the 101, so that its room is claimed by then.

    Args:
        reactor: Where time comes from.
        settings: The relay's.
        room: What it serves.
        on_lost: Called once with a sentence when the link is over.
        windows: What the windows of all links together may grow by.

    Attributes:
        change: What has happened to it last.
        syncs: Which of its clients load their document, and who waits for that.
        came_back_early: Whether the agent was back, the last time, before we knew that it was away.
        address: Where the agent has first dialled from.
        local: What the agent said about its local server.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        room: str,
        on_lost: Callable[[AgentLink, str], None],
        windows: WindowBudget | None = None,
    ) -> None:
        self._windows = windows or WindowBudget()
        self._reactor = reactor
        self._settings = settings
        self._on_lost = on_lost
        self._mux: Mux | None = None
        self._lost: OneShotEvent[None] = OneShotEvent()
        self._is_leaving = False
        self._session: ResumableSession | None = None
        self._pulse: CarrierHeartbeat | None = None
        self._subprotocol: str | None = None
        self._was_attached = False
        self._why_lost = ""
        self._predecessors: tuple[str, ...] = ()
        self.came_back_early = False
        self.change: LinkChange | None = None
        self.syncs = InitialSyncLimiter(reactor, settings)
        self.address = ""
        self.local = LocalServerInfo()
        self.on_change: Callable[[AgentLink], None] = lambda link: None
        self.room = room
        rate = settings.bytes_per_second_per_room
        self.pace = Pace(reactor, rate) if rate else None
        self.most_clients: int | None = None
        self.handle: GrantHandle | None = None
        self._renewal: Deferred[Grant] | None = None
        self._next_token: str | None = None

    @property
    def upgrade_seconds(self) -> float:
        """How long the local server may take for its first answer."""
        return self.local.granted_seconds(self._settings)

    @property
    def was_attached(self) -> bool:
        """Whether a carrier has ever been open."""
        return self._was_attached

    @property
    def is_attached(self) -> bool:
        """Whether a carrier is open."""
        return self.is_alive and not self.is_resuming

    @property
    def is_alive(self) -> bool:
        """Whether there is an agent, or one that may come back to its clients."""
        return self._mux is not None and not self._mux.is_over and self._was_attached

    @property
    def is_resuming(self) -> bool:
        """Whether the carrier is lost, and the agent may come back to this link."""
        return self.is_alive and self._session is not None and self._session.is_detached

    @property
    def away_since_seconds(self) -> float:
        """When the carrier was lost, while the link ``is_resuming``."""
        return 0.0 if self._session is None else self._session.away_since_seconds

    @property
    def kept_bytes(self) -> int:
        """What the agent has not acknowledged."""
        return 0 if self._session is None else self._session.kept_bytes

    @property
    def held_bytes(self) -> int:
        """What is held in memory for the agent, with what its clients' streams queue while it is away."""
        queued = self._mux.queued_bytes if self._mux is not None and self.is_resuming else 0
        return self.kept_bytes + queued

    @property
    def queued_bytes(self) -> int:
        """What waits to leave on all its clients' streams; looks at each."""
        return 0 if self._mux is None else self._mux.queued_bytes

    @property
    def round_trip_seconds(self) -> float | None:
        """How long the latest yamux ping took that was answered."""
        return None if self._mux is None else self._mux.session.round_trip_seconds

    def measure(self) -> None:
        """Have ``round_trip_seconds`` say soon how long it takes now."""
        if self._mux is not None and self.is_attached:
            self._mux.ping()

    @property
    def lost_reason(self) -> str:
        """Why the link is over, in one word of ``seance.core.observers.LINK_REASONS``."""
        if self._why_lost:
            return self._why_lost
        if self.change is LinkChange.DETACHED:
            return "expired"
        if self._session is not None:
            if self._session.lasting.is_broken:
                return "desync"
            return "failed" if self._session.lasting.is_attached else "left"
        carrier = cast(Carrier, self._below)
        if carrier.was_cut:
            return "cut"
        return "failed" if carrier.peer_close_code is None else "left"

    @property
    def stream_count(self) -> int:
        """Clients on this link now."""
        return 0 if self._mux is None else self._mux.stream_count

    def stand_on(self, grant: Grant, grants: ActiveGrants) -> None:
        """Live as long as the agent's token is good, within the bounds that it sets for its room."""
        self.handle = grants.add(grant, lambda reason: self.leave(reason, CloseCode.TOKEN_ENDED))
        self.most_clients = grant.max_clients
        bounds = [self._settings.bytes_per_second_per_room, grant.max_bytes_per_second]
        rate = min((bound for bound in bounds if bound), default=0)
        if self.pace is not None:
            self.pace.change(rate or NO_PACE)
        elif rate:
            self.pace = Pace(self._reactor, rate)

    def watch_carrier(self) -> None:
        """Look after the carrier that is open now, unless its session does, because it can resume."""
        if self.is_alive and self._session is None:
            self._pulse = CarrierHeartbeat(self._reactor, cast(Carrier, self._below))

    def take_tokens(self, verifier: Verifier | None, grants: ActiveGrants | None) -> None:
        """Let the agent renew its token over the link: ``{"t": "token", "token": "..."}``."""
        if verifier is None or grants is None or not self.is_alive:
            return

        clock, rate = self._reactor.seconds, TokenBucket(1.0, TOKEN_BURST, self._reactor.seconds())

        def arrived(message: dict[str, object]) -> None:
            token = message.get("token")
            if message["t"] == "token" and isinstance(token, str) and rate.take(1.0, clock()):
                self._next_token = token  # the latest counts, if several come while one is looked at
                if self._renewal is None:
                    look()

        def look() -> None:
            token, self._next_token = self._next_token, None
            if token is not None:
                deciding = self._renewal = verifier.verify(token, TokenRole.AGENT, self.room)
                deciding.addCallback(self._renew, grants).addErrback(self._note_refused)
                deciding.addCallback(lambda _: look())

        self._below.on_control = arrived

    def _renew(self, grant: Grant, grants: ActiveGrants) -> None:
        self._renewal = None
        before = self.handle
        if before is None or not self.is_alive:
            return
        if identity_of(grant) != identity_of(before.grant):
            self._log.warn(
                "The agent of room {room} sent somebody else's token", room=self.room, event="token.refused"
            )
            return
        grants.remove(before)
        self.stand_on(grant, grants)
        self._log.info(
            "The agent of room {room} has renewed its token", room=self.room, event="token.renewed"
        )

    def _note_refused(self, failure: Failure) -> None:
        self._renewal = None
        failure.trap(Refusal, CancelledError)
        self._log.warn(
            "The agent of room {room} sent a token that is not good", room=self.room, event="token.refused"
        )

    def expect(self, subprotocol: str | None, why: str = "") -> dict[str, str]:
        """Get ready for the first carrier.

        Args:
            subprotocol: What was negotiated; None for a plain agent.
            why: Why it is not the old session that goes on, if the agent has asked for that.

        Returns:
            What the 101 has to say. Next: ``make_protocol``.
        """
        settings = self._settings
        self._subprotocol = subprotocol
        is_plain = subprotocol is None
        self._mux = link_session(
            self._reactor,
            Role.SERVER,
            streams=settings.streams_per_plain_agent if is_plain else settings.streams_per_agent,
            is_plain=is_plain,
            windows=self._windows,
            on_lost=self._note_lost,
        )
        if subprotocol != RESUMABLE:
            return {}
        self._session = ResumableSession(self._reactor, settings, self._mux, self._note_carrier)
        return {SESSION_FIELD: self._session.begin(why).written()}

    def fits(self, resume_request: ResumeRequest) -> bool:
        """Whether a wish holds the secret of this link's session."""
        if not self.is_alive or self._is_leaving or self._session is None:
            return False
        return self._session.is_asked_for(resume_request)

    def is_asked_for(self, resume_request: ResumeRequest, grant: Grant | None) -> bool:
        """Whether whoever wishes so is the agent that this link belongs to.

        Args:
            resume_request: What it says.
            grant: What its token allows, which has to be of the same agent as before.
        """
        before = None if self.handle is None else identity_of(self.handle.grant)
        is_same = (None if grant is None else identity_of(grant)) == before
        return self.fits(resume_request) and is_same

    def succeed(self, stale: AgentLink) -> None:
        """Take the place of an earlier link of the same agent, and remember its session.

        The process whose session that was may wake up, and must not take the room back:
        see ``check_not_replaced``.
        """
        session = stale._session  # our own kind
        self._predecessors = stale._predecessors if session is None else (session.sid, *stale._predecessors)
        self._predecessors = self._predecessors[:MOST_PREDECESSORS]

    def check_not_replaced(self, resume_request: ResumeRequest) -> None:
        """Keep a process out whose place another one with its key has taken.

        Raises:
            Refusal: 409, and it is told to wait.
        """
        if resume_request.sid in self._predecessors:
            sentence = "Another process with this agent's key has taken this room; wait until it leaves."
            raise Refusal(409, sentence, code="room_replaced", headers=((REPLACE_FIELD.encode(), b"no"),))

    def refusal_while_away(self) -> Refusal | None:
        """Return what another agent is told while this one's carrier is lost, instead of "taken"."""
        if not self.is_resuming:
            return None
        until_seconds = self.away_since_seconds + self._settings.resume_seconds
        seconds = max(1, ceil(until_seconds - self._reactor.seconds()))
        sentence = f"This room is kept for its agent, whose connection was lost, for another {seconds} s."
        return Refusal(409, sentence, code="room_reserved", headers=((b"Retry-After", b"%d" % seconds),))

    def resume(
        self, resume_request: ResumeRequest, grant: Grant | None, grants: ActiveGrants | None
    ) -> dict[str, str] | None:
        """Get ready for another carrier; for an agent that ``is_asked_for``.

        Args:
            resume_request: What the agent asks for.
            grant: What its token allows; None if none is asked for.
            grants: Who takes grants back.

        Returns:
            What the 101 has to say, next: ``make_protocol``; None if the link cannot go on.

        Raises:
            Refusal: 429, it comes back again and again.
        """
        self.came_back_early = not self.is_resuming
        field = None if self._session is None else self._session.resume(resume_request)
        if field is None:
            return None
        if grant is not None and grants is not None:
            self._renew(grant, grants)
        return {SESSION_FIELD: field.written()}

    def make_protocol(self, _subprotocol: str | None) -> IProtocol:
        """Make what runs over the carrier, for ``CarrierAnswerer.answer``."""
        if self._session is not None:
            return CarrierProtocol(self._session.on_open)
        self._note_carrier()
        return cast(Mux, self._mux)

    def give_up(self) -> None:
        """The carrier that was expected has not opened."""
        if self._session is not None:
            self._session.give_up()

    def _note_carrier(self) -> None:
        room = self.room
        self.syncs.note_carrier()
        if self.is_resuming:
            self.change = LinkChange.DETACHED
            self._log.info("The agent of room {room} has lost its carrier", room=room, event="link.detached")
        elif self._was_attached:
            self.change = LinkChange.RESUMED
            self._log.info("The agent of room {room} is back", room=room, event="link.resumed")
        else:
            self._was_attached = True
            self.change = LinkChange.ATTACHED
            known_as = room_hash(room)
            self._log.info(
                "An agent serves room {room} ({room_hash})",
                room=room,
                room_hash=known_as,
                event="link.attached",
            )
        self.on_change(self)

    @property
    def _below(self) -> Carrier | ResumableTransport:
        """What the session runs over."""
        return cast("Carrier | ResumableTransport", cast(Mux, self._mux).transport)

    def notice_drain(self, in_seconds: float, try_seconds: float, on_moved: Callable[[], None]) -> bool:
        """Ask the agent to look for another relay; False if it would not understand.

        Args:
            in_seconds: When to begin.
            try_seconds: How long to try.
            on_moved: Called when it has found one, and serves those who are left.
        """
        if not self.is_attached or self._subprotocol is None:
            return False
        cast(Mux, self._mux).on_peer_leaving = on_moved
        self._below.send_control(Drain(in_seconds, try_seconds).written())
        return True

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

    def leave(self, reason: str, code: CloseCode = CloseCode.SERVICE_RESTART) -> None:
        """Take leave of the agent for good: GoAway, then a close frame."""
        self._is_leaving = True
        self._why_lost = "sent_away"
        mux = self._mux
        if mux is None or not self.is_alive:
            return
        mux.leave()
        self._below.close(code, reason)

    def disconnect(self, reason: str) -> None:
        """Close the carrier because an operator of the relay has asked for it; the agent may dial again."""
        self.leave(reason, CloseCode.DISCONNECTED)

    def make_way(self) -> None:
        """The same agent has come with another carrier: end now, and say why to whoever still listens.

        What the old carrier still brings is dropped, and so is the carrier if it does not close.
        The close code matters when the old one is no stale one but that of a second process with
        the same key: that one must not take the room back.
        """
        mux = self._mux
        if mux is None or not self.is_alive:
            return
        self._why_lost = "replaced"
        mux.leave()
        self._below.close(CloseCode.REPLACED, "the same agent has taken the room with another connection")
        mux.end("The same agent has taken the room with another connection.")

    def give_up_waiting(self, sentence: str, why: str = "no_memory") -> None:
        """Do not wait any longer for an agent that is away; ``on_lost`` follows."""
        if self._session is not None and self.is_resuming:
            self._why_lost = why
            self._session.end(sentence)

    def cut(self) -> None:
        """End the link now, if it is still there: the time of the drain is over."""
        if self.is_alive:
            self._below.abortConnection()

    def _note_lost(self, sentence: str) -> None:
        self._next_token = None
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None
        if self._session is not None:
            self._session.end(sentence)
        if self._renewal is not None:
            self._renewal.cancel()
        self._on_lost(self, sentence)
        self.syncs.close()
        self._lost.fire(None)
