"""The relay's end of a link: one agent, attached for one room.

The link of a plain agent ends with its carrier. The link of an agent that can resume has a
``ResumableSession`` between the two, and ends with that session.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import cast

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # Twisted's own
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
from seance.core.events import LinkChange
from seance.core.flow_gate import RateLimit
from seance.core.handshake_fields import REPLACE_FIELD
from seance.core.interfaces import VERIFY_SECONDS, Grant, TokenRole, Verifier, identity_of
from seance.core.link_session import link_session
from seance.core.local_info import LocalServerInfo
from seance.core.observers import room_hash
from seance.core.settings import RelaySettings
from seance.core.token_bucket import TokenBucket
from seance.errors import LocalProtocolError, Refusal
from seance.mux import Mux, StreamTransport
from seance.net import OneShotEvent
from seance.relay.refusals import refusal
from seance.relay.rooms.active_grants import ActiveGrants, GrantHandle
from seance.relay.rooms.resumable_session import ResumableSession
from seance.relay.rooms.sync_limiter import InitialSyncLimiter, Sync
from seance.resume import SESSION_FIELD, DrainNotice, ResumeRequest
from seance.yamux import Role, WindowBudget

__all__ = ["AgentLink"]

NO_LIMIT = 1 << 40
"""Bytes a second after a newer token of the agent has removed the limit."""

TOKEN_BURST = 10.0
"""Burst of tokens over one link, and then one a second, because each costs a signature and a log line. Tokens
beyond that are ignored; our agents check their token file every two seconds."""

MAX_PREDECESSORS = 16
"""Earlier sessions that are remembered; the oldest is forgotten first."""


class AgentLink:
    """One attached agent; an ``Upstream``. Made before the 101, so that its room is claimed by then.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        settings: The settings of the relay.
        room: The room that it serves.
        on_lost: Called once with a message when the link is over.
        windows: The budget by which the receive windows of all links may grow.

    Attributes:
        change: The latest change of its state.
        syncs: Limits how many of its clients load their document at a time.
        came_back_early: Whether the agent resumed, the last time, before the relay noticed its absence.
        room: See above.
        address: The address from which the agent attached.
        local: The facts about the local server that the agent sent.
        on_change: Called with the link after each change of its state.
        max_clients: The limit of the agent's token; None for no limit.
        handle: The grant on which the link depends; None if there is none.
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
        self._heartbeat: CarrierHeartbeat | None = None
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
        self._rate_limit = RateLimit(reactor, rate) if rate else None
        self.max_clients: int | None = None
        self.handle: GrantHandle | None = None
        self._renewal: Deferred[Grant] | None = None
        self._next_token: str | None = None

    @property
    def upgrade_seconds(self) -> float:
        """How long the local server may take for its first answer."""
        return self.local.granted_seconds(self._settings)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate that all clients of the room share; None for no limit."""
        return self._rate_limit

    @property
    def local_hosts(self) -> tuple[bytes, ...]:
        """The values of ``Host`` by which the local server may refer to itself."""
        return self.local.hosts

    def when_may_load(self, since_seconds: float) -> Deferred[Sync]:
        """Wait until one more client may load its document; see ``Upstream``."""
        return self.syncs.when_may_load(since_seconds)

    @property
    def was_attached(self) -> bool:
        """Whether a carrier was ever open."""
        return self._was_attached

    @property
    def is_attached(self) -> bool:
        """Whether a carrier is open."""
        return self.is_alive and not self.is_resuming

    @property
    def is_alive(self) -> bool:
        """Whether the agent is attached or may still resume."""
        return self._mux is not None and not self._mux.is_over and self._was_attached

    @property
    def is_resuming(self) -> bool:
        """Whether the carrier is lost and the agent may still resume."""
        return self.is_alive and self._session is not None and self._session.is_detached

    @property
    def away_since_seconds(self) -> float:
        """When the carrier was lost, while the link ``is_resuming``."""
        return 0.0 if self._session is None else self._session.away_since_seconds

    @property
    def kept_bytes(self) -> int:
        """Bytes that the agent has not acknowledged."""
        return 0 if self._session is None else self._session.kept_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes held for the agent, including the queues of its clients' streams while it is away."""
        queued = self._mux.queued_bytes if self._mux is not None and self.is_resuming else 0
        return self.kept_bytes + queued

    @property
    def queued_bytes(self) -> int:
        """Bytes queued on the streams of all its clients; visits each stream."""
        return 0 if self._mux is None else self._mux.queued_bytes

    @property
    def round_trip_seconds(self) -> float | None:
        """Round trip of the latest answered yamux ping; None before the first."""
        return None if self._mux is None else self._mux.session.round_trip_seconds

    def measure(self) -> None:
        """Send a ping, so that ``round_trip_seconds`` is current soon."""
        if self._mux is not None and self.is_attached:
            self._mux.ping()

    @property
    def lost_reason(self) -> str:
        """Why the link is over: one of ``seance.core.events.LINK_REASONS``."""
        if self._why_lost:
            return self._why_lost
        if self.change is LinkChange.DETACHED:
            return "expired"
        if self._session is not None:
            if self._session.transport.is_broken:
                return "desync"
            return "failed" if self._session.transport.is_attached else "left"
        carrier = cast(Carrier, self._below)
        if carrier.was_cut:
            return "cut"
        return "failed" if carrier.peer_close_code is None else "left"

    @property
    def stream_count(self) -> int:
        """Clients on this link now."""
        return 0 if self._mux is None else self._mux.stream_count

    def bind_grant(self, grant: Grant, grants: ActiveGrants) -> None:
        """End the link when the agent's grant ends, and apply the limits that the grant sets for the room."""
        self.handle = grants.add(grant, lambda reason: self.leave(reason, CloseCode.TOKEN_ENDED))
        self.max_clients = grant.max_clients
        bounds = [self._settings.bytes_per_second_per_room, grant.max_bytes_per_second]
        rate = min((bound for bound in bounds if bound), default=0)
        if self._rate_limit is not None:
            self._rate_limit.change(rate or NO_LIMIT)
        elif rate:
            self._rate_limit = RateLimit(self._reactor, rate)

    def watch_carrier(self) -> None:
        """Send heartbeats on the carrier, unless the session does so because it can resume."""
        if self.is_alive and self._session is None:
            self._heartbeat = CarrierHeartbeat(self._reactor, cast(Carrier, self._below))

    def take_tokens(self, verifier: Verifier | None, grants: ActiveGrants | None) -> None:
        """Let the agent renew its token over the link: ``{"t": "token", "token": "..."}``."""
        if verifier is None or grants is None or not self.is_alive:
            return

        clock, rate = self._reactor.seconds, TokenBucket(1.0, TOKEN_BURST, self._reactor.seconds())

        def arrived(message: dict[str, object]) -> None:
            token = message.get("token")
            if message["t"] == "token" and isinstance(token, str) and rate.take(1.0, clock()):
                self._next_token = token  # the latest one, if several arrive while one is verified
                if self._renewal is None:
                    verify_next()

        def verify_next() -> None:
            token, self._next_token = self._next_token, None
            if token is not None:
                deciding = self._renewal = verifier.verify(token, TokenRole.AGENT, self.room)
                deciding.addTimeout(VERIFY_SECONDS, self._reactor)
                deciding.addCallback(self._renew, grants).addErrback(self._note_refused)
                deciding.addCallback(lambda _: verify_next())

        self._below.on_control = arrived

    def _renew(self, grant: Grant, grants: ActiveGrants) -> None:
        self._renewal = None
        before = self.handle
        if before is None or not self.is_alive:
            return
        if identity_of(grant) != identity_of(before.grant):
            self._log.warn(
                "The agent of room {room} sent the token of another agent",
                room=self.room,
                event="token.refused",
            )
            return
        grants.remove(before)
        self.bind_grant(grant, grants)
        self._log.info(
            "The agent of room {room} has renewed its token", room=self.room, event="token.renewed"
        )

    def _note_refused(self, failure: Failure) -> None:
        self._renewal = None
        if failure.check(CancelledError):  # the link is over
            return
        failure.trap(Refusal, TimeoutError)
        self._log.warn(
            "The agent of room {room} sent an invalid token", room=self.room, event="token.refused"
        )

    def expect(self, subprotocol: str | None, why: str = "") -> dict[str, str]:
        """Prepare for the first carrier.

        Args:
            subprotocol: The negotiated subprotocol; None for a plain agent.
            why: Why an older session is not resumed, if the agent asked for that.

        Returns:
            Fields for the 101. ``make_protocol`` follows.
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
        """Whether a request has the identifier and secret of this link's session."""
        if not self.is_alive or self._is_leaving or self._session is None:
            return False
        return self._session.is_asked_for(resume_request)

    def is_asked_for(self, resume_request: ResumeRequest, grant: Grant | None) -> bool:
        """Whether a resume request is from the agent of this link.

        Args:
            resume_request: The request.
            grant: What its token allows; it has to name the same agent as before.
        """
        before = None if self.handle is None else identity_of(self.handle.grant)
        is_same = (None if grant is None else identity_of(grant)) == before
        return self.fits(resume_request) and is_same

    def succeed(self, stale: AgentLink) -> None:
        """Replace an earlier link of the same agent, and remember its session.

        The process of that session may wake up later, and must not take the room back; see
        ``check_not_replaced``.
        """
        session = stale._session  # our own kind
        self._predecessors = stale._predecessors if session is None else (session.sid, *stale._predecessors)
        self._predecessors = self._predecessors[:MAX_PREDECESSORS]

    def check_not_replaced(self, resume_request: ResumeRequest) -> None:
        """Refuse a process that another process with the same key has replaced.

        Raises:
            Refusal: 409, with the field that makes it wait.
        """
        if resume_request.sid in self._predecessors:
            raise refusal("room_replaced", headers=((REPLACE_FIELD.encode(), b"no"),))

    def refusal_while_away(self) -> Refusal | None:
        """Return the refusal for other agents while this link may resume; None if its agent is attached."""
        if not self.is_resuming:
            return None
        until_seconds = self.away_since_seconds + self._settings.resume_seconds
        seconds = max(1, ceil(until_seconds - self._reactor.seconds()))
        return refusal("room_reserved.lost", seconds=seconds, retry_seconds=seconds)

    def resume(
        self, resume_request: ResumeRequest, grant: Grant | None, grants: ActiveGrants | None
    ) -> dict[str, str] | None:
        """Prepare for another carrier, for a request for which ``is_asked_for`` is true.

        Args:
            resume_request: The request.
            grant: What its token allows; None if no token is needed.
            grants: The active grants of the relay.

        Returns:
            Fields for the 101, ``make_protocol`` follows; None if the session cannot continue.

        Raises:
            Refusal: 429, the session resumes too often.
        """
        self.came_back_early = not self.is_resuming
        field = None if self._session is None else self._session.resume(resume_request)
        if field is None:
            return None
        if grant is not None and grants is not None:
            self._renew(grant, grants)
        return {SESSION_FIELD: field.written()}

    def make_protocol(self, _subprotocol: str | None) -> IProtocol:
        """Return the protocol for the carrier, for ``CarrierAnswerer.answer``."""
        if self._session is not None:
            return CarrierProtocol(self._session.on_open)
        self._note_carrier()
        return cast(Mux, self._mux)

    def give_up(self) -> None:
        """Note that the expected carrier did not open."""
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
        """The transport of the session."""
        return cast("Carrier | ResumableTransport", cast(Mux, self._mux).transport)

    def notice_drain(self, in_seconds: float, try_seconds: float, on_moved: Callable[[], None]) -> bool:
        """Ask the agent to move to another relay; return False for a plain agent.

        Args:
            in_seconds: When it should start.
            try_seconds: How long it should try.
            on_moved: Called when it has moved; it still serves the clients of this link.
        """
        if not self.is_attached or self._subprotocol is None:
            return False
        cast(Mux, self._mux).on_peer_leaving = on_moved
        self._below.send_control(DrainNotice(in_seconds, try_seconds).written())
        return True

    def open_stream(self, protocol: IProtocol) -> StreamTransport:
        """Open a stream to the agent for one client.

        Raises:
            Refusal: 429, the room has the maximum number of clients; 503, the agent is away or leaves.
        """
        mux = self._mux
        if self.max_clients is not None and self.stream_count >= self.max_clients:
            raise refusal("room_full")
        if mux is None or self._is_leaving or mux.is_over:
            raise refusal("agent_away")
        try:
            return mux.open_stream(protocol)
        except LocalProtocolError as error:
            if error.code in ("too_many_streams", "too_many_unacknowledged"):
                raise refusal("room_full") from error
            raise refusal("agent_leaving") from error

    def when_lost(self) -> Deferred[None]:
        """Wait for the end of the link."""
        return self._lost.when()

    def leave(self, reason: str, code: CloseCode = CloseCode.SERVICE_RESTART) -> None:
        """End the link: send GoAway, then a close frame."""
        self._is_leaving = True
        self._why_lost = "sent_away"
        mux = self._mux
        if mux is None or not self.is_alive:
            return
        mux.leave()
        self._below.close(code, reason)

    def disconnect(self, reason: str) -> None:
        """Close the carrier on request of an operator; the agent may attach again."""
        self.leave(reason, CloseCode.DISCONNECTED)

    def make_way(self) -> None:
        """End the link now, because another link of the same agent replaces it.

        Data that still arrives on the old carrier is dropped. The close code matters if the old carrier is
        not stale but belongs to a second process with the same key: that process must not take the room back.
        """
        mux = self._mux
        if mux is None or not self.is_alive:
            return
        self._why_lost = "replaced"
        mux.leave()
        self._below.close(CloseCode.REPLACED, "the same agent has taken the room with another connection")
        mux.end("The same agent has taken the room with another connection.")

    def give_up_waiting(self, message: str, why: str = "no_memory") -> None:
        """End the session of an agent that is away; ``on_lost`` follows."""
        if self._session is not None and self.is_resuming:
            self._why_lost = why
            self._session.end(message)

    def cut(self) -> None:
        """Cut the carrier, if there is one: the time of the drain is over."""
        if self.is_alive:
            self._below.abortConnection()

    def _note_lost(self, message: str) -> None:
        self._next_token = None
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._session is not None:
            self._session.end(message)
        if self._renewal is not None:
            self._renewal.cancel()
        self._on_lost(self, message)
        self.syncs.close()
        self._lost.fire(None)
