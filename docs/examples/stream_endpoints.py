"""Any Twisted protocol over the streams of one connection: here HTTP, with unchanged server and client.

    python stream_endpoints.py

The connection below may be a WebSocket, TLS, a UNIX socket or, as here, plain TCP: ``Mux`` needs
only a Twisted transport. Relay and agent use the same parts.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.web.client import Agent as WebClient
from twisted.web.client import readBody
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from seance.mux import Mux, StreamClientEndpoint, StreamServerEndpoint
from seance.yamux import Role


class Greeting(Resource):
    def render(self, request: Request) -> bytes:
        return b"Hello from the far side."


class Accepting(Factory):
    """The listening side: a session for each connection, and a web server on its streams."""

    def __init__(self, reactor: IReactorTime, site: Site) -> None:
        self.reactor = reactor
        self.site = site

    def buildProtocol(self, addr: IAddress | None) -> Mux:
        mux = Mux(self.reactor, Role.SERVER)
        StreamServerEndpoint(mux).listen(self.site)
        return mux


@implementer(IAgentEndpointFactory)
class StreamPerRequest:
    """Makes Twisted's web client open a stream in place of a connection."""

    def __init__(self, mux: Mux) -> None:
        self.mux = mux

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:  # noqa: N802  # Twisted's name
        return StreamClientEndpoint(self.mux)


async def main(reactor: IReactorTime) -> None:
    root = Resource()
    root.putChild(b"", Greeting())
    accepting = Accepting(reactor, Site(root))
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(accepting)

    lost: Deferred[str] = Deferred()
    there = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    mux = await connectProtocol(there, Mux(reactor, Role.CLIENT, on_lost=lost.callback))

    web = WebClient.usingEndpointFactory(reactor, StreamPerRequest(mux))
    asking = [web.request(b"GET", b"http://far.example/").addCallback(readBody) for _ in range(3)]
    for number, answer in enumerate(await gatherResults(asking), 1):
        print(f"Answer {number}: {answer.decode()}")

    mux.transport.loseConnection()
    print(await lost)
    await port.stopListening()


if __name__ == "__main__":
    react(main)
