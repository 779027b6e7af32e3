"""Switching a connection from the protocol that read its beginning to another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from seance.net import ProtocolSwitch, switch_protocol
from tests.ears import Ear, HalfEar
from tests.wire import Wire, run


class Head(ProtocolSwitch):
    """Reads up to a full stop, then hands over."""

    transport: Any

    def __init__(self) -> None:
        self.read = b""
        self.was_lost = False
        self.successor: Any = Ear()

    def dataReceived(self, data: bytes) -> None:
        head, dot, rest = data.partition(b".")
        self.read += head
        if dot:
            self.hand_over(self.successor)
            if rest:
                self.successor.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.was_lost = True
        super().connectionLost(reason)


class Rig:
    """A wire with a ``Head`` at one end."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock)
        self.head = Head()
        self.far = HalfEar()
        self.wire.join(self.head, self.far)

    def hear(self, data: bytes) -> None:
        self.far.transport.write(data)
        run(self.clock)

    def end_of_data(self) -> None:
        self.far.transport.loseWriteConnection()
        run(self.clock)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.wire.near.abortConnection()
    run(rig.clock)


def test_later_data_goes_to_the_successor(rig: Rig) -> None:
    successor = rig.head.successor
    rig.hear(b"he")
    assert successor.told == []
    rig.hear(b"ad.and ")
    assert successor.told == ["made", "data"]
    assert successor.transport is rig.head.transport
    rig.hear(b"on")
    assert rig.head.read == b"head"
    assert successor.data == b"and on"
    rig.far.transport.loseConnection()
    run(rig.clock)
    assert successor.was_lost_with(ConnectionDone)
    assert rig.head.was_lost, "the first protocol may have something to clean up"


def test_the_first_protocol_sees_the_end_of_a_connection_that_it_kept(rig: Rig) -> None:
    rig.hear(b"he")
    rig.far.transport.abortConnection()
    run(rig.clock)
    assert rig.head.was_lost
    assert rig.head.successor.told == []


def test_a_connection_can_be_handed_over_twice(rig: Rig) -> None:
    first, second = rig.head.successor, HalfEar()
    rig.hear(b".one")
    rig.head.hand_over(second)
    rig.hear(b"two")
    assert first.data == b"one"
    assert second.data == b"two"
    rig.end_of_data()
    assert second.told == ["made", "data", "read ended"]
    rig.head.transport.loseConnection()
    run(rig.clock)
    assert second.was_lost_with(ConnectionDone)
    assert first.told == ["made", "data"]


def test_a_successor_can_hand_over_too(rig: Rig) -> None:
    """As in an upgrade over TLS: the handshake hands over to the protocol that reads the head."""
    second = Head()
    last = second.successor
    rig.head.successor = second
    rig.hear(b"one.two.thr")
    rig.hear(b"ee.")
    assert (rig.head.read, second.read, last.data) == (b"one", b"two", b"three.")
    rig.head.transport.loseConnection()
    run(rig.clock)
    assert second.was_lost
    assert last.was_lost_with(ConnectionDone)


def test_a_connection_can_be_handed_over_inside_data_received(rig: Rig) -> None:
    second = Ear()
    rig.head.successor.on_data = lambda _: rig.head.hand_over(second)
    rig.hear(b".one")
    rig.hear(b"two")
    assert second.data == b"two"


def test_an_end_of_data_before_the_switch_closes(rig: Rig) -> None:
    assert IHalfCloseableProtocol.providedBy(rig.head)
    rig.hear(b"he")
    rig.end_of_data()
    assert rig.head.was_lost
    assert rig.far.told[-1] == "read ended"


def test_the_end_of_data_is_forwarded_to_a_half_closeable_successor(rig: Rig) -> None:
    rig.head.successor = successor = HalfEar()
    rig.hear(b".all")
    rig.end_of_data()
    assert successor.told == ["made", "data", "read ended"]
    successor.transport.write(b"answer")
    successor.transport.loseWriteConnection()
    run(rig.clock)
    assert successor.told == ["made", "data", "read ended", "write ended"]
    assert rig.far.data == b"answer"


def test_the_end_of_data_closes_the_connection_of_another_successor(rig: Rig) -> None:
    successor = rig.head.successor
    successor.on_made = lambda ear: ear.transport.write(b"answer")
    rig.hear(b".all")
    rig.end_of_data()
    assert successor.told == ["made", "data", "lost"]
    assert successor.was_lost_with(ConnectionDone)
    assert rig.far.data == b"answer"


def test_our_end_of_data_is_not_forwarded_to_another_successor(rig: Rig) -> None:
    rig.hear(b".all")
    rig.head.transport.loseWriteConnection()
    run(rig.clock)
    assert rig.head.successor.told == ["made", "data"]
    assert rig.far.told[-1] == "read ended"


def test_a_protocol_that_is_not_connected_cannot_hand_over() -> None:
    with pytest.raises(AssertionError, match="after connectionMade"):
        Head().hand_over(Ear())


def test_half_closes_before_the_connection_are_ignored() -> None:
    head = Head()
    head.readConnectionLost()
    head.writeConnectionLost()
    assert not head.was_lost


# Switching without an observer


def test_a_protocol_that_is_no_observer_is_not_told_of_the_end(rig: Rig) -> None:
    last = HalfEar()
    rig.hear(b"he")
    switch_protocol(rig.head.transport, last)
    rig.hear(b"on")
    rig.end_of_data()
    assert (rig.head.read, last.data) == (b"he", b"on")
    assert last.told == ["made", "data", "read ended"]
    assert last.transport is rig.head.transport
    last.transport.loseConnection()
    run(rig.clock)
    assert last.was_lost_with(ConnectionDone)
    assert not rig.head.was_lost


def test_a_switch_without_an_observer_may_follow_one_with_it(rig: Rig) -> None:
    last = HalfEar()
    rig.hear(b".one")
    switch_protocol(rig.head.transport, last)
    rig.hear(b"two")
    assert (rig.head.successor.data, last.data) == (b"one", b"two")
    last.transport.loseConnection()
    run(rig.clock)
    assert last.was_lost_with(ConnectionDone)
    assert not rig.head.was_lost


def test_a_wrapper_delivers_to_the_successor_of_the_protocol_that_it_wrapped() -> None:
    first, second = Ear(), Ear()
    factory: Any = WrappingFactory(Factory())
    wrapper = ProtocolWrapper(factory, first)
    wrapper.makeConnection(StringTransport())
    switch_protocol(wrapper, second)
    wrapper.dataReceived(b"on")
    wrapper.connectionLost(connectionDone)
    assert second.transport is wrapper
    assert second.told == ["made", "data", "lost"]
    assert first.told == ["made"]
