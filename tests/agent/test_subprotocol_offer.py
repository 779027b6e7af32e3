"""An agent attaches to relays that select a subprotocol wrongly, and later offers it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from seance.agent import service as agent_module
from seance.agent.service import Agent, AgentState
from seance.agent.subprotocol_offer import PLAIN_SECONDS
from seance.carrier import RESUMABLE, SUBPROTOCOL, CarrierAnswerer
from seance.core.settings import AgentSettings
from seance.heads import accept_for_key
from seance.resume import SESSION_FIELD, SessionInfo
from tests.agent.dial_peer import StubRelay
from tests.ears import Ear
from tests.rigs import ROOM
from tests.wire import WireEndpoint, run

FRESH = SessionInfo("s" * 22, "t" * 43, 1, 0, 0, 20.0, is_resumed=False)
BOTH = f"{RESUMABLE}, {SUBPROTOCOL}"

Choice = Callable[[list[str]], list[str]]
"""Returns the values of the relay's ``Sec-WebSocket-Protocol`` fields for an offer."""


class ForeignRelay(Protocol):
    """Answers an upgrade with 101, and sends no yamux."""

    def __init__(self, choose: Choice, server: str) -> None:
        self._choose, self._server = choose, server
        self._head = b""
        self._has_answered = False

    def dataReceived(self, data: bytes) -> None:
        if self._has_answered:
            self.transport.write(b"\x8a\x00")  # type: ignore[union-attr]  # a pong
            return
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        fields = dict(line.split(": ", 1) for line in self._head.decode().split("\r\n")[1:-2])
        offered = [one.strip() for one in fields.get("Sec-WebSocket-Protocol", "").split(",") if one]
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_for_key(fields['Sec-WebSocket-Key'].encode()).decode()}",
            *(f"Sec-WebSocket-Protocol: {value}" for value in self._choose(offered)),
            *([f"Server: {self._server}"] if self._server else []),
        ]
        self._has_answered = True
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")  # type: ignore[union-attr]


class Stage(Factory):
    """An agent, and the relay at the address that it dials."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.clock = Clock()
        self.offers: list[list[str]] = []
        self.choose: Choice | None = lambda offered: offered[:1]
        self.server = ""
        self.endpoint = WireEndpoint(self.clock, self)
        monkeypatch.setattr(Agent, "_endpoint", lambda *_: self.endpoint)
        monkeypatch.setattr(agent_module, "WakeDetector", NoWakeDetector)
        monkeypatch.setattr("random.random", lambda: 1.0)
        self.agent = Agent(self.clock, AgentSettings(room=ROOM, relay="ws://127.0.0.1:1", **settings))

    def buildProtocol(self, addr: object) -> Any:
        if self.choose is not None:
            return ForeignRelay(self._note_offer, self.server)
        self.offers.append(["a Seance relay"])
        headers = {SESSION_FIELD: FRESH.written()}
        return SeanceRelay(CarrierAnswerer(self.clock), Ear(), headers, None, self)

    def _note_offer(self, offered: list[str]) -> list[str]:
        self.offers.append(offered)
        assert self.choose is not None
        return self.choose(offered)

    def let_pass(self, seconds: float) -> None:
        run(self.clock)
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            run(self.clock)

    def lose(self) -> None:
        self.endpoint.wires[-1].far.abortConnection()
        run(self.clock)

    @property
    def subprotocol(self) -> str | None:
        relay_link = self.agent.relay_link
        assert relay_link is not None
        assert relay_link.is_attached
        assert self.agent.status.state is AgentState.CONNECTED
        assert relay_link.carrier is not None
        return relay_link.carrier.subprotocol

    def end(self) -> None:
        stopping = self.agent.stopService()
        self.let_pass(5)
        assert stopping.called
        for wire in self.endpoint.wires:
            wire.near.abortConnection()
            wire.far.abortConnection()
        run(self.clock)
        assert self.clock.getDelayedCalls() == []


class SeanceRelay(StubRelay):
    """Answers as a Seance relay: selects an offered subprotocol, with a new session."""

    def __init__(
        self, answerer: CarrierAnswerer, ear: Ear, headers: Any, subprotocol: None, stage: Stage
    ) -> None:
        super().__init__(answerer, ear, headers, subprotocol)
        self._stage = stage

    def dataReceived(self, data: bytes) -> None:
        self._subprotocol = RESUMABLE if RESUMABLE.encode() in data else None
        if self._subprotocol is None:
            self._headers = {}
        self._stage.offers[-1] = [RESUMABLE] if self._subprotocol else []
        super().dataReceived(data)


class NoWakeDetector:
    """Replaces ``WakeDetector`` and detects nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def start(self) -> None:
        pass

    stop = take_address = start


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    stage = Stage(monkeypatch)
    yield stage
    stage.end()


