"""Twisted clients and servers over a link: LineReceiver and twisted.web."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectError, ConnectionDone
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import Request
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from seance.mux import Mux, StreamAddress, StreamClientEndpoint, StreamServerEndpoint
from seance.yamux import KIB
from tests.ears import Ear, PushSource, pattern
from tests.mux.peer import CALM, AgentLink
from tests.rigs import OneByOne, join_muxes
from tests.wire import Wire, run, run_until


class Ends:
    """An agent and a relay, connected."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock, chop_bytes=4097, seed=4)
        self.agent, self.relay = join_muxes(self.clock, self.wire, CALM)
        self.run()

    def run(self) -> None:
        run(self.clock)

    def connect(self, mux: Mux, factory: Factory) -> Any:
        return result_of(StreamClientEndpoint(mux).connect(factory))

    def listen(self, mux: Mux, factory: Factory) -> Any:
        return result_of(StreamServerEndpoint(mux).listen(factory))


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.wire.near.abortConnection()
    ends.run()
    assert ends.clock.getDelayedCalls() == []


def result_of(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    return result


def one(protocol: Any) -> OneByOne:
    factory = OneByOne()
    factory.coming.append(protocol)
    return factory


class Counting(OneByOne):
    """Records whether it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def startFactory(self) -> None:
        self.calls.append("start")

    def stopFactory(self) -> None:
        self.calls.append("stop")


def test_endpoints_provide_their_interfaces(ends: Ends) -> None:
    assert verifyObject(IStreamClientEndpoint, StreamClientEndpoint(ends.relay))
    assert verifyObject(IStreamServerEndpoint, StreamServerEndpoint(ends.agent))
    port = ends.listen(ends.agent, Counting())
    assert verifyObject(IListeningPort, port)
    assert port.getHost().stream_id == 0
    assert "127.0.0.1" in port.getHost().link


def test_line_protocol_works_over_a_link(ends: Ends) -> None:
    class Shout(LineReceiver):
        def lineReceived(self, line: bytes) -> None:  # noqa: N802  # Twisted's name
            self.sendLine(line.upper())
            if line == b"bye":
                self.transport.loseConnection()

    class Say(LineReceiver):
        def __init__(self) -> None:
            self.lines: list[bytes] = []
            self.reasons: list[Failure] = []

        def connectionMade(self) -> None:
            for line in (b"one", b"two", b"bye"):
                self.sendLine(line)

        def lineReceived(self, line: bytes) -> None:  # noqa: N802  # Twisted's name
            self.lines.append(line)

        def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
            self.reasons.append(reason)

    ends.listen(ends.agent, Factory.forProtocol(Shout))
    say = Say()
    assert ends.connect(ends.relay, one(say)) is say
    ends.run()
    assert say.lines == [b"ONE", b"TWO", b"BYE"]
    assert [reason.check(ConnectionDone) for reason in say.reasons] == [ConnectionDone]


BODY = pattern(400 * KIB)


class Page(Resource):
    """Responds with ``BODY``, as fast as the client reads it."""

    isLeaf = True  # noqa: N815  # Twisted's name

    def render_GET(self, request: Request) -> Any:  # noqa: N802  # Twisted's name
        class Source(PushSource):
            def _produce(self) -> None:
                super()._produce()
                if self.is_over:
                    request.finish()

        request.setHeader(b"content-length", b"%d" % len(BODY))
        Source(request, BODY).start()
        return NOT_DONE_YET


@implementer(IAgentEndpointFactory)
class Streams:
    def __init__(self, mux: Mux) -> None:
        self._mux = mux

    def endpointForURI(self, uri: object) -> StreamClientEndpoint:  # noqa: N802  # Twisted's name
        return StreamClientEndpoint(self._mux)


@pytest.mark.parametrize("is_persistent", [False, True])
def test_twisted_web_works_over_a_link(ends: Ends, is_persistent: bool) -> None:
    site = Site(Page(), reactor=ends.clock)  # type: ignore[no-untyped-call]
    site.noisy = False
    port = ends.listen(ends.agent, site)
    pool = HTTPConnectionPool(cast(Any, ends.clock), persistent=is_persistent)
    agent = Agent.usingEndpointFactory(cast(Any, ends.clock), Streams(ends.relay), pool)
    for _ in range(3):
        ear = Ear()
        agent.request(b"GET", b"http://room/").addCallback(
            lambda response, ear=ear: response.deliverBody(ear)
        )
        run_until(ends.clock, lambda ear=ear: ear.is_lost)
        assert ear.was_lost_with(ResponseDone)
        assert ear.data == BODY
    assert ends.relay.stream_count == int(is_persistent)
    pool.closeCachedConnections()
    port.stopListening()
    ends.run()
    assert ends.relay.stream_count == ends.agent.stream_count == 0


def test_connect_fails_if_the_link_opens_no_more_streams(ends: Ends) -> None:
    ends.relay.go_away()
    failure = ends.connect(ends.relay, one(Ear()))
    assert failure.check(ConnectError)
    assert "going away" in failure.getErrorMessage()


def test_connect_fails_if_the_factory_returns_no_protocol(ends: Ends) -> None:
    assert ends.connect(ends.relay, OneByOne()).check(ConnectError)
    assert ends.relay.stream_count == 0


def test_one_factory_listens_at_a_time(ends: Ends) -> None:
    first, second = Counting(), Counting()
    port = ends.listen(ends.agent, first)
    failure = ends.listen(ends.agent, second)
    assert failure.check(CannotListenError)
    assert (first.calls, second.calls) == (["start"], [])
    port.stopListening()
    other = ends.listen(ends.agent, second)
    port.stopListening()
    assert (first.calls, second.calls) == (["start", "stop"], ["start"])
    assert ends.agent.is_listening, "a port that is stopped twice does not stop its successor"
    other.stopListening()
    assert not ends.agent.is_listening


def test_stopped_port_resets_new_streams_and_keeps_open_ones(ends: Ends) -> None:
    near, far, late = Ear(), Ear(), Ear()
    port = ends.listen(ends.agent, one(far))
    ends.connect(ends.relay, one(near))
    ends.run()
    port.stopListening()
    ends.connect(ends.relay, one(late))
    near.transport.write(b"still here")
    ends.run()
    assert late.is_lost
    assert far.data == b"still here"


def test_addresses_of_streams_are_values() -> None:
    link = AgentLink()
    transport = link.accept(Ear())
    assert transport.getPeer() == StreamAddress(transport.getPeer().link, 1)
    link.end()
