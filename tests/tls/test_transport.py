"""The TLS transport in memory: two of ours back to back, cut in many ways, on a clock."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from seance.net import ServerTls, unsent_bytes
from seance.net.client_tls import ClientTls
from seance.net.tls_transport import MAX_INPUT_BYTES, TlsFactory
from tests.certificates import Authority
from tests.ears import Ear, pattern
from tests.tls.rig import One

LONG = pattern(700_001)


class Network(StringTransport):
    """A transport that keeps what is written, and counts the writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []
        self.told: list[str] = []
        self.producerPaused = False

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        super().write(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def take(self) -> bytes:
        data = self.value()
        self.clear()
        return data

    def loseConnection(self) -> None:
        self.told.append("lose")

    def abortConnection(self) -> None:
        self.told.append("abort")


class Pair:
    """A client and a server; ``a`` and ``b`` are the protocols."""

    def __init__(self, server: ServerTls, authority: Authority, *, shake: bool = True) -> None:
        self.clock = Clock()
        self.a, self.b = Ear(), Ear()
        self.tls = ClientTls("localhost", ca_file=authority.file)
        self.tls.load()
        self.to_a, self.to_b = Network(), Network()  # the transports of b and of a
        self.client: Any = TlsFactory(self.tls.make_connection, One(self.a), self.clock).buildProtocol(None)
        self.server: Any = server.wrap(One(self.b), self.clock).buildProtocol(None)
        self.server.makeConnection(self.to_a)
        self.client.makeConnection(self.to_b)
        if shake:
            self.move()
            self.to_a.writes, self.to_b.writes = [], []

    def move(self, cuts: Iterator[int] | None = None) -> None:
        """Move all bytes in both directions, in pieces of the given lengths."""
        while True:
            up, down = self.to_b.take(), self.to_a.take()
            if not up and not down:
                return
            for data, to in ((up, self.server), (down, self.client)):
                while data:
                    count = len(data) if cuts is None else next(cuts)
                    to.dataReceived(data[:count])
                    data = data[count:]

    def lose(self, reason: Exception | None = None) -> None:
        for tls in (self.client, self.server):
            tls.connectionLost(Failure(reason or ConnectionDone()))


@pytest.fixture(params=["ssl", "pyOpenSSL"])
def any_server(request: pytest.FixtureRequest, authority: Authority) -> ServerTls:
    """A server of each kind; one that requests client certificates uses pyOpenSSL."""
    files = authority.issue("localhost")
    tls = ServerTls(files.chain, files.key, authority.file if request.param == "pyOpenSSL" else None)
    tls.load()
    return tls


@pytest.fixture
def pair(any_server: ServerTls, authority: Authority) -> Pair:
    return Pair(any_server, authority)


# Data


def cuts_of(kind: str) -> Iterator[int] | None:
    if kind == "whole":
        return None
    generator = random.Random(5)
    return iter(lambda: 1 if kind == "bytes" else generator.choice([1, 5, 100, 20_000, 90_000, 200_000]), 0)


@pytest.mark.parametrize(
    ("kind", "data"),
    [("whole", LONG), ("bytes", LONG[:40_000]), ("random", LONG), ("random", LONG[:MAX_INPUT_BYTES])],
)
def test_all_data_arrives_however_it_is_cut(
    any_server: ServerTls, authority: Authority, kind: str, data: bytes
) -> None:
    pair = Pair(any_server, authority, shake=False)
    pair.client.write(b"before the handshake")
    pair.move(cuts_of(kind))
    pair.client.write(data)
    pair.server.writeSequence([data[:10], data[10:]])
    pair.move(cuts_of(kind))
    assert pair.b.data == b"before the handshake" + data
    assert pair.a.data == data


def test_a_long_message_is_one_write_and_one_delivery(pair: Pair) -> None:
    message = LONG[:100_000]
    calls: list[int] = []
    pair.b.on_data = lambda data: calls.append(len(data))
    pair.client.write(message)
    assert len(pair.to_b.writes) == 1
    pair.move()
    assert calls == [100_000]


def test_the_buffers_of_openssl_stay_small(server: ServerTls, authority: Authority) -> None:
    """They never shrink, and a relay has thousands of connections."""
    pair = Pair(server, authority)
    tls = pair.server.getHandle()
    most = 0

    class Watch:
        def write(self, data: bytes) -> int:
            nonlocal most
            most = max(most, tls.received.pending + len(data))
            return int(tls.received.write(data))

        @property
        def pending(self) -> int:
            return int(tls.received.pending)

    pair.server._received = Watch()
    pair.client.write(LONG)
    pair.move()
    assert pair.b.data == LONG
    assert most <= 2 * MAX_INPUT_BYTES


def test_empty_writes_are_nothing(pair: Pair) -> None:
    pair.client.write(b"")
    pair.client.writeSequence([])
    assert not pair.to_b.writes


def test_a_protocol_may_close_while_it_receives(pair: Pair) -> None:
    pair.b.on_data = lambda data: pair.server.abortConnection()
    pair.client.write(b"x")
    pair.move()
    pair.client.write(b"y")
    pair.move()
    assert pair.b.data == b"x"
    assert pair.to_a.told == ["abort"]


# Producers


@implementer(IPushProducer)
class Producer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


@pytest.mark.parametrize("is_full", [False, True])
def test_a_producer_waits_for_the_handshake(server: ServerTls, authority: Authority, is_full: bool) -> None:
    pair = Pair(server, authority, shake=False)
    producer = Producer()
    pair.client.registerProducer(producer, True)
    assert pair.to_b.producer is producer
    pair.client.write(b"early")
    assert unsent_bytes(pair.client) == 5
    assert producer.told == ["pause"]
    pair.to_b.producerPaused = is_full  # by the transport below, which then resumes it
    pair.move()
    assert producer.told == (["pause"] if is_full else ["pause", "resume"])
    assert pair.b.data == b"early"
    assert unsent_bytes(pair.client) == 0


def test_a_producer_that_comes_too_late_is_stopped(pair: Pair) -> None:
    pair.client.loseConnection()
    producer = Producer()
    pair.client.registerProducer(producer, True)
    assert producer.told == ["stop"]


def test_reading_can_be_paused(pair: Pair) -> None:
    pair.client.pauseProducing()
    assert pair.to_b.producerState == "paused"
    pair.client.resumeProducing()
    assert pair.to_b.producerState == "producing"


# Ends


def test_a_close_after_data_is_answered_and_orderly(pair: Pair) -> None:
    pair.client.write(b"last")
    pair.client.loseConnection()
    pair.client.write(b"too late")
    pair.move()
    assert pair.b.data == b"last"
    assert pair.to_a.told == pair.to_b.told == ["lose"]
    pair.lose()
    assert pair.a.was_lost_with(ConnectionDone)
    assert pair.b.was_lost_with(ConnectionDone)
    assert pair.clock.getDelayedCalls() == []


def test_data_that_crosses_a_close_is_delivered(pair: Pair) -> None:
    pair.client.loseConnection()
    pair.server.write(LONG)
    pair.move()
    assert pair.a.data == LONG
    pair.lose()
    assert pair.a.was_lost_with(ConnectionDone)


def test_close_after_the_peers_close_keeps_the_data_on_its_way(pair: Pair) -> None:
    producer = Producer()
    pair.server.registerProducer(producer, True)
    pair.server.write(LONG)
    pair.client.loseConnection()
    pair.server.dataReceived(pair.to_b.take())
    assert pair.to_a.told == ["lose"]
    assert pair.to_a.producer is None, "the transport would ask it for more data and stay open"
    pair.server.unregisterProducer()
    pair.server.loseConnection()
    assert pair.to_a.told == ["lose"]
    pair.move()
    assert pair.a.data == LONG


def test_peer_that_closes_and_does_not_read_is_waited_for_a_limited_time(pair: Pair) -> None:
    pair.client.loseConnection()
    pair.server.dataReceived(pair.to_b.take())
    assert len(pair.clock.getDelayedCalls()) == 2
    pair.to_a._tempDataLen = 1000  # bytes that the transport could not write yet
    pair.clock.pump([60.0] * 3)
    assert pair.to_a.told[0] == "lose"
    assert pair.to_a.told[-1] == "abort"


def test_close_with_data_before_a_handshake_that_never_completes_is_limited(
    server: ServerTls, authority: Authority
) -> None:
    pair = Pair(server, authority, shake=False)
    pair.client.write(b"early")
    pair.client.loseConnection()
    pair.clock.advance(60.0)
    assert pair.to_b.told == ["abort"]
    pair.lose()
    assert pair.clock.getDelayedCalls() == []


def test_both_sides_may_close_at_the_same_time(pair: Pair) -> None:
    pair.client.loseConnection()
    pair.server.loseConnection()
    pair.move()
    pair.lose()
    assert pair.a.was_lost_with(ConnectionDone)
    assert pair.b.was_lost_with(ConnectionDone)


def test_an_end_without_close_notify_is_a_loss(pair: Pair) -> None:
    pair.lose()
    assert pair.a.was_lost_with(ConnectionLost)
    assert pair.b.was_lost_with(ConnectionLost)


def test_an_abort_sends_no_close_notify(pair: Pair) -> None:
    pair.client.abortConnection()
    assert not pair.to_b.writes
    assert pair.to_b.told == ["abort"]
    pair.client.write(b"dropped")
    pair.lose(ConnectionAborted())
    assert pair.a.was_lost_with(ConnectionAborted)


def test_a_close_during_the_handshake_is_an_abort(server: ServerTls, authority: Authority) -> None:
    pair = Pair(server, authority, shake=False)
    pair.client.loseConnection()
    assert pair.to_b.told == ["abort"]


def test_data_written_before_a_close_is_sent_after_the_handshake(
    server: ServerTls, authority: Authority
) -> None:
    pair = Pair(server, authority, shake=False)
    pair.client.write(b"only this")
    pair.client.loseConnection()
    pair.move()
    assert pair.b.data == b"only this"
    pair.lose()
    assert pair.b.was_lost_with(ConnectionDone)


def test_a_changed_record_ends_the_connection_after_the_data_before_it(pair: Pair) -> None:
    pair.client.write(b"good")
    pair.client.write(b"bad")
    data = bytearray(pair.to_b.take())
    data[-1] ^= 1
    pair.server.dataReceived(bytes(data))
    assert pair.b.data == b"good"
    assert pair.to_a.told == ["lose"]
    assert pair.to_a.writes, "an alert"
    pair.server.write(b"dropped")
    pair.server.connectionLost(Failure(ConnectionDone()))
    assert pair.b.was_lost_with(ssl.SSLError)
    pair.move()
    pair.client.connectionLost(Failure(ConnectionDone()))
    assert pair.a.was_lost_with(ssl.SSLError)


def test_nothing_is_kept_after_the_end(pair: Pair) -> None:
    pair.lose()
    assert pair.client.getHandle() is None
    assert pair.client.getPeerCertificate() is None
    for call in (pair.client.loseConnection, pair.client.abortConnection, pair.client.unregisterProducer):
        call()
    pair.client.dataReceived(b"x")
    assert pair.clock.getDelayedCalls() == []


def test_the_transport_shows_its_own_interfaces(pair: Pair) -> None:
    """A wrapper of Twisted shows those of the transport below, which would hide TLS."""
    directlyProvides(pair.to_b, ITransport)
    assert ISSLTransport.providedBy(pair.client)
    assert not ISSLTransport.providedBy(pair.to_b)