@pytest.fixture
def fallbacks() -> Iterator[list[LogEvent]]:
    """The log events of fallbacks to a plain link."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("event") == "link.plain":
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


CHOICES: list[Any] = [
    pytest.param(lambda offered: offered[:1], id="the first"),
    pytest.param(lambda offered: [", ".join(offered)] if offered else [], id="the whole list"),
    pytest.param(lambda offered: offered, id="each in a separate field"),
    pytest.param(lambda offered: offered[:1] * 2, id="the first, twice"),
    pytest.param(lambda offered: ["chat"] if offered else [], id="another one"),
    pytest.param(lambda offered: ["SEANCE.RESUME.V1"] if offered else [], id="in capitals"),
    pytest.param(lambda offered: ["x" * 5000] if offered else [], id="a long one"),
]


@pytest.mark.parametrize("choose", CHOICES)
def test_agent_attaches_with_its_second_attempt(
    stage: Stage, fallbacks: list[LogEvent], choose: Choice
) -> None:
    stage.choose = choose
    stage.agent.startService()
    stage.let_pass(1)
    assert stage.offers == [[RESUMABLE, SUBPROTOCOL], []]
    assert stage.subprotocol is None
    [event] = fallbacks
    assert "--plain" in event["log_format"]


@pytest.mark.parametrize(
    ("choose", "subprotocol"),
    [
        (lambda offered: [], None),
        (lambda offered: [""], None),
        (lambda offered: ["", ""], None),
        (lambda offered: offered[1:2], SUBPROTOCOL),
    ],
)
def test_good_response_attaches_with_the_first_attempt(
    stage: Stage, choose: Choice, subprotocol: str | None
) -> None:
    stage.choose = choose
    stage.agent.startService()
    stage.let_pass(1)
    assert stage.offers == [[RESUMABLE, SUBPROTOCOL]]
    assert stage.subprotocol == subprotocol


def test_subprotocol_without_an_offer_is_refused_with_a_message(
    stage: Stage, fallbacks: list[LogEvent]
) -> None:
    """RFC 6455, 4.1: the client must fail the connection. The agent dials again and reports why."""
    stage.choose = lambda offered: ["chat"]
    stage.agent.startService()
    stage.let_pass(30)
    assert "'chat'" in stage.agent.status.sentence
    assert stage.offers[1:4] == [[], [], []]
    assert len(fallbacks) == 1
    stage.choose = lambda offered: []
    stage.let_pass(20)
    assert stage.subprotocol is None


def test_full_offer_is_made_again_after_a_minute(stage: Stage) -> None:
    stage.agent.startService()
    stage.let_pass(PLAIN_SECONDS - 10)
    stage.lose()
    stage.let_pass(5)
    assert stage.offers == [[RESUMABLE, SUBPROTOCOL], [], []], "still within the minute"
    stage.let_pass(10)
    stage.choose = None
    stage.lose()
    stage.let_pass(5)
    assert stage.offers[3:] == [[RESUMABLE]]
    assert stage.subprotocol == RESUMABLE


def test_plain_relay_costs_one_more_handshake_a_minute_at_most(stage: Stage) -> None:
    stage.agent.startService()
    for _ in range(30):
        stage.let_pass(10)
        stage.lose()
    assert sum(1 for offered in stage.offers if offered) <= 6
    stage.let_pass(11)
    assert stage.subprotocol is None


def test_seance_relay_within_the_minute_is_noticed(stage: Stage) -> None:
    stage.agent.startService()
    stage.let_pass(5)
    assert stage.subprotocol is None
    stage.choose = None
    stage.lose()
    stage.let_pass(5)
    assert stage.offers == [[RESUMABLE, SUBPROTOCOL], [], [], [RESUMABLE]]
    assert stage.subprotocol == RESUMABLE


def test_seance_relay_behind_a_proxy_that_returns_the_offer_gets_a_plain_link(stage: Stage) -> None:
    """The field ``Server: seance-relay`` must not make the agent repeat the full offer for ever."""
    stage.server = "seance-relay"
    stage.agent.startService()
    stage.let_pass(30)
    assert stage.offers == [[RESUMABLE, SUBPROTOCOL], []]
    assert stage.subprotocol is None


def test_kept_session_is_asked_for_until_it_ends(stage: Stage) -> None:
    """A captive portal answers in the relay's place. A plain link would end the session."""
    stage.choose = None
    stage.agent.startService()
    stage.let_pass(1)
    kept = stage.agent.relay_link
    stage.choose = lambda offered: offered[:1]
    stage.lose()
    stage.let_pass(20)
    assert kept is not None
    assert not kept.is_lost
    assert all(offered for offered in stage.offers)
    stage.let_pass(20)
    assert kept.is_lost
    assert stage.subprotocol is None


def test_plain_agent_never_offers_a_subprotocol(
    monkeypatch: pytest.MonkeyPatch, fallbacks: list[LogEvent]
) -> None:
    stage = Stage(monkeypatch, plain=True)
    stage.server = "seance-relay"
    stage.agent.startService()
    stage.let_pass(100)
    assert stage.offers == [[]]
    assert stage.subprotocol is None
    assert fallbacks == []
    stage.end()


def test_relay_sends_its_server_field(stage: Stage) -> None:
    """``SubprotocolOffer`` relies on the ``Server`` field of the 101."""
    stage.choose = None
    stage.agent.startService()
    stage.let_pass(1)
    carrier = stage.agent.relay_link.carrier  # type: ignore[union-attr]
    assert carrier is not None
    assert carrier.headers["server"].startswith("seance-relay")
