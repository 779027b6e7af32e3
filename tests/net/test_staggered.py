"""Attempts that start while earlier ones are pending: which one succeeds, and the end of the others."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError  # Twisted's own
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from seance.net import StaggeredEndpoint, retrying_endpoint


class Way:
    """An endpoint with attempts that the test completes."""

    def __init__(self) -> None:
        self.attempts: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []

    def connect(self, factory: object) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred(self.cancelled.append)
        self.attempts.append(attempt)
        return attempt


class Cut(Protocol):
    was_cut = False

    def __init__(self) -> None:
        self.transport = self  # type: ignore[assignment]

    def abortConnection(self) -> None:
        self.was_cut = True


class Race:
    def __init__(self, *ways: Way) -> None:
        self.clock = Clock()
        self.results: list[Any] = []
        endpoint = StaggeredEndpoint(self.clock, ways, 1.5)  # type: ignore[arg-type]
        self.connecting = endpoint.connect(Factory())
        self.connecting.addBoth(self.results.append)


def test_one_attempt_begins_after_the_other_until_one_connects() -> None:
    name, known = Way(), Way()
    race = Race(name, known, known)
    assert (len(name.attempts), len(known.attempts)) == (1, 0)
    race.clock.advance(1.5)
    assert len(known.attempts) == 1
    protocol = Cut()
    known.attempts[0].callback(protocol)
    assert race.results == [protocol]
    assert name.cancelled == name.attempts, "pending attempts are cancelled"
    assert race.clock.getDelayedCalls() == []
    assert not protocol.was_cut


def test_a_failed_attempt_is_the_result_if_no_other_is_pending() -> None:
    """A refused attempt does not wait for those that have not started."""
    name, known = Way(), Way()
    race = Race(name, known)
    name.attempts[0].errback(ConnectionRefusedError())
    race.results[0].trap(ConnectionRefusedError)
    assert race.clock.getDelayedCalls() == []


@pytest.mark.parametrize("first", [0, 1])
def test_an_attempt_that_fails_does_not_end_another_one(first: int) -> None:
    ways = [Way(), Way()]
    race = Race(*ways)
    race.clock.advance(1.5)
    ways[first].attempts[0].errback(DNSLookupError())
    assert race.results == []
    protocol = Cut()
    ways[1 - first].attempts[0].callback(protocol)
    assert race.results == [protocol]


def test_cancelling_drops_all_attempts() -> None:
    name, known = Way(), Way()
    race = Race(name, known, known)
    race.clock.advance(1.5)
    race.connecting.cancel()
    assert name.cancelled == name.attempts
    assert known.cancelled == known.attempts
    assert race.clock.getDelayedCalls() == []


def test_a_second_connection_is_cut() -> None:
    """The endpoint ignores the cancellation."""
    name, known = Way(), Way()
    known.connect = lambda factory: known.attempts.append(Deferred(lambda _: None)) or known.attempts[-1]  # type: ignore[method-assign,func-returns-value]
    race = Race(name, known)
    race.clock.advance(1.5)
    first, second = Cut(), Cut()
    late = known.attempts[0]
    late.cancel = lambda: None  # type: ignore[method-assign]
    name.attempts[0].callback(first)
    late.callback(second)
    assert race.results == [first]
    assert (first.was_cut, second.was_cut) == (False, True)


@pytest.mark.parametrize("peer", [IPv4Address("TCP", "192.0.2.1", 80), IPv6Address("TCP", "2001:db8::1", 80)])
def test_the_address_of_an_earlier_connection_is_tried_beside_the_name(peer: Any) -> None:
    endpoint = retrying_endpoint(Clock(), Way(), peer, 5.0)  # type: ignore[arg-type]
    assert isinstance(endpoint, StaggeredEndpoint)
    assert len(endpoint._endpoints) == 4


def test_an_earlier_address_that_is_not_tcp_is_ignored() -> None:
    name: Any = Way()
    assert retrying_endpoint(Clock(), name, UNIXAddress("/somewhere"), 5.0) is name
