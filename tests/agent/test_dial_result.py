"""The result of a dial: the old session, a new one, or an error with a message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from seance.agent.dial_result import MAX_RETRY_AFTER_SECONDS, DialResult, retry_after_seconds
from seance.agent.relay_link import EXPIRY_MARGIN_SECONDS, RelayLink
from seance.carrier import RESUMABLE, SUBPROTOCOL, CarrierAnswerer, CarrierProtocol, RelayAddress, dial
from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, Refusal
from seance.resume import SESSION_FIELD, SessionInfo
from seance.yamux import WindowBudget
from tests.agent.dial_peer import StubRelay
from tests.ears import Ear
from tests.rigs import ROOM, OneByOne
from tests.wire import WireEndpoint, run

SID, TOKEN = "s" * 22, "t" * 43
FRESH = SessionInfo(SID, TOKEN, 1, 0, 0, 20.0, is_resumed=False)
RESUMED = SessionInfo(SID, TOKEN, 2, 0, 0, 20.0, is_resumed=True)


class Stage:
    """The links of an agent, and a relay that gives the answers of the test.

    Attributes:
        ears: The recorder at the relay's end of each carrier.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.made: list[RelayLink] = []
        self.ears: list[Ear] = []
        self.wires: list[Any] = []

    def make_link(self, subprotocol: str | None) -> RelayLink:
        settings = AgentSettings(room=ROOM)
        relay_link = RelayLink(self.clock, settings, Factory(), subprotocol, lambda *_: None, WindowBudget())
        self.made.append(relay_link)
        return relay_link

    def dial(
        self,
        kept: RelayLink | None,
        field: SessionInfo | str | None,
        *,
        subprotocol: str | None = RESUMABLE,
    ) -> DialResult:
        """Dial once; the relay answers with this field and subprotocol."""
        result = DialResult(self.make_link, kept)
        self.ears.append(ear := Ear())
        headers = (
            {} if field is None else {SESSION_FIELD: field if isinstance(field, str) else field.written()}
        )
        relay_factory = OneByOne()
        relay_factory.coming.append(StubRelay(CarrierAnswerer(self.clock), ear, headers, subprotocol))
        endpoint = WireEndpoint(self.clock, relay_factory)
        dialling = dial(
            self.clock,
            RelayAddress.from_url("ws://127.0.0.1:1"),
            ROOM,
            result.make_protocol,
            deadline_seconds=5,
            endpoint=endpoint,
            may_resume=True,
        )
        dialling.addErrback(lambda failure: failure.trap(CarrierLost))
        self.wires += endpoint.wires
        run(self.clock)
        return result

    def cut(self) -> None:
        self.wires[-1].far.abortConnection()
        run(self.clock)

    def end(self) -> None:
        for relay_link in self.made:
            relay_link.end("the test is over")
        for wire in self.wires:
            wire.near.abortConnection()
            wire.far.abortConnection()
        run(self.clock)
        assert self.clock.getDelayedCalls() == []
        assert all(relay_link.is_lost for relay_link in self.made if relay_link.carrier is not None)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.end()


# New sessions


def test_first_session_is_new(stage: Stage) -> None:
    relay_link = stage.dial(None, FRESH).result()
    assert stage.made == [relay_link]
    assert relay_link.is_attached
    resume_request = relay_link.resume_request()
    assert resume_request is not None
    assert (resume_request.sid, resume_request.token, resume_request.received, resume_request.crc) == (
        SID,
        TOKEN,
        0,
        0,
    )


@pytest.mark.parametrize("subprotocol", [SUBPROTOCOL, None])
def test_relay_that_does_not_resume_gets_a_plain_link(stage: Stage, subprotocol: str | None) -> None:
    relay_link = stage.dial(None, None, subprotocol=subprotocol).result()
    assert relay_link.is_attached
    assert relay_link.resume_request() is None


