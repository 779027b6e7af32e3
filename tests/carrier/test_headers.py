"""Additional header fields in both directions of the handshake, and the code of a close."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from seance.carrier import CarrierAnswerer, RelayAddress, dial
from seance.errors import LocalProtocolError, Refusal
from seance.heads import Request
from tests.carrier.peers import Dialled, close, frame
from tests.ears import Ear
from tests.rigs import ROOM, AgentFrontend, OneByOne
from tests.wire import WireEndpoint, run

ILLEGAL = [
    {"A": "b\r\nC: d"},
    {"A": "b\nC"},
    {"A\r\nB": "c"},
    {"": "b"},
    {"A b": "c"},
    {"Ä": "b"},
    {"A": "\0"},
]


class Answerer(CarrierAnswerer):
    """Adds fields to each 101 and records the requests."""

    def __init__(self, clock: Clock, headers: Mapping[str, str]) -> None:
        super().__init__(clock)
        self.headers = headers
        self.requests: list[Request] = []

    def answer(self, request: Request, *rest: Any, **more: Any) -> None:
        self.requests.append(request)
        super().answer(request, *rest, headers=self.headers, **more)


class Pair:
    """A relay and an agent on one clock."""

    def __init__(self, asked: Mapping[str, str], answered: Mapping[str, str]) -> None:
        self.clock = Clock()
        self.near, self.far = Ear(), Ear()
        self.answerer = Answerer(self.clock, answered)
        relay_factory = OneByOne()
        relay_factory.coming.append(AgentFrontend(self.answerer, lambda _: self.far))
        self.endpoint = WireEndpoint(self.clock, relay_factory)
        self.results: list[Any] = []
        address = RelayAddress.from_url("ws://relay.example")
        dialling: Deferred[IProtocol] = dial(
            self.clock,
            address,
            ROOM,
            lambda _: self.near,
            deadline_seconds=5,
            endpoint=self.endpoint,
            headers=asked,
        )
        dialling.addBoth(self.results.append)
        run(self.clock)

    def end(self) -> None:
        for wire in self.endpoint.wires:
            wire.near.abortConnection()
        run(self.clock)
        assert self.clock.getDelayedCalls() == []


def test_further_fields_arrive_on_either_side() -> None:
    pair = Pair({"Seance-Agent": "v1.x", "Authorization": "Bearer y"}, {"Seance-Nonce": "z"})
    assert pair.results == [pair.near]
    (request,) = pair.answerer.requests
    assert request.values(b"seance-agent") == [b"v1.x"]
    assert request.values(b"authorization") == [b"Bearer y"]
    assert pair.near.transport.headers["seance-nonce"] == "z"
    assert pair.far.transport.headers == {"Seance-Nonce": "z"}
    pair.end()


def test_without_further_fields_there_are_none() -> None:
    pair = Pair({}, {})
    (request,) = pair.answerer.requests
    assert not [name for name, _ in request.headers if name.lower().startswith(b"seance")]
    assert pair.far.transport.headers == {}
    pair.end()


@pytest.mark.parametrize("headers", ILLEGAL, ids=repr)
def test_field_that_could_end_a_line_is_not_sent(headers: dict[str, str]) -> None:
    pair = Pair(headers, {})
    (failure,) = pair.results
    assert isinstance(failure, Failure)
    assert failure.check(LocalProtocolError) is not None
    assert pair.endpoint.wires == []
    pair.end()


@pytest.mark.parametrize("headers", ILLEGAL, ids=repr)
def test_field_that_could_end_a_line_is_not_answered(headers: dict[str, str]) -> None:
    handed_over: list[IProtocol] = []
    request = Request(b"GET", b"/agent", ())
    with pytest.raises(LocalProtocolError):
        CarrierAnswerer(Clock()).answer(request, b"", handed_over.append, lambda _: Ear(), headers=headers)
    assert handed_over == []


def test_fields_of_a_refusal_arrive() -> None:
    ends = Dialled()
    ends.hear(b"HTTP/1.1 401 Unauthorized\r\nSeance-Nonce: abc\r\nContent-Length: 0\r\n\r\n")
    (failure,) = ends.results
    assert isinstance(failure.value, Refusal)
    assert (b"seance-nonce", b"abc") in failure.value.headers
    ends.end()


@pytest.mark.parametrize("code", [1000, 1001, 4409])
def test_code_of_the_peers_close_frame_is_known_when_the_carrier_is_lost(code: int) -> None:
    ends = Dialled().open()
    carrier = ends.carrier
    assert carrier.peer_close_code is None
    ends.hear(close(code, is_masked=False))
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.is_lost
    assert carrier.peer_close_code == code
    ends.end()


def test_carrier_that_was_cut_has_no_code() -> None:
    ends = Dialled().open()
    carrier = ends.carrier
    ends.hear(frame(b"x", is_masked=False))
    ends.wire.far.abortConnection()
    ends.run()
    assert ends.ear.is_lost
    assert carrier.peer_close_code is None
    ends.end()
