"""A connection that is handed from the protocol that read its head to another."""

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

from seance.net import ProtocolSwitch, replace_protocol
from tests.ears import Ear, HalfEar
from tests.wire import Wire, run


class Head(ProtocolSwitch):
    """Reads up to a full stop."""

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


def test_what_follows_goes_to_the_successor(door: Door) -> None:
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
    assert door.head.was_lost, "the first protocol may have something to put away, too"


def test_a_connection_that_is_never_handed_over_is_the_first_protocols(door: Door) -> None:
    door.hear(b"he")
    door.far.transport.abortConnection()
    run(door.clock)
    assert door.head.was_lost
    assert door.head.successor.told == []


def test_a_connection_can_be_handed_on(door: Door) -> None:
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


def test_a_successor_that_hands_over_itself_is_out_of_the_way_too(door: Door) -> None:
    """As a client's upgrade over TLS: the handshake hands over to whoever reads the head of the answer."""
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


def test_a_successor_may_hand_on_from_inside_data_received(door: Door) -> None:
    second = Ear()
    door.head.successor.on_data = lambda _: door.head.hand_over(second)
    door.hear(b".one")
    door.hear(b"two")
    assert second.data == b"two"


def test_the_end_of_data_before_the_head_is_whole_closes(door: Door) -> None:
    assert IHalfCloseableProtocol.providedBy(door.head)
    door.hear(b"he")
    door.end_of_data()
    assert door.head.was_lost
    assert door.far.told[-1] == "read ended"


def test_the_end_of_data_is_told_to_whoever_can_tell_it_from_the_end_of_all(door: Door) -> None:
    door.head.successor = successor = HalfEar()
    door.hear(b".all")
    door.end_of_data()
    assert successor.told == ["made", "data", "read ended"]
    successor.transport.write(b"answer")
    successor.transport.loseWriteConnection()
    run(door.clock)
    assert successor.told == ["made", "data", "read ended", "write ended"]
    assert door.far.data == b"answer"


def test_the_end_of_data_closes_a_successor_that_cannot_tell(door: Door) -> None:
    successor = door.head.successor
    successor.on_made = lambda ear: ear.transport.write(b"answer")
    door.hear(b".all")
    door.end_of_data()
    assert successor.told == ["made", "data", "lost"]
    assert successor.was_lost_with(ConnectionDone)
    assert door.far.data == b"answer"


def test_our_own_end_of_data_is_nobodys_business_who_cannot_tell(door: Door) -> None:
    door.hear(b".all")
    door.head.transport.loseWriteConnection()
    run(door.clock)
    assert door.head.successor.told == ["made", "data"]
    assert door.far.told[-1] == "read ended"


def test_nothing_can_be_handed_over_that_is_not_connected() -> None:
    with pytest.raises(AssertionError, match="after connectionMade"):
        Head().hand_over(Ear())


def test_halves_that_end_before_there_is_a_connection_are_nothing() -> None:
    head = Head()
    head.readConnectionLost()
    head.writeConnectionLost()
    assert not head.was_lost


# Stepping out


def test_who_steps_out_hears_no_more_of_the_connection(door: Door) -> None:
    last = HalfEar()
    door.hear(b"he")
    door.head.step_out(last)
    door.hear(b"on")
    door.end_of_data()
    assert (door.head.read, last.data) == (b"he", b"on")
    assert last.told == ["made", "data", "read ended"]
    assert last.transport is door.head.transport
    last.transport.loseConnection()
    run(door.clock)
    assert last.was_lost_with(ConnectionDone)
    assert not door.head.was_lost


def test_a_wrapper_delivers_to_whoever_is_in_place_of_what_it_wrapped() -> None:
    first, second = Ear(), Ear()
    factory: Any = WrappingFactory(Factory())
    wrapper = ProtocolWrapper(factory, first)
    wrapper.makeConnection(StringTransport())
    replace_protocol(wrapper, first, second)
    wrapper.dataReceived(b"on")
    wrapper.connectionLost(connectionDone)
    assert second.transport is wrapper
    assert second.told == ["made", "data", "lost"]
    assert first.told == ["made"]


def test_only_who_has_a_connection_gives_it_away(door: Door) -> None:
    with pytest.raises(AssertionError, match="whoever has it"):
        replace_protocol(door.head.transport, Ear(), Ear())
