"""The public side of a relay: reads one request head and decides what the connection is.

Any peer can connect, so a connection is cheap until its head is accepted. The head is bounded in bytes and in
time from accept, and connections without a whole head are bounded in number. A refusal costs a parsed head
and a written response, before Autobahn and before a stream. Refusals are HTTP statuses *before* any 101: old
y-websocket and Hocuspocus clients that are accepted and then closed reconnect 9 to 29 times a second.

``HANDLERS`` maps each kind of request to its handler. Agents continue in ``CarrierAnswerer``, clients in
``ClientConnection``.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # Twisted's own
from twisted.internet.interfaces import IProtocolNegotiationFactory, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.carrier import RESUMABLE, CarrierAnswerer, negotiated
from seance.core.events import LimitHit, Refused
from seance.core.handshake_fields import REPLACE_FIELD
from seance.core.interfaces import VERIFY_SECONDS, Grant, TokenRole, identity_of
from seance.core.lingering_close import LingeringClose
from seance.core.local_info import LocalServerInfo
from seance.core.per_turn_limiter import PerTurnLimiter
from seance.core.shared_timers import SharedTimers
from seance.errors import Refusal
from seance.heads import (
    Forwarded,
    PublicForm,
    Request,
    RequestReader,
    Route,
    RouteKind,
    check_origin,
    check_upgrade,
    find_token,
    forwarded_proto,
    protocol_to_select,
    query_token,
    refusal_response,
    request_for_local,
    resolve_target,
    without_token,
)
from seance.heads.refusals import Retry
from seance.net import HandshakeLog, LogLimiter, PeerCertificate, ProtocolSwitch, peer_certificate, tune
from seance.relay.edge.admission import LOOPBACK, Visit
from seance.relay.edge.agent_identity import authenticate_agent, challenge
from seance.relay.edge.client_connection import ClientConnection
from seance.relay.edge.connection_slots import ConnectionSlot, ConnectionSlots
from seance.relay.edge.health import health_response, is_health_check, without_body
from seance.relay.edge.pages import page_response
from seance.relay.edge.pending_connections import PendingConnections
from seance.relay.edge.room_status import Presence, is_status
from seance.relay.edge.trusted_proxies import TrustedProxies, peer_host
from seance.relay.refusals import refusal
from seance.relay.rooms.active_grants import CertificateGrant
from seance.relay.rooms.directory import Resumption
from seance.resume import RESUME_FIELD, ResumeRequest

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

    from seance.relay.context import RelayContext
    from seance.relay.drain import Departures
    from seance.relay.edge.admission import Admission
    from seance.relay.edge.connection_slots import Accepting
    from seance.relay.rooms.active_grants import GrantHandle
    from seance.relay.rooms.directory import RoomDirectory
    from seance.relay.rooms.sync_limiter import Sync
    from seance.relay.rooms.upstream import Upstream

__all__ = ["FrontendFactory", "RequestKind"]


class RequestKind(enum.Enum):
    """The kind of a request, by its head."""

    HEALTH_CHECK = "health check"
    AGENT = "agent"
    STATUS = "status"
    PAGE = "page"
    CLIENT = "client"


@implementer(IProtocolNegotiationFactory)
class FrontendFactory(Factory):
    """Makes a ``Frontend`` for each public connection, and has what they share.

    Args:
        context: The context of the relay.
        rooms: Which agent serves which room.
        admission: The counts and limits of connections.
        departures: The clients that have a stream.
        accepting: The listening ports.

    Attributes:
        context, rooms, admission, departures: See above.
        reactor: The reactor of the context.
        timers: The timeouts of clients.
        proxies: The trusted proxies.
        answerer: Answers agents with a 101.
        handshakes: Logs failed TLS handshakes.
        presence: Answers requests for the status of a room.
        turns: Bounds how many clients begin in one turn of the reactor.
        pending: The connections without a whole head.
        slots: A slot for each connection.
        closing: The connections that have their response and are not closed yet.
        refused: Those of them that may be closed early, the oldest first.
        is_draining: Whether the relay is stopping.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        context: RelayContext,
        rooms: RoomDirectory,
        admission: Admission,
        departures: Departures,
        accepting: Accepting,
    ) -> None:
        reactor, settings = context.reactor, context.settings
        self.context = context
        self.reactor = reactor
        self.timers = SharedTimers(reactor)
        self.rooms = rooms
        self.admission = admission
        self.departures = departures
        self.proxies = TrustedProxies(settings.trusted_proxy, self._note_unreadable)
        self._unreadable_limit = LogLimiter(reactor)
        self.answerer = CarrierAnswerer(reactor)
        self.handshakes = HandshakeLog(reactor)
        self.turns = PerTurnLimiter(reactor)
        self.presence = Presence(context, rooms, max_watchers=admission.max_waiting)
        self.pending = PendingConnections(
            settings.unanswered_connections,
            settings.unanswered_connections_per_address,
            on_full=lambda limit: context.observer.notify(LimitHit(limit)),
        )
        self._deciding: dict[Frontend, None] = {}
        self.closing: dict[Frontend, None] = {}
        self.refused: dict[Frontend, None] = {}
        self.slots = ConnectionSlots(
            admission, accepting, lambda: context.observer, free_slot=self._free_slot
        )
        self.is_draining = False

    def open(self) -> None:
        """Serve agents and clients, also after the relay has stopped."""
        self.is_draining = False
        self.presence.open()
        self.timers.start()

    def buildProtocol(self, addr: IAddress | None) -> Frontend:
        """Make the protocol of one connection."""
        return Frontend(self)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802  # Twisted's name
        """Return the protocols for ALPN. Without them Twisted refuses browsers, which all offer ALPN."""
        return [b"http/1.1"]

    @property
    def unanswered_count(self) -> int:
        """Connections without a whole head."""
        return len(self.pending)

    def cut_pending(self) -> None:
        """Cut every connection that has no whole head, is being decided, or was refused; the relay stops."""
        self.timers.stop()
        self.pending.cut_all()
        for frontend in [*self._deciding, *self.closing]:
            frontend.cut()

    def _free_slot(self) -> None:
        """Close the oldest refused connection, or else the oldest connection without a complete head.

        Otherwise clients that do not close a refused connection would hold the last slots for two seconds
        each, and an agent behind 300 of them would wait 18 s.
        """
        oldest = next(iter(self.refused), None)
        if oldest is None:
            self.pending.cut_oldest()
        else:
            del self.refused[oldest]  # its slot is free in the next turn; until then, another one is chosen
            oldest.close_answered()

    def _note_unreadable(self, peer: str, what: str) -> None:
        suppressed = self._unreadable_limit.admit(peer)
        if suppressed is not None:
            self._log.warn(
                "The trusted proxy {peer} {what}: its clients are counted as one address "
                "until it sets X-Forwarded-For to theirs ({suppressed} more since the last such line)",
                peer=peer,
                what=what,
                suppressed=suppressed,
                event="proxy.unreadable",
            )

    def note_deciding(self, frontend: Frontend, is_deciding: bool) -> None:
        """Note whether a connection with a whole head is being decided."""
        if is_deciding:
            self._deciding[frontend] = None
        else:
            self._deciding.pop(frontend, None)


