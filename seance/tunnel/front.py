"""The relay's public door: reads one head and decides what the connection is.

Nothing stands before this, so this is where strangers are kept cheap: the head is bounded in bytes
and in time counted from accept, connections that have not sent a whole head are bounded in number,
and a refusal costs a parsed head and a written answer, before Autobahn, before a stream. Refusals
are HTTP statuses *before* any 101: old y-websocket and Hocuspocus clients that are accepted and
then closed redial 9 to 29 times a second (yjs.md, fact 1).

What it opens is somebody else's: ``CarrierAnswerer`` for agents, ``ClientLeg`` for clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

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

from seance.errors import Refusal
from seance.heads import (
    Forwarded,
    Request,
    RequestReader,
    Route,
    RouteKind,
    check_upgrade,
    plain_response,
    refusal_response,
    request_for_local,
    resolve_target,
)
from seance.net import HandOver, tune
from seance.tunnel.client_leg import ClientLeg
from seance.tunnel.farewell import Farewell

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall

    from seance.tunnel.relay import Relay

__all__ = ["FrontFactory"]


@implementer(IProtocolNegotiationFactory)
class FrontFactory(Factory):
    """Makes a ``Front`` per connection and bounds those that have not shown what they are.

    Args:
        reactor: Where time comes from.
        relay: Whom to ask for links.
    """

    noisy = False

    def __init__(self, reactor: IReactorTime, relay: Relay) -> None:
        self.reactor = reactor
        self.relay = relay
        self._unanswered: dict[Front, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Front:
        """Make the protocol of one connection."""
        return Front(self)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802  # Twisted's name
        """Name what we speak over TLS: without it Twisted refuses every browser, which all offer ALPN."""
        return [b"http/1.1"]

    @property
    def unanswered_count(self) -> int:
        """Connections whose head is not complete yet."""
        return len(self._unanswered)

    def add(self, front: Front) -> None:
        """Count a connection in; over the bound, the one that has taken longest is cut."""
        self._unanswered[front] = None
        if len(self._unanswered) > self.relay.settings.unanswered_connections:
            next(iter(self._unanswered)).cut()

    def remove(self, front: Front) -> None:
        """Count a connection out."""
        self._unanswered.pop(front, None)

    def cut_unanswered(self) -> None:
        """Cut every connection that has not shown what it is; for stopping."""
        for front in list(self._unanswered):
            front.cut()


class Front(HandOver):
    """Reads the head of one connection."""

    _log = Logger()

    def __init__(self, factory: FrontFactory) -> None:
        self._factory = factory
        self._relay = factory.relay
        self._reader = RequestReader(self._relay.settings.head_bytes)
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the time that a head may take."""
        tune(self.transport)
        seconds = self._relay.settings.head_seconds
        self._timer = self._factory.reactor.callLater(seconds, self.cut)
        self._factory.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole."""
        try:
            request = self._reader.receive(data)
        except Refusal as refusal:
            self._stop_waiting()
            self._see_off(refusal_response(refusal))
            return
        if request is None:
            return
        self._stop_waiting()
        try:
            self._serve(request)
        except Refusal as refusal:
            self._see_off(refusal_response(refusal))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It went before it said what it wanted."""
        self._stop_waiting()

    def cut(self) -> None:
        """End a connection that took too long to say what it wants."""
        self._stop_waiting()
        cast(ITCPTransport, self.transport).abortConnection()

    # -- what it can be --------------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        route = resolve_target(request.target)
        if route.kind is RouteKind.HEALTH:
            self._serve_plainly(request, plain_response(200, "OK"))
        elif route.kind is RouteKind.AGENT:
            self._serve_agent(request, route)
        elif not self._serve_page(request, route):
            self._serve_client(request, route)

    def _serve_agent(self, request: Request, route: Route) -> None:
        check_upgrade(request)
        origins = request.values(b"origin")
        if any(origin.decode("latin-1") not in self._relay.settings.agent_origins for origin in origins):
            # A web page can open this address too, and would become the host of a room.
            sentence = "This web page may not attach as an agent: its Origin is not allowed on this relay."
            raise Refusal(403, sentence, code="agent_origin")
        link = self._relay.claim(route.room)
        self._relay.answerer.answer(request, self._reader.trailing, self.hand_over, link.make_protocol)
        if not link.was_attached:
            # What passes our checks passes Autobahn's; should they ever differ, no room is held.
            self._relay.release(link)
            cast(ITCPTransport, self.transport).abortConnection()

    def _serve_client(self, request: Request, route: Route) -> None:
        key = check_upgrade(request)
        link = self._relay.find(route.room)
        transport = cast(ITCPTransport, self.transport)
        forwarded = Forwarded(
            client_address=str(getattr(transport.getPeer(), "host", "unknown")),
            proto="https" if ISSLTransport.providedBy(transport) else "http",
            host=request.values(b"host")[0],
        )
        head = request_for_local(request, route.local, forwarded)
        leg = ClientLeg(self._factory.reactor, self._relay.settings, link, self, key)
        leg.begin(head, self._reader.trailing)

    def _serve_page(self, request: Request, route: Route) -> bool:
        page = self._relay.settings.pad
        if page is None or not route.is_share_link or request.values(b"upgrade"):
            return False
        if not any(b"text/html" in value for value in request.values(b"accept")):
            return False
        content_type = b"text/html; charset=utf-8"
        response = plain_response(200, page.body, content_type=content_type, headers=page.headers)
        self._serve_plainly(request, response)
        return True

    def _serve_plainly(self, request: Request, response: bytes) -> None:
        if request.method == b"HEAD":
            response = response[: response.index(b"\r\n\r\n") + 4]
        elif request.method != b"GET":
            sentence = "Only GET is understood at this address."
            raise Refusal(405, sentence, code="method", headers=((b"Allow", b"GET, HEAD"),))
        self._see_off(response)

    # -- inside ----------------------------------------------------------------------------

    def _see_off(self, answer: bytes) -> None:
        self.hand_over(Farewell(self._factory.reactor, answer))

    def _stop_waiting(self) -> None:
        self._factory.remove(self)
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
