"""Clients connect and disconnect while a link has no carrier; the changes take effect after it resumes.

Streams of clients that disconnected in the meantime must not remain.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.ears import HalfEar
from tests.faults.everything import Theatre
from tests.faults.memory import Weather

DETECTION_SECONDS = 12.0


@pytest.fixture
def theatre() -> Iterator[Theatre]:
    random.seed(6)
    theatre = Theatre(Weather())
    theatre.reactor.pass_until(lambda: theatre.agent.when_connected().called)
    yield theatre
    assert theatre.close() == ()


def make_silent(theatre: Theatre) -> None:
    """Wait until both sides have noticed."""
    theatre.weather.is_quiet = True
    theatre.reactor.pass_seconds(DETECTION_SECONDS)
    assert not theatre.agent.when_connected().called


def reconnect(theatre: Theatre) -> None:
    theatre.weather.clear()
    theatre.reactor.pass_until(lambda: theatre.agent.when_connected().called)


def check_delivery(theatre: Theatre, speaker: HalfEar, listener: HalfEar, word: bytes) -> None:
    listener.data.clear()
    speaker.transport.write(word)
    theatre.reactor.pass_until(lambda: listener.data == word)


def test_clients_that_disconnect_meanwhile_leave_nothing_behind(theatre: Theatre) -> None:
    pairs = [theatre.join(f"client-{number}") for number in range(6)]
    make_silent(theatre)
    for number, (client, _) in enumerate(pairs[1:]):
        if number % 2:
            client.transport.abortConnection()
        else:
            client.transport.loseConnection()
    theatre.reactor.pass_seconds(1)
    assert not any(local.is_lost for _, local in pairs)
    reconnect(theatre)
    theatre.reactor.pass_until(
        lambda: all(local.told[-1] in ("read ended", "lost") for _, local in pairs[1:])
    )
    for _, local in pairs[1:]:
        local.transport.loseConnection()
    theatre.reactor.pass_until(lambda: theatre.agent.client_count == theatre.relay.rooms.client_count == 1)
    check_delivery(theatre, *pairs[0], b"still here")
    check_delivery(theatre, *reversed(pairs[0]), b"so am I")
    pairs[0][0].transport.loseConnection()
    pairs[0][1].transport.loseConnection()
    theatre.reactor.pass_until(lambda: theatre.agent.client_count == theatre.relay.rooms.client_count == 0)


def test_local_connections_that_end_meanwhile_end_their_clients(theatre: Theatre) -> None:
    (kept, at_kept), (ended, at_ended) = theatre.join("kept"), theatre.join("ended")
    make_silent(theatre)
    at_ended.transport.write(b"the last word")
    at_ended.transport.loseConnection()
    theatre.reactor.pass_seconds(1)
    assert ended.told == ["made", "data"]
    reconnect(theatre)
    theatre.reactor.pass_until(lambda: ended.is_lost or "read ended" in ended.told)
    assert ended.data == b"the last word"
    ended.transport.loseConnection()
    check_delivery(theatre, kept, at_kept, b"still here")
    kept.transport.loseConnection()
    at_kept.transport.loseConnection()
    theatre.reactor.pass_until(lambda: theatre.agent.client_count == theatre.relay.rooms.client_count == 0)


def test_clients_that_connect_meanwhile_wait_and_are_served(theatre: Theatre) -> None:
    before = theatre.join("before")
    make_silent(theatre)
    number = len(theatre.locals)
    waiting = theatre.client("meanwhile")
    theatre.reactor.pass_seconds(2)
    assert waiting.told == ["made"], "the waiting client was refused"
    reconnect(theatre)
    theatre.reactor.pass_until(lambda: len(theatre.locals) > number)
    check_delivery(theatre, *before, b"still here")
    after = theatre.join("after")
    check_delivery(theatre, *after, b"me too")
    for ear in (*before, *after, waiting, theatre.locals[number]):
        ear.transport.abortConnection()
    theatre.reactor.pass_until(lambda: theatre.agent.client_count == theatre.relay.rooms.client_count == 0)


def test_clients_of_an_agent_that_does_not_return_are_disconnected(theatre: Theatre) -> None:
    client, local = theatre.join("ada")
    make_silent(theatre)
    theatre.reactor.pass_seconds(60)
    assert client.is_lost or "read ended" in client.told
    assert local.is_lost or "read ended" in local.told
    for ear in (client, local):
        if not ear.is_lost:
            ear.transport.abortConnection()
    reconnect(theatre)
    check_delivery(theatre, *(pair := theatre.join("next")), b"hello")
    for ear in pair:
        ear.transport.abortConnection()
    theatre.reactor.pass_until(lambda: theatre.agent.client_count == theatre.relay.rooms.client_count == 0)
