"""The end of a TLS connection with a peer that does not answer ``close_notify``, on a clock."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.net import ServerTls
from seance.net.tls_transport import CLOSE_CHECK_SECONDS
from tests.certificates import Authority
from tests.relay.rig import Player
from tests.tls.rig import One


class Below(StringTransport):
    """A TCP transport that reports its buffer size and records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.dataBuffer = b""
        self.told: list[str] = []

    def loseConnection(self) -> None:
        self.told.append("lose")

    def abortConnection(self) -> None:
        self.told.append("abort")


class Connection:
    """A connection from a client of the standard library, after the handshake."""

    def __init__(self, server: ServerTls, authority: Authority) -> None:
        self.clock = Clock()
        self.player = Player()
        self.below = Below()
        self.tls: Any = server.wrap(One(self.player), self.clock).buildProtocol(None)
        self.tls.makeConnection(self.below)
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=authority.file)
        self.client = context.wrap_bio(self._to_client, self._to_server, server_hostname="localhost")
        for _ in range(3):
            with suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.exchange()

    def exchange(self) -> None:
        if data := self._to_server.read():
            self.tls.dataReceived(data)
        self._to_client.write(self.below.value())
        self.below.clear()

    def hold(self, count: int) -> None:
        """Set the number of bytes that the transport below holds."""
        self.below.dataBuffer = bytes(count)


@pytest.fixture
def connection(server: ServerTls, authority: Authority) -> Connection:
    return Connection(server, authority)


def test_an_answered_close_notify_ends_the_connection(connection: Connection) -> None:
    connection.tls.write(b"the last word")
    connection.tls.loseConnection()
    connection.exchange()
    assert connection.client.read() == b"the last word"
    assert connection.client.read() == b""
    connection.client.unwrap()
    connection.exchange()
    assert connection.below.told[:1] == ["lose"]
    connection.tls.connectionLost(Failure(ConnectionDone()))
    connection.clock.advance(0)
    assert connection.clock.getDelayedCalls() == []


def test_an_unanswered_close_notify_ends_the_connection_after_a_while(connection: Connection) -> None:
    connection.tls.loseConnection()
    connection.clock.advance(CLOSE_CHECK_SECONDS - 0.1)
    assert connection.below.told == []
    connection.clock.advance(0.1)
    assert connection.below.told == ["lose"]


def test_closing_twice_sends_one_close_notify(connection: Connection) -> None:
    connection.tls.loseConnection()
    connection.tls.loseConnection()
    assert len(connection.clock.getDelayedCalls()) == 1


def test_a_peer_that_reads_is_waited_for(connection: Connection) -> None:
    connection.hold(1000)
    connection.tls.loseConnection()
    for left in (900, 500, 1):
        connection.hold(left)
        connection.clock.advance(CLOSE_CHECK_SECONDS)
        assert connection.below.told == []
    connection.hold(0)
    connection.clock.advance(CLOSE_CHECK_SECONDS)
    assert connection.below.told == ["lose"]


def test_a_peer_that_does_not_read_is_cut(connection: Connection) -> None:
    connection.hold(1000)
    connection.tls.loseConnection()
    connection.clock.advance(CLOSE_CHECK_SECONDS)
    assert connection.below.told == ["abort"]


@implementer(IPushProducer)
class Producer:
    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


def test_no_close_notify_while_a_producer_is_registered(connection: Connection) -> None:
    connection.tls.registerProducer(Producer(), True)
    connection.tls.loseConnection()
    connection.clock.advance(CLOSE_CHECK_SECONDS)
    connection.clock.advance(CLOSE_CHECK_SECONDS)
    assert connection.below.told == []
    connection.tls.unregisterProducer()
    connection.clock.advance(CLOSE_CHECK_SECONDS)
    assert connection.below.told == ["lose"]


def test_no_timer_is_left_after_the_end(connection: Connection) -> None:
    connection.tls.loseConnection()
    connection.tls.connectionLost(Failure(ConnectionDone()))
    assert connection.clock.getDelayedCalls() == []
