"""The relay's public door: reads one head and decides what the connection is.

Nothing stands before this, so this is where strangers are kept cheap: the head is bounded in bytes
and in time counted from accept, connections that have not sent a whole head are bounded in number,
and a refusal costs a parsed head and a written answer, before Autobahn, before a stream. Refusals
are HTTP statuses *before* any 101: old y-websocket and Hocuspocus clients that are accepted and
then closed redial 9 to 29 times a second (yjs.md, fact 1).

What it opens is somebody else's: ``CarrierAnswerer`` for agents, ``ClientConnection`` for clients.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # Twisted's own
from twisted.internet.interfaces import (
    IProtocolNegotiationFactory,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.carrier import RESUMABLE, negotiated
from seance.core.handshake_fields import REPLACE_FIELD
from seance.core.interfaces import Grant, TokenRole, identity_of
from seance.core.lingering_close import LingeringClose
from seance.core.local_info import LocalServerInfo
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
    refusal_response,
    request_for_local,
    resolve_target,
    token_of_address,
    without_token,
)
from seance.net import PeerCertificate, ProtocolSwitch, peer_certificate, tune
from seance.relay.edge.admission import LOOPBACK, Visit
from seance.relay.edge.agent_identity import authenticate_agent, challenge
from seance.relay.edge.client_connection import ClientConnection
from seance.relay.edge.connection_slots import Place, Places
from seance.relay.edge.health import health_response, is_health_check, without_body
from seance.relay.edge.pages import page_response
from seance.relay.edge.pending_connections import PendingConnections
from seance.relay.edge.room_status import is_status
from seance.relay.edge.trusted_proxies import peer_host
from seance.relay.rooms.active_grants import CertificateGrant
from seance.relay.rooms.agent_link import RETRY_AFTER
from seance.resume import RESUME_FIELD, ResumeRequest

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

    from seance.relay.rooms.active_grants import GrantHandle
    from seance.relay.rooms.agent_link import AgentLink
    from seance.relay.rooms.sync_limiter import Sync
    from seance.relay.service import Relay

__all__ = ["FrontendFactory"]

VERIFY_SECONDS = 15.0
"""How long a token may be looked at. A fetch of the key set has 5 s of its own; this is for verifiers
that hang."""


@implementer(IProtocolNegotiationFactory)
class FrontendFactory(Factory):
    """Makes a ``Frontend`` per connection and bounds those that have not shown what they are.

    Args:
        reactor: Where time comes from.
        relay: Whom to ask for links.
    """

    noisy = False

    def __init__(self, reactor: IReactorTime, relay: Relay) -> None:
        self.reactor = reactor
        self.relay = relay
        settings = relay.settings
        self.pending = PendingConnections(
            settings.unanswered_connections,
            settings.unanswered_connections_per_address,
            on_full=relay.observer.limit_hit,
        )
        self._deciding: dict[Frontend, None] = {}
        self.closing: dict[Frontend, None] = {}
        self.places = Places(relay, make_room=self._make_room)

    def buildProtocol(self, addr: IAddress | None) -> Frontend:
        """Make the protocol of one connection."""
        return Frontend(self)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802  # Twisted's name
        """Name what we speak over TLS: without it Twisted refuses every browser, which all offer ALPN."""
        return [b"http/1.1"]

    @property
    def unanswered_count(self) -> int:
        """Connections whose head is not complete yet."""
        return len(self.pending)

    def cut_pending(self) -> None:
        """Cut every connection that has not shown what it is, or that was refused; for stopping."""
        self.pending.cut_all()
        for front in [*self._deciding, *self.closing]:
            front.cut()

    def _make_room(self) -> None:
        """Close one connection for the next: one that has its refusal, else one that has sent no whole head.

        Clients that keep a refused connection open would otherwise hold the last places, two seconds each,
        and an agent behind 300 of them would wait for 18 s.
        """
        oldest = next(iter(self.closing), None)
        if oldest is None:
            self.pending.cut_oldest()
        else:
            oldest.close_answered()

    def note_deciding(self, front: Frontend, is_deciding: bool) -> None:
        """Keep in mind whose head is read and whose fate is open."""
        if is_deciding:
            self._deciding[front] = None
        else:
            self._deciding.pop(front, None)


class Frontend(ProtocolSwitch):
    """Reads the head of one connection."""

    _log = Logger()

    def __init__(self, factory: FrontendFactory) -> None:
        self._factory = factory
        self._relay = factory.relay
        self._reader = RequestReader(self._relay.settings.head_bytes, accept_http_10=True)
        self._timer: IDelayedCall | None = None
        self._deciding: Deferred[None] | None = None
        self._sent_away: Refusal | None = None
        self._late = bytearray()
        self._peer = ""
        self._place: Place | None = None
        self._counted_as = ""
        self._has_begun = False
        self._is_gone = False

    def connectionMade(self) -> None:
        """Count the connection in and start the time that a head may take."""
        transport = cast(ITCPTransport, self.transport)
        tune(transport)
        self._peer = peer_host(transport)
        try:
            self._place = self._factory.places.take(self._peer)
        except Refusal as refusal:
            self._relay.observer.refused(refusal.code)
            # It is not counted, so it may not stay: no farewell that waits for its answer to arrive.
            # Nor for a handshake, before which nothing can be said: that would be a place for nothing. The
            # reset goes to the client alone; no local server has been asked.
            if ISSLTransport.providedBy(transport):
                transport.abortConnection()
            else:
                transport.write(refusal_response(refusal))
                transport.loseConnection()
            return
        self._counted_as = self._peer
        seconds = self._relay.settings.head_seconds
        self._timer = self._factory.reactor.callLater(seconds, self._too_slow)
        is_shared = self._place.holder == LOOPBACK or self._relay.proxies.trusts(self._peer)
        self._factory.pending.add(self, None if is_shared else self._place.holder)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole."""
        if self._deciding is not None:
            # Not paused meanwhile: a paused connection would not tell us that its client has gone.
            self._late += data
            if len(self._late) > self._relay.settings.early_bytes:
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
        # Again, for the PROXY protocol: its line has come since the connection was made.
        self._peer = peer_host(cast(ITCPTransport, self.transport))
        self._late += self._reader.trailing
        del self._reader  # an agent's connection keeps us, and what it has read need not stay
        self._deciding = Deferred.fromCoroutine(self._decide(request))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It went before it said what it wanted, or before we had decided."""
        self._is_gone = True
        self._stop_waiting()
        if self._place is not None:
            self._place.give_back()
        if self._deciding is not None:
            self._deciding.cancel()
        if self._successor is None:
            self._relay.handshakes.note(reason, self._peer)
        super().connectionLost(reason)

    def cut(self) -> None:
        """End a connection that has not said what it wants, to make room."""
        # A reset frees the descriptor now. No local server has been asked yet, here and below.
        self._stop_waiting()
        cast(ITCPTransport, self.transport).abortConnection()

    def close_answered(self) -> None:
        """Close a connection that has its answer, without waiting for the client to close too."""
        transport = cast(ITCPTransport, self.transport)
        if ISSLTransport.providedBy(transport):
            transport.abortConnection()  # TLS would wait for the client's close_notify
        else:
            transport.loseConnection()

    def _too_slow(self) -> None:
        self._timer = None
        if not self._has_begun:
            self.cut()
            return
        self._stop_waiting()
        sentence = "The head of this request did not come in time; send all of it at once."
        self._refuse(Refusal(408, sentence, code="head_timeout"))

    # -- what it can be --------------------------------------------------------------------

    async def _decide(self, request: Request) -> None:
        self._factory.note_deciding(self, True)
        try:
            await self._serve(request)
        except Refusal as refusal:
            if not self._is_gone:
                self._refuse(refusal)
        except CancelledError:
            if self._sent_away is not None:
                self._refuse(self._sent_away)
            elif not self._is_gone:
                cast(ITCPTransport, self.transport).abortConnection()
        except Exception:  # noqa: BLE001  # nobody foresaw it, so nobody is served
            self._log.failure("A request could not be served", event="front.failed")
            cast(ITCPTransport, self.transport).abortConnection()
        finally:
            self._factory.note_deciding(self, False)

    async def _serve(self, request: Request) -> None:
        is_draining = self._relay.is_draining
        if is_health_check(request):
            self._close_gracefully(health_response(request, is_draining=is_draining))
            return
        route = resolve_target(request.target)
        if is_draining:
            sentence = "This relay is stopping; try again."
            raise Refusal(503, sentence, code="relay_stopping", headers=(RETRY_AFTER,))
        if route.kind is RouteKind.AGENT:
            await self._serve_agent(request, route)
        elif is_status(request, route):
            admit = partial(self._admit, visit=Visit.STATUS)
            answering = self._relay.presence.answer(request, route, self, admit, self._relay.grants)
            if (status := await answering) is not None:
                self._serve_plainly(request, status)
        elif (page := page_response(self._relay.settings.pad, request, route)) is not None:
            self._serve_plainly(request, page)
        else:
            await self._serve_client(request, route)

    async def _serve_agent(self, request: Request, route: Route) -> None:
        check_upgrade(request)
        origins = request.values(b"origin")
        if any(origin.decode("latin-1") not in self._relay.settings.agent_origins for origin in origins):
            # A web page can open this address too, and would become the host of a room.
            sentence = "This web page may not attach as an agent: its Origin is not allowed on this relay."
            raise Refusal(403, sentence, code="agent_origin")
        address = self._count_as_client_of_proxy(request)
        relay, seconds = self._relay, self._factory.reactor.seconds
        may_resume = relay.settings.resume_seconds > 0
        subprotocol = negotiated(request, may_resume=may_resume)
        resume_request = _resume_request_of(request) if subprotocol == RESUMABLE else None
        kept = None if resume_request is None else relay.link_of(route.room)
        if resume_request is None or kept is None or not kept.fits(resume_request):
            # Whoever has the secret is bounded by its session, and no crowd may keep it from that.
            relay.admission.count_visit(Visit.AGENT, address, seconds())
        certificate = self._agent_certificate()
        grant: Grant | None
        if certificate is None:
            grant = await self._grant(request, route, TokenRole.AGENT)
        else:
            grant = CertificateGrant.of(certificate)
        back = (
            None
            if resume_request is None
            else relay.resume(route.room, resume_request, grant, address=address)
        )
        if isinstance(back, tuple):
            link, headers = back
            headers |= challenge(relay.identities, request, seconds())
        else:
            if certificate is None:
                is_forwarded = relay.proxies.trusts(self._peer)
                identity, headers = authenticate_agent(
                    relay.identities, request, route.room, grant, is_forwarded=is_forwarded, now=seconds()
                )
            else:
                identity, headers = identity_of(cast(Grant, grant)), {}
            relay.admission.count_for_room(Visit.AGENT, route.room, seconds(), identity=identity)
            link = relay.claim(
                route.room,
                grant,
                identity=identity,
                address=address,
                may_replace=request.values(REPLACE_FIELD.lower().encode()) != [b"no"],
            )
            headers |= link.expect(subprotocol, back or "")
        link.local = LocalServerInfo.from_request(request)
        headers |= link.local.reply(relay.settings)
        relay.answerer.answer(
            request,
            self._take_late(),
            self.hand_over,
            link.make_protocol,
            may_resume=may_resume,
            headers=headers,
        )
        tune(self.transport, is_carrier=True)
        if not link.was_attached:
            # What passes our checks passes Autobahn's; should they ever differ, no room is held.
            relay.release(link)
            cast(ITCPTransport, self.transport).abortConnection()
        elif isinstance(back, tuple):
            link.give_up()
        else:
            link.watch_carrier()
            if certificate is None:
                link.take_tokens(relay.verifier, relay.grants)

    async def _serve_client(self, request: Request, route: Route) -> None:
        key = check_upgrade(request)
        relay = self._relay
        grant = await self._admit(request, route)
        handle: GrantHandle | None = None
        sync: Sync | None = None
        began_seconds = self._factory.reactor.seconds()
        if grant is not None and relay.grants is not None:
            handle = relay.grants.add(grant, self._send_away, most=grant.max_clients)
        try:
            link = await relay.when_served(route.room)
            sync = await self._when_let_in(link, began_seconds)
            while relay.has_lost(link):
                # Who was let in by the old link has to ask the new one.
                sync.left()
                link = await relay.when_served(route.room, began_seconds)
                sync = await self._when_let_in(link, began_seconds)
            select_protocol = protocol_to_select(request)
            public = request
            token = b"" if grant is None else token_of_address(request, route)
            request, route = without_token(request, route)
            forwarded = Forwarded(
                client_address=self._counted_as, proto=self._proto(public), host=public.values(b"host")[0]
            )
            head = request_for_local(request, route.local, forwarded)
            leg = ClientConnection(
                self._factory.reactor,
                relay.settings,
                link,
                self,
                key,
                departures=relay.departures,
                sync=sync,
                select_protocol=select_protocol,
                form=PublicForm.of(public.target, route.local, link.local.hosts, forwarded.host, token),
                bytes_per_second=None if grant is None else grant.max_bytes_per_second,
                address=self._counted_as,
                observer=relay.observer,
                place=cast(Place, self._place),
                on_end=None if handle is None else partial(relay.give_back, handle),
            )
            if handle is not None:
                handle.end = leg.end
            leg.begin(head, self._take_late())
        except BaseException:
            relay.give_back(handle)
            if sync is not None:
                sync.left()
            raise

    async def _when_let_in(self, link: AgentLink, began_seconds: float) -> Sync:
        """Wait until a client may load, and until it is its turn to begin."""
        sync = await link.syncs.when_let_in(began_seconds)
        try:
            await self._relay.turns.acquire()
        except BaseException:
            sync.left()
            raise
        return sync

    async def _admit(self, request: Request, route: Route, *, visit: Visit = Visit.CLIENT) -> Grant | None:
        """Make the checks that whoever wants something of a room has to pass; returns what a token allows."""
        admission, seconds = self._relay.admission, self._factory.reactor.seconds
        check_origin(request, self._relay.settings.origins)
        admission.count_visit(visit, self._count_as_client_of_proxy(request), seconds())
        grant = await self._grant(request, route, TokenRole.CLIENT)
        if grant is not None:
            check_origin(request, grant.origins)
        admission.count_for_room(visit, route.room, seconds())
        return grant

    def _send_away(self, why: str) -> None:
        """Refuse a client that waits for its agent: its token is no longer good."""
        self._sent_away = Refusal(401, why, code="sent_away")
        cast("Deferred[None]", self._deciding).cancel()

    def _count_as_client_of_proxy(self, request: Request) -> str:
        """Return whose connection this is, counted as that from now on."""
        address = self._relay.proxies.client_of(self._peer, request)
        if address != self._counted_as:
            # In before out: who is refused stays counted until it has gone.
            place = self._factory.places.take(address)
            cast(Place, self._place).give_back()
            self._place, self._counted_as = place, address
        return address

    def _agent_certificate(self) -> PeerCertificate | None:
        """Return the certificate that lets an agent in without a token, if it has shown one.

        Raises:
            Refusal: 401, certificates are the only way in here and there is none.
        """
        if self._relay.settings.agent_ca is None:
            return None
        certificate = peer_certificate(self.transport)
        if certificate is None and self._relay.verifier is None:
            sentence = "This relay lets agents in by their certificates, and this one has shown none."
            raise Refusal(401, sentence, code="agent_certificate")
        return certificate

    async def _grant(self, request: Request, route: Route, role: TokenRole) -> Grant | None:
        verifier = self._relay.verifier
        if verifier is None:
            return None
        presented = find_token(request, route)
        deciding = verifier.verify(presented.token, role, route.room)
        try:
            return await deciding.addTimeout(VERIFY_SECONDS, self._factory.reactor)
        except TimeoutError as error:
            sentence = "Whether this token is good could not be found out in time; try again."
            raise Refusal(503, sentence, code="token_wait", headers=(RETRY_AFTER,)) from error

    def _proto(self, request: Request) -> str:
        told = forwarded_proto(request) if self._relay.proxies.trusts(self._peer) else None
        if told is not None:
            return told
        return "https" if ISSLTransport.providedBy(self.transport) else "http"

    def _serve_plainly(self, request: Request, response: bytes) -> None:
        if request.method == b"HEAD":
            response = without_body(response)
        elif request.method != b"GET":
            sentence = "Only GET is understood at this address."
            raise Refusal(405, sentence, code="method", headers=((b"Allow", b"GET, HEAD"),))
        self._close_gracefully(response)

    # -- inside ----------------------------------------------------------------------------

    def _take_late(self) -> bytes:
        late, self._late = bytes(self._late), bytearray()
        return late

    def _refuse(self, refusal: Refusal) -> None:
        self._relay.observer.refused(refusal.code)
        self._close_gracefully(refusal_response(refusal))

    def _close_gracefully(self, answer: bytes) -> None:
        self._factory.closing[self] = None
        self.hand_over(LingeringClose(self._factory.reactor, answer, on_end=self._closed_gracefully))

    def _closed_gracefully(self) -> None:
        self._factory.closing.pop(self, None)

    def _stop_waiting(self) -> None:
        self._factory.pending.remove(self)
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None


def _resume_request_of(request: Request) -> ResumeRequest | None:
    values = request.values(RESUME_FIELD.lower().encode())
    return ResumeRequest.read(values[0].decode("latin-1")) if len(values) == 1 else None