class Frontend(ProtocolSwitch):
    """Reads the head of one connection."""

    _log = Logger()

    def __init__(self, factory: FrontendFactory) -> None:
        self._factory = factory
        self._context = factory.context
        self._settings = factory.context.settings
        self._reader = RequestReader(self._settings.head_bytes, accept_http_10=True)
        self._timer: IDelayedCall | None = None
        self._deciding: Deferred[None] | None = None
        self._ended_grant: Refusal | None = None
        self._late = bytearray()
        self._peer = ""
        self._slot: ConnectionSlot | None = None
        self._counted_as = ""
        self._has_begun = False
        self._is_gone = False

    def connectionMade(self) -> None:
        """Count the connection in and start the time that a head may take."""
        transport = cast(ITCPTransport, self.transport)
        tune(transport)
        self._peer = peer_host(transport)
        try:
            self._slot = self._factory.slots.take(self._peer)
        except Refusal as refusal:
            self._context.observer.notify(Refused(refusal.code))
            # It has no slot, so it is closed without waiting for a TLS handshake or for the response to
            # arrive. The reset reaches only the client; no local server was asked.
            if ISSLTransport.providedBy(transport):
                transport.abortConnection()
            else:
                transport.write(refusal_response(refusal))
                transport.loseConnection()
            return
        self._counted_as = self._peer
        self._timer = self._factory.timers.callLater(self._settings.head_seconds, self._head_timed_out)
        is_shared = self._slot.holder == LOOPBACK or self._factory.proxies.trusts(self._peer)
        self._factory.pending.add(self, None if is_shared else self._slot.holder)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole."""
        if self._deciding is not None:
            # Not paused: a paused connection would not report that its client has disconnected.
            self._late += data
            if len(self._late) > self._settings.early_bytes:
                self.cut()
            return
        self._has_begun = True
        try:
            request = self._reader.receive(data)
        except Refusal as refusal:
            self._stop_waiting()
            self._refuse(refusal)
            return
        if request is None:
            return
        self._stop_waiting()
        # Read again: a PROXY header may have arrived since the connection was made.
        self._peer = peer_host(cast(ITCPTransport, self.transport))
        self._late += self._reader.trailing
        del self._reader  # this object lives as long as an agent's connection
        self._deciding = Deferred.fromCoroutine(self._decide(request))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release what the connection holds: it was lost before it was handed over, or closed afterwards."""
        self._is_gone = True
        self._stop_waiting()
        if self._slot is not None:
            self._slot.release()
        if self._deciding is not None:
            self._deciding.cancel()
        if self._successor is None:
            self._factory.handshakes.note(reason, self._peer)
        super().connectionLost(reason)

    def cut(self) -> None:
        """Reset the connection."""
        # A reset frees the descriptor immediately. No local server was asked yet, here and below.
        self._stop_waiting()
        cast(ITCPTransport, self.transport).abortConnection()

    def close_answered(self) -> None:
        """Close a connection that has its answer, without waiting for the client to close too."""
        transport = cast(ITCPTransport, self.transport)
        if ISSLTransport.providedBy(transport):
            transport.abortConnection()  # TLS would wait for the client's close_notify
        else:
            transport.loseConnection()

    def _head_timed_out(self) -> None:
        self._timer = None
        if not self._has_begun:
            self.cut()
            return
        self._stop_waiting()
        self._refuse(refusal("head_timeout"))

    # -- what it can be --------------------------------------------------------------------

    async def _decide(self, request: Request) -> None:
        self._factory.note_deciding(self, True)
        try:
            await self._serve(request)
        except Refusal as refusal:
            if not self._is_gone:
                self._refuse(refusal)
        except CancelledError:
            if self._ended_grant is not None:
                self._refuse(self._ended_grant)
            elif not self._is_gone:
                cast(ITCPTransport, self.transport).abortConnection()
        except Exception:  # noqa: BLE001  # a fault of ours ends this connection only
            self._log.failure("A request could not be served", event="front.failed")
            cast(ITCPTransport, self.transport).abortConnection()
        finally:
            self._factory.note_deciding(self, False)

    async def _serve(self, request: Request) -> None:
        if is_health_check(request):
            kind, route = RequestKind.HEALTH_CHECK, None
        else:
            route = resolve_target(request.target)
            if self._factory.is_draining:
                is_agent = route.kind is RouteKind.AGENT
                raise refusal("relay_stopping", retry=Retry.SOON if is_agent else None)
            kind = self._kind_of(request, route)
        await HANDLERS[kind](self, request, cast(Route, route))

    def _kind_of(self, request: Request, route: Route) -> RequestKind:
        if route.kind is RouteKind.AGENT:
            return RequestKind.AGENT
        if is_status(request, route):
            return RequestKind.STATUS
        if page_response(self._settings.pad, request, route) is not None:
            return RequestKind.PAGE
        return RequestKind.CLIENT

    async def serve_health_check(self, request: Request, _: Route) -> None:
        """Answer whether the relay accepts connections."""
        self._close_gracefully(health_response(request, is_draining=self._factory.is_draining))

    async def serve_status(self, request: Request, route: Route) -> None:
        """Answer a request for the status of a room, or give the connection to a watcher."""
        admit = partial(self._admit, visit=Visit.STATUS)
        status = await self._factory.presence.answer(request, route, self, admit)
        if status is not None:
            self._send_response(request, status)

    async def serve_page(self, request: Request, route: Route) -> None:
        """Answer with the page of a share link."""
        self._send_response(request, cast(bytes, page_response(self._settings.pad, request, route)))

    async def serve_agent(self, request: Request, route: Route) -> None:
        """Attach an agent: verify it, assign or resume its room, and answer with a 101."""
        check_upgrade(request)
        origins = request.values(b"origin")
        if any(origin.decode("latin-1") not in self._settings.agent_origins for origin in origins):
            # A web page can open this address too, and would become the host of a room.
            raise refusal("agent_origin")
        address = self._count_as_client_of_proxy(request)
        context, rooms, seconds = self._context, self._factory.rooms, self._factory.reactor.seconds
        may_resume = self._settings.resume_seconds > 0
        subprotocol = negotiated(request, may_resume=may_resume)
        resume_request = _resume_request_of(request) if subprotocol == RESUMABLE else None
        if not rooms.is_resumption(route.room, resume_request):
            # A resuming agent is limited by its session, so the limits of its address do not apply.
            self._factory.admission.count_visit(Visit.AGENT, address, seconds())
        certificate = self._agent_certificate()
        grant: Grant | None
        if certificate is None:
            grant = await self._grant(request, route, TokenRole.AGENT)
        else:
            grant = CertificateGrant.of(certificate)
        resumption = Resumption()
        if resume_request is not None:
            resumption = await rooms.resume(route.room, resume_request, grant, address=address)
        link, headers = resumption.link, resumption.headers or {}
        if link is not None:
            headers |= challenge(context.identities, request, seconds())
        else:
            if certificate is None:
                is_forwarded = self._factory.proxies.trusts(self._peer)
                identity, headers = authenticate_agent(
                    context.identities, request, route.room, grant, is_forwarded=is_forwarded, now=seconds()
                )
            else:
                identity = identity_of(cast(Grant, grant))
            self._factory.admission.count_for_room(Visit.AGENT, route.room, seconds(), identity=identity)
            link = await rooms.claim(
                route.room,
                identity=identity,
                address=address,
                may_replace=request.values(REPLACE_FIELD.lower().encode()) != [b"no"],
            )
            if grant is not None and context.grants is not None:
                link.bind_grant(grant, context.grants)
            headers |= link.expect(subprotocol, resumption.reason)
        link.local = LocalServerInfo.from_request(request)
        headers |= link.local.reply(self._settings)
        self._factory.answerer.answer(
            request,
            self._take_late(),
            self.hand_over,
            link.make_protocol,
            may_resume=may_resume,
            headers=headers,
        )
        tune(self.transport, is_carrier=True)
        if not link.was_attached:
            # A request that passes our checks passes Autobahn's; if they ever differ, no room is held.
            rooms.release(link)
            cast(ITCPTransport, self.transport).abortConnection()
        elif resumption.link is not None:
            link.give_up()
        else:
            link.watch_carrier()
            if certificate is None:
                link.take_tokens(context.verifier, context.grants)

    async def serve_client(self, request: Request, route: Route) -> None:
        """Join a client to the local server of its room."""
        key = check_upgrade(request)
        context, rooms = self._context, self._factory.rooms
        grant = await self._admit(request, route)
        handle: GrantHandle | None = None
        sync: Sync | None = None
        began_seconds = self._factory.reactor.seconds()
        if grant is not None and context.grants is not None:
            handle = context.grants.add(grant, self._grant_ended, max_sessions=grant.max_clients)
        try:
            upstream = await rooms.find(route.room)
            sync = await self._when_may_load(upstream, began_seconds)
            while rooms.has_lost(upstream):
                # The client got its turn from the old link and needs one from the new link.
                sync.left()
                upstream = await rooms.find(route.room, began_seconds)
                sync = await self._when_may_load(upstream, began_seconds)
            select_protocol = protocol_to_select(request)
            public = request
            token = b"" if grant is None else query_token(request, route)
            request, route = without_token(request, route)
            forwarded = Forwarded(
                client_address=self._counted_as, proto=self._proto(public), host=public.values(b"host")[0]
            )
            head = request_for_local(request, route.local, forwarded)
            client = ClientConnection(
                self._factory.timers,
                self._settings,
                upstream,
                self,
                key,
                departures=self._factory.departures,
                sync=sync,
                select_protocol=select_protocol,
                form=PublicForm.of(public.target, route, upstream.local_hosts, forwarded.host, token),
                bytes_per_second=None if grant is None else grant.max_bytes_per_second,
                address=self._counted_as,
                observer=context.observer,
                slot=cast(ConnectionSlot, self._slot),
                on_end=None if handle is None else handle.release,
            )
            if handle is not None:
                handle.end = client.end
            client.begin(head, self._take_late())
        except BaseException:
            if handle is not None:
                handle.release()
            if sync is not None:
                sync.left()
            raise

    async def _when_may_load(self, upstream: Upstream, began_seconds: float) -> Sync:
        """Wait until a client may load its document, and then for its turn of the reactor."""
        sync = await upstream.when_may_load(began_seconds)
        try:
            await self._factory.turns.acquire()
        except BaseException:
            sync.left()
            raise
        return sync

    async def _admit(self, request: Request, route: Route, *, visit: Visit = Visit.CLIENT) -> Grant | None:
        """Make the checks of every request for a room; return the grant of its token, or None."""
        admission, seconds = self._factory.admission, self._factory.reactor.seconds
        check_origin(request, self._settings.origins)
        admission.count_visit(visit, self._count_as_client_of_proxy(request), seconds())
        grant = await self._grant(request, route, TokenRole.CLIENT)
        if grant is not None:
            check_origin(request, grant.origins)
        admission.count_for_room(visit, route.room, seconds())
        return grant

    def _grant_ended(self, why: str) -> None:
        """Refuse a client that waits for its agent, because its token has expired or was revoked."""
        self._ended_grant = refusal("sent_away", reason=why)
        cast("Deferred[None]", self._deciding).cancel()

    def _count_as_client_of_proxy(self, request: Request) -> str:
        """Return the address of the client, and count the connection for it from now on."""
        address = self._factory.proxies.client_of(self._peer, request)
        if address != self._counted_as:
            # Take before release: a refused connection stays counted until it is gone.
            slot = self._factory.slots.take(address)
            cast(ConnectionSlot, self._slot).release()
            self._slot, self._counted_as = slot, address
        return address

    def _agent_certificate(self) -> PeerCertificate | None:
        """Return the certificate with which an agent needs no token, or None.

        Raises:
            Refusal: 401, the relay accepts agents by certificate only, and there is none.
        """
        if self._settings.agent_ca is None:
            return None
        certificate = peer_certificate(self.transport)
        if certificate is None and self._context.verifier is None:
            raise refusal("agent_certificate")
        return certificate

    async def _grant(self, request: Request, route: Route, role: TokenRole) -> Grant | None:
        verifier = self._context.verifier
        if verifier is None:
            return None
        presented = find_token(request, route)
        deciding = verifier.verify(presented.token, role, route.room)
        try:
            return await deciding.addTimeout(VERIFY_SECONDS, self._factory.reactor)
        except TimeoutError as error:
            raise refusal("token_wait") from error

    def _proto(self, request: Request) -> str:
        scheme = forwarded_proto(request) if self._factory.proxies.trusts(self._peer) else None
        return scheme or ("https" if ISSLTransport.providedBy(self.transport) else "http")

    def _send_response(self, request: Request, response: bytes) -> None:
        if request.method == b"HEAD":
            response = without_body(response)
        elif request.method != b"GET":
            raise refusal("method")
        self._close_gracefully(response)

    # -- inside ----------------------------------------------------------------------------

    def _take_late(self) -> bytes:
        late, self._late = bytes(self._late), bytearray()
        return late

    def _refuse(self, refusal: Refusal) -> None:
        self._context.observer.notify(Refused(refusal.code))
        self._factory.refused[self] = None
        self._close_gracefully(refusal_response(refusal))

    def _close_gracefully(self, answer: bytes) -> None:
        self._factory.closing[self] = None
        self.hand_over(LingeringClose(self._factory.reactor, answer, on_end=self._closed_gracefully))

    def _closed_gracefully(self) -> None:
        self._factory.closing.pop(self, None)
        self._factory.refused.pop(self, None)

    def _stop_waiting(self) -> None:
        self._factory.pending.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


HANDLERS: Final[dict[RequestKind, Callable[[Frontend, Request, Route], Awaitable[None]]]] = {
    RequestKind.HEALTH_CHECK: Frontend.serve_health_check,
    RequestKind.AGENT: Frontend.serve_agent,
    RequestKind.STATUS: Frontend.serve_status,
    RequestKind.PAGE: Frontend.serve_page,
    RequestKind.CLIENT: Frontend.serve_client,
}
"""The handler of each kind of request."""


def _resume_request_of(request: Request) -> ResumeRequest | None:
    values = request.values(RESUME_FIELD.lower().encode())
    return ResumeRequest.read(values[0].decode("latin-1")) if len(values) == 1 else None
