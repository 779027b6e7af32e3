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


class Door:
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
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.wire.near.abortConnection()
    run(door.clock)


def test_later_data_goes_to_the_successor(door: Door) -> None:
    successor = door.head.successor
    door.hear(b"he")
    assert successor.told == []
    door.hear(b"ad.and ")
    assert successor.told == ["made", "data"]
    assert successor.transport is door.head.transport
    door.hear(b"on")
    assert door.head.read == b"head"
    assert successor.data == b"and on"
    door.far.transport.loseConnection()
    run(door.clock)
    assert successor.was_lost_with(ConnectionDone)
    assert door.head.was_lost, "the first protocol may have something to clean up"


def test_the_first_protocol_sees_the_end_of_a_connection_that_it_kept(door: Door) -> None:
    door.hear(b"he")
    door.far.transport.abortConnection()
    run(door.clock)
    assert door.head.was_lost
    assert door.head.successor.told == []


def test_a_connection_can_be_handed_over_twice(door: Door) -> None:
    first, second = door.head.successor, HalfEar()
    door.hear(b".one")
    door.head.hand_over(second)
    door.hear(b"two")
    assert first.data == b"one"
    assert second.data == b"two"
    door.end_of_data()
    assert second.told == ["made", "data", "read ended"]
    door.head.transport.loseConnection()
    run(door.clock)
    assert second.was_lost_with(ConnectionDone)
    assert first.told == ["made", "data"]


def test_a_successor_can_hand_over_too(door: Door) -> None:
    """As in an upgrade over TLS: the handshake hands over to the protocol that reads the head."""
    second = Head()
    last = second.successor
    door.head.successor = second
    door.hear(b"one.two.thr")
    door.hear(b"ee.")
    assert (door.head.read, second.read, last.data) == (b"one", b"two", b"three.")
    door.head.transport.loseConnection()
    run(door.clock)
    assert second.was_lost
    assert last.was_lost_with(ConnectionDone)


def test_a_connection_can_be_handed_over_inside_data_received(door: Door) -> None:
    second = Ear()
    door.head.successor.on_data = lambda _: door.head.hand_over(second)
    door.hear(b".one")
    door.hear(b"two")
    assert second.data == b"two"


def test_an_end_of_data_before_the_switch_closes(door: Door) -> None:
    assert IHalfCloseableProtocol.providedBy(door.head)
    door.hear(b"he")
    door.end_of_data()
    assert door.head.was_lost
    assert door.far.told[-1] == "read ended"


def test_the_end_of_data_is_forwarded_to_a_half_closeable_successor(door: Door) -> None:
    door.head.successor = successor = HalfEar()
    door.hear(b".all")
    door.end_of_data()
    assert successor.told == ["made", "data", "read ended"]
    successor.transport.write(b"answer")
    successor.transport.loseWriteConnection()
    run(door.clock)
    assert successor.told == ["made", "data", "read ended", "write ended"]
    assert door.far.data == b"answer"


def test_the_end_of_data_closes_the_connection_of_another_successor(door: Door) -> None:
    successor = door.head.successor
    successor.on_made = lambda ear: ear.transport.write(b"answer")
    door.hear(b".all")
    door.end_of_data()
    assert successor.told == ["made", "data", "lost"]
    assert successor.was_lost_with(ConnectionDone)
    assert door.far.data == b"answer"


def test_our_end_of_data_is_not_forwarded_to_another_successor(door: Door) -> None:
    door.hear(b".all")
    door.head.transport.loseWriteConnection()
    run(door.clock)
    assert door.head.successor.told == ["made", "data"]
    assert door.far.told[-1] == "read ended"


def test_a_protocol_that_is_not_connected_cannot_hand_over() -> None:
    with pytest.raises(AssertionError, match="after connectionMade"):
        Head().hand_over(Ear())


def test_half_closes_before_the_connection_are_ignored() -> None:
    head = Head()
    head.readConnectionLost()
    head.writeConnectionLost()
    assert not head.was_lost


# Switching without an observer


def test_a_protocol_that_is_no_observer_is_not_told_of_the_end(door: Door) -> None:
    last = HalfEar()
    door.hear(b"he")
    switch_protocol(door.head.transport, last)
    door.hear(b"on")
    door.end_of_data()
    assert (door.head.read, last.data) == (b"he", b"on")
    assert last.told == ["made", "data", "read ended"]
    assert last.transport is door.head.transport
    last.transport.loseConnection()
    run(door.clock)
    assert last.was_lost_with(ConnectionDone)
    assert not door.head.was_lost


def test_a_switch_without_an_observer_may_follow_one_with_it(door: Door) -> None:
    last = HalfEar()
    door.hear(b".one")
    switch_protocol(door.head.transport, last)
    door.hear(b"two")
    assert (door.head.successor.data, last.data) == (b"one", b"two")
    last.transport.loseConnection()
    run(door.clock)
    assert last.was_lost_with(ConnectionDone)
    assert not door.head.was_lost


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