def test_session_that_was_not_kept_ends_and_a_new_one_starts(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    assert not kept.is_attached
    assert not kept.is_lost
    relay_link = stage.dial(
        kept, SessionInfo("n" * 22, TOKEN, 1, 0, 0, 20.0, is_resumed=False, why="expired")
    ).result()
    assert kept.is_lost
    assert kept.resume_request() is None
    assert relay_link is not kept
    assert relay_link.is_attached


def test_session_ends_when_the_relay_does_not_resume_any_more(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    relay_link = stage.dial(kept, None, subprotocol=SUBPROTOCOL).result()
    assert kept.is_lost
    assert relay_link.is_attached
    assert relay_link is not kept


# Resumed


def test_session_that_was_kept_continues(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    relay_link = stage.dial(kept, SessionInfo(SID, "u" * 43, 2, 0, 0, 20.0, is_resumed=True)).result()
    assert relay_link is kept
    assert kept.is_attached
    resume_request = kept.resume_request()
    assert resume_request is not None
    assert resume_request.token == "u" * 43, "the newest secret"
    assert len(stage.made) == 1


def test_each_loss_of_a_carrier_is_reported(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    for _ in range(3):
        messages: list[str] = []
        kept.when_detached().addCallback(messages.append)
        run(stage.clock)
        assert messages == []
        stage.cut()
        assert len(messages) == 1
        stage.dial(kept, RESUMED)
    assert kept.is_attached


def test_resumed_session_without_a_request_is_refused(stage: Stage) -> None:
    result = stage.dial(None, RESUMED)
    with pytest.raises(CarrierLost) as caught:
        result.result()
    assert caught.value.code == "no_session"
    assert "ended before it was resumed" in caught.value.message
    assert stage.made == []


def test_session_that_ended_while_it_was_dialled_is_not_resumed(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    kept.end("meanwhile")
    with pytest.raises(CarrierLost):
        stage.dial(kept, RESUMED).result()
    assert stage.ears[-1].is_lost


@pytest.mark.parametrize("received", [1, 10**9])
def test_relay_with_wrong_counts_ends_the_session(stage: Stage, received: int) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    result = stage.dial(kept, SessionInfo(SID, TOKEN, 2, received, 7, 20.0, is_resumed=True))
    with pytest.raises(CarrierLost) as caught:
        result.result()
    assert caught.value.code == "no_session"
    assert str(received) in caught.value.message
    assert kept.is_lost
    assert kept.resume_request() is None
    assert stage.ears[-1].is_lost
    assert "1002" in stage.ears[-1].reasons[0].getErrorMessage()


@pytest.mark.parametrize(
    "field", [None, "", "sid=x", "no field at all", FRESH.written().replace("epoch", "epic")]
)
def test_response_without_a_session_raises_with_a_message(stage: Stage, field: str | None) -> None:
    """A proxy that answers in the relay's place does not send the field."""
    result = stage.dial(None, field)
    with pytest.raises(CarrierLost) as caught:
        result.result()
    assert caught.value.code == "no_session"
    assert "has no session" in caught.value.message
    assert stage.ears[-1].is_lost, "the carrier is aborted"


def test_response_without_a_session_keeps_the_old_session(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    with pytest.raises(CarrierLost):
        stage.dial(kept, None).result()
    assert not kept.is_lost
    assert stage.dial(kept, RESUMED).result() is kept


def test_result_without_a_carrier_raises_with_a_message() -> None:
    with pytest.raises(CarrierLost):
        DialResult(cast(Any, None), None).result()


def test_carrier_protocol_is_for_relays_that_resume() -> None:
    assert isinstance(DialResult(cast(Any, None), None).make_protocol(RESUMABLE), CarrierProtocol)


# The end


def test_session_ends_when_the_relay_can_no_longer_keep_it(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    stage.clock.advance(20 + EXPIRY_MARGIN_SECONDS - 0.1)
    assert not kept.is_lost
    stage.clock.advance(0.2)
    assert kept.is_lost
    assert kept.resume_request() is None


def test_resumed_session_does_not_expire(stage: Stage) -> None:
    kept = stage.dial(None, FRESH).result()
    stage.cut()
    stage.clock.advance(15)
    stage.dial(kept, RESUMED)
    for _ in range(40):
        stage.wires[-1].far.write(b"\x8a\x00")
        stage.clock.advance(1)
    assert kept.is_attached


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"2", 2.0),
        (b"60", 60.0),
        (b"61", MAX_RETRY_AFTER_SECONDS),
        (b"99999", MAX_RETRY_AFTER_SECONDS),
        (b"100000", 0.0),
        (b"-1", 0.0),
        (b"1.5", 0.0),
        (b"", 0.0),
        (b"Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        ("²".encode(), 0.0),
    ],
)
@pytest.mark.parametrize("name", [b"Retry-After", b"retry-after"])
def test_retry_after_is_limited_to_a_minute(name: bytes, value: bytes, seconds: float) -> None:
    refusal = Refusal(503, "Later.", code="later", headers=((b"X", b"5"), (name, value)))
    waits = [retry_after_seconds(refusal) for _ in range(50)]
    assert all(seconds <= wait <= seconds * 1.25 for wait in waits)
    assert seconds == 0 or len(set(waits)) > 10, "not all return together"


def test_other_errors_have_no_retry_after() -> None:
    assert retry_after_seconds(CarrierLost("gone")) == 0.0
    assert retry_after_seconds(Refusal(503, "Later.", code="later")) == 0.0
