"""Messages between a resumable transport and its peer, which the test plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast
from zlib import crc32

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from seance.carrier import CarrierProtocol, ResumableTransport
from seance.errors import LocalProtocolError
from seance.resume import ACK_AFTER_BYTES, KEPT_BYTES
from tests.carrier.peers import BINARY, CLOSE, PING, PONG, TEXT, Answered, Frame, close, frame
from tests.conftest import Watch
from tests.ears import Ear, PullSource, PushSource, pattern

KIB = 1024
BYE = b'{"t":"bye"}'


class Alone(Answered):
    """A resumable transport of the relay over its first WebSocket; the test plays the agent."""

    def __init__(self, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.owner = Ear()
        self.detached: list[str] = []
        self._kept_bytes = kept_bytes
        super().__init__(cast(Any, CarrierProtocol(self._opened)))

    def _opened(self, carrier_protocol: CarrierProtocol) -> None:
        self.resumable = ResumableTransport(
            self.clock, self.owner, on_detached=self.detached.append, kept_bytes=self._kept_bytes
        )
        self.carrier_protocol = carrier_protocol
        self.resumable.join(carrier_protocol, self.resumable.begin(0, 0))

    def words(self, word: str = "ack") -> list[dict[str, Any]]:
        said = [json.loads(one.payload) for one in self.far.frames if one.opcode == TEXT]
        return [one for one in said if one["t"] == word]

    def sent(self) -> bytes:
        return b"".join(one.payload for one in self.far.frames if one.opcode == BINARY)

    def say(self, word: bytes) -> list[Frame]:
        return self.hear(frame(word, TEXT))

    def ack(self, count: int, crc: int) -> list[Frame]:
        return self.say(b'{"t":"ack","n":%d,"c":"%08x"}' % (count, crc))

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def end(self) -> None:
        self.resumable.expire("the test is over")
        super().end()
        assert self.resumable.continuity.outgoing.kept_bytes == 0


@pytest.fixture
def alone() -> Any:
    alone = Alone()
    yield alone
    alone.end()


def of(text: bytes) -> dict[str, Any]:
    return {"t": "ack", "n": len(text), "c": f"{crc32(text):08x}"}


# Acknowledgements


def test_many_bytes_are_acknowledged_immediately(alone: Alone) -> None:
    text = pattern(ACK_AFTER_BYTES)
    alone.hear(frame(text[:-1]))
    assert alone.words() == []
    alone.hear(frame(text[-1:]))
    assert alone.words() == [of(text)]
    alone.pass_time(1)
    assert alone.words() == [of(text)], "nothing more is to be acknowledged"


def test_few_bytes_are_acknowledged_after_a_quarter_of_a_second(alone: Alone) -> None:
    alone.hear(frame(b"one"))
    alone.pass_time(0.2)
    alone.hear(frame(b"two"))
    assert alone.words() == []
    alone.pass_time(0.1)
    assert alone.words() == [of(b"onetwo")]
    alone.pass_time(1)
    alone.hear(frame(b"three"))
    alone.pass_time(0.3)
    assert alone.words() == [of(b"onetwo"), of(b"onetwothree")]


def test_small_messages_cause_at_most_four_acknowledgements_per_second(alone: Alone) -> None:
    for _ in range(200):
        alone.hear(frame(b"a cursor that moves"))
        alone.clock.advance(0.01)
    assert 6 <= len(alone.words()) <= 9


def test_delivered_part_of_a_message_is_counted(alone: Alone) -> None:
    whole = frame(pattern(10_000))
    alone.hear(whole[:5000])
    assert 0 < len(alone.owner.data) < 5000
    alone.pass_time(0.3)
    assert alone.words() == [of(bytes(alone.owner.data))]


def test_full_carrier_gets_one_acknowledgement_once_it_has_room(alone: Alone) -> None:
    alone.far.transport.pauseProducing()
    alone.resumable.write(pattern(1024 * KIB))
    alone.run()
    assert alone.carrier_protocol.carrier.is_full
    before = len(alone.wire.near.written)
    text = b""
    for number in range(200):
        piece = pattern(20 * KIB, number)
        alone.far.transport.write(frame(piece))
        text += piece
        alone.clock.advance(0.05)
    assert alone.owner.data == text
    assert len(alone.wire.near.written) <= before + 10, "only pongs and pings were written"
    alone.far.transport.resumeProducing()
    for _ in range(4):
        alone.run()
    assert alone.words() == [of(text)]


# The peer's acknowledgements


def test_acknowledgement_frees_kept_data(alone: Alone) -> None:
    alone.resumable.write(b"hello")
    alone.resumable.writeSequence([b" ", b"world"])
    alone.run()
    assert alone.resumable.continuity.outgoing.kept_bytes == 11
    alone.ack(7, crc32(b"hello w"))
    assert alone.resumable.continuity.outgoing.kept_bytes == 4
    alone.ack(3, 0)
    assert alone.resumable.continuity.outgoing.kept_bytes == 4, "acknowledged before"
    alone.ack(11, crc32(b"hello world"))
    assert alone.resumable.continuity.outgoing.kept_bytes == 0


@pytest.mark.parametrize(
    "word",
    [
        b'{"t":"ack","n":2,"c":"00000000"}',
        b'{"t":"ack","n":12,"c":"00000000"}',
        b'{"t":"ack","n":18446744073709551615,"c":"00000000"}',
        b'{"t":"ack","n":-1,"c":"00000000"}',
        b'{"t":"ack","n":"1","c":"00000000"}',
        b'{"t":"ack","n":1}',
        b'{"t":"ack"}',
    ],
    ids=["mismatch", "ahead", "far ahead", "negative", "text", "no checksum", "empty"],
)
def test_impossible_acknowledgement_ends_the_link(alone: Alone, watch: Watch, word: bytes) -> None:
    alone.resumable.write(b"hello world")
    heard = alone.say(word)
    assert [(one.opcode, one.payload) for one in heard[1:-1]] == [(TEXT, BYE)]
    assert heard[-1].close_code == 1002
    assert alone.owner.was_lost_with(ConnectionLost)
    assert alone.detached == []
    assert [event["event"] for event in watch.take()] == ["link.desync"]
    with pytest.raises(LocalProtocolError):
        alone.resumable.begin(0, 0)


def test_first_acknowledgement_on_a_carrier_settles_it_and_the_next_do_not(alone: Alone) -> None:
    settled: list[bool] = []
    alone.resumable.on_settled = lambda: settled.append(True)
    alone.hear(frame(b"bytes settle nothing"))
    assert settled == []
    alone.ack(0, 0)
    alone.ack(0, 0)
    assert settled == [True]


def test_kept_data_pauses_the_producer_until_an_acknowledgement() -> None:
    alone = Alone(kept_bytes=100 * KIB)
    text = pattern(400 * KIB)
    source = PushSource(alone.resumable, text, piece_bytes=16 * KIB)
    source.start()
    for _ in range(3):
        alone.run()
        assert source.is_paused
        kept = alone.resumable.continuity.outgoing.kept_bytes
        assert 100 * KIB <= kept < 116 * KIB
        assert not alone.carrier_protocol.carrier.is_full, "the peer reads; it does not acknowledge"
        count = len(alone.sent())
        assert alone.sent() == text[:count]
        alone.ack(count - 90 * KIB, crc32(text[: count - 90 * KIB]))
    while not source.is_over:
        count = len(alone.sent())
        alone.ack(count, crc32(text[:count]))
    alone.run()
    assert alone.sent() == text
    alone.end()


def test_writes_without_a_producer_are_kept_beyond_the_limit_and_none_is_dropped() -> None:
    alone = Alone(kept_bytes=10)
    alone.resumable.write(b"much more than ten bytes")
    alone.resumable.write(b", and more")
    alone.run()
    assert alone.sent() == b"much more than ten bytes, and more"
    assert alone.resumable.continuity.outgoing.kept_bytes == 34
    alone.end()


def test_pull_producer_waits_for_acknowledgements_too() -> None:
    alone = Alone(kept_bytes=50 * KIB)
    pieces = [pattern(10 * KIB, number) for number in range(12)]
    text = b"".join(pieces)
    PullSource(alone.resumable, pieces).start()
    alone.run()
    assert len(alone.sent()) == 50 * KIB
    while pieces:
        alone.ack(len(alone.sent()), crc32(alone.sent()))
    alone.run()
    assert alone.sent() == text
    alone.end()


# Link control


def test_other_messages_reach_on_control(alone: Alone) -> None:
    alone.say(b'{"t":"nobody listens"}')
    heard: list[dict[str, object]] = []
    alone.resumable.on_control = heard.append
    alone.say(b'{"t":"drain","in":1,"try":2}')
    alone.ack(0, 0)
    alone.say(b'{"t":"unheard of"}')
    assert heard == [{"t": "drain", "in": 1, "try": 2}, {"t": "unheard of"}]
    alone.resumable.send_control(b'{"t":"token"}')
    alone.run()
    assert alone.words("token") == [{"t": "token"}]


# The end


def test_close_sends_bye_with_code_and_reason(alone: Alone) -> None:
    alone.resumable.write(b"last words")
    alone.resumable.close(1001, "going")
    alone.resumable.close(1011, "and again")
    heard = alone.hear()
    assert [one.opcode for one in heard] == [BINARY, TEXT, CLOSE]
    assert heard[1].payload == BYE
    assert (heard[2].close_code, heard[2].payload[2:]) == (1001, b"going")
    alone.resumable.write(b"too late")
    alone.hear(close(1001))
    assert alone.owner.was_lost_with(ConnectionDone)
    assert alone.detached == []


@pytest.mark.parametrize("code", [1000, 1002, 1011, 3000, 4000])
def test_close_frame_of_the_peer_ends_it(alone: Alone, code: int) -> None:
    alone.hear(close(code, b"why"))
    assert alone.owner.was_lost_with(ConnectionDone if code == 1000 else ConnectionLost)
    assert alone.carrier_protocol.carrier.peer_close_code == code
    assert alone.detached == []


@pytest.mark.parametrize("code", [1001, 1012])
def test_close_frame_of_a_proxy_that_stops_is_a_loss_unless_the_peer_has_said_bye(code: int) -> None:
    for says_bye in (False, True):
        alone = Alone()
        if says_bye:
            alone.say(BYE)
        alone.hear(close(code, b"reloading"))
        assert alone.owner.is_lost is says_bye
        assert len(alone.detached) == (not says_bye)
        alone.end()


def test_close_frame_for_a_protocol_error_ends_it(alone: Alone) -> None:
    alone.hear(frame(b"reserved bits", reserved=7))
    alone.pass_time(3)
    assert alone.owner.was_lost_with(ConnectionLost)
    assert alone.detached == []


def test_bye_ends_it_with_the_close_frame_that_follows(alone: Alone) -> None:
    heard = alone.say(BYE)
    assert heard[-1].close_code == 1000
    assert not alone.owner.is_lost, "the code of the peer's close frame is still to come"
    alone.hear(close(1001))
    assert alone.owner.is_lost
    assert alone.carrier_protocol.carrier.peer_close_code == 1001


def test_bye_ends_it_when_a_cut_follows(alone: Alone) -> None:
    alone.say(BYE)
    alone.far.transport.abortConnection()
    alone.run()
    assert alone.owner.is_lost
    assert alone.detached == []


def test_bye_ends_it_when_nothing_follows(alone: Alone) -> None:
    alone.say(BYE)
    alone.pass_time(3)
    assert alone.owner.is_lost
    assert alone.detached == []


def test_bye_waits_for_data_that_is_still_to_be_delivered(alone: Alone) -> None:
    alone.owner.on_data = lambda _: alone.resumable.pauseProducing()
    alone.hear(frame(b"one") + frame(b"", PONG) + frame(b"two") + frame(BYE, TEXT) + close(1000))
    assert alone.owner.data == b"one"
    alone.resumable.resumeProducing()
    alone.run()
    assert alone.owner.data == b"onetwo"
    alone.resumable.resumeProducing()
    alone.run()
    assert alone.owner.was_lost_with(ConnectionDone)


@pytest.mark.parametrize(
    "cut",
    [lambda alone: alone.wire.near.abortConnection(), lambda alone: alone.far.transport.abortConnection()],
)
def test_cut_detaches_it_and_is_reported_once(alone: Alone, cut: Callable[[Alone], None]) -> None:
    cut(alone)
    alone.run()
    assert len(alone.detached) == 1
    assert not alone.resumable.is_attached
    assert not alone.owner.is_lost
    alone.resumable.expire("it did not come back")
    alone.resumable.expire("twice")
    assert alone.owner.was_lost_with(ConnectionLost)
    assert "it did not come back" in alone.owner.reasons[0].getErrorMessage()


def test_peer_that_closes_tcp_only_detaches_it(alone: Alone) -> None:
    alone.far.transport.loseConnection()
    alone.run()
    assert len(alone.detached) == 1


def test_expiry_closes_a_present_carrier(alone: Alone) -> None:
    alone.resumable.expire("the relay wants no more")
    assert alone.owner.was_lost_with(ConnectionLost)
    heard = alone.hear()
    assert [one.opcode for one in heard] == [TEXT, CLOSE]
    alone.hear(close(1000))
    assert not alone.wire.near.is_connected


def test_expiry_closes_a_carrier_whose_close_waits_for_a_producer(alone: Alone) -> None:
    source = PushSource(alone.resumable, b"")
    alone.resumable.registerProducer(source, True)
    alone.resumable.loseConnection()
    assert [one.opcode for one in alone.hear()] == []
    alone.resumable.expire("over")
    assert source.stops == 1
    assert [one.opcode for one in alone.hear()] == [TEXT, CLOSE]
    alone.pass_time(3)
    assert not alone.wire.near.is_connected


def test_while_a_close_waits_for_a_producer_nothing_is_delivered(alone: Alone) -> None:
    alone.resumable.registerProducer(PushSource(alone.resumable, b""), True)
    alone.resumable.loseConnection()
    alone.hear(frame(b"too late"))
    assert alone.owner.told == ["made"]
    alone.resumable.unregisterProducer()
    assert [one.opcode for one in alone.hear()] == [TEXT, CLOSE]


@pytest.mark.parametrize(
    ("end", "reason"), [("loseConnection", ConnectionDone), ("abortConnection", ConnectionAborted)]
)
def test_it_can_be_ended_while_there_is_no_carrier(alone: Alone, end: str, reason: type[Exception]) -> None:
    alone.wire.near.abortConnection()
    alone.run()
    with alone.owner.calling():
        getattr(alone.resumable, end)()
    alone.run()
    assert alone.owner.was_lost_with(reason)
    assert alone.owner.reentered == []


@pytest.mark.interpreted
def test_failure_between_count_and_delivery_ends_it(
    alone: Alone, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResumableTransport, "_send_ack", lambda self: 1 // 0)
    alone.hear(frame(pattern(ACK_AFTER_BYTES)))
    assert alone.resumable.disconnecting
    assert alone.owner.was_lost_with(ConnectionAborted)
    assert alone.detached == []
    assert len(watch.take(ZeroDivisionError)) == 1


def test_failing_protocol_ends_it(alone: Alone, watch: Watch) -> None:
    """The failed data is counted already, so the session would continue without it over another carrier."""

    def fail(_: bytes) -> None:
        raise ZeroDivisionError

    alone.owner.on_data = fail
    alone.hear(frame(b"poison"))
    assert alone.owner.was_lost_with(ConnectionAborted)
    assert alone.detached == []
    assert len(watch.take(ZeroDivisionError)) == 1


def test_closing_link_accepts_no_further_carrier(alone: Alone) -> None:
    alone.resumable.abortConnection()
    with pytest.raises(LocalProtocolError) as caught:
        alone.resumable.begin(0, 0)
    assert caught.value.code == "link_over"
    alone.run()
    assert alone.owner.was_lost_with(ConnectionAborted)


# The heartbeat


def test_peer_that_does_not_answer_is_cut_and_that_detaches_it(alone: Alone) -> None:
    alone.hear(frame(b"here"))
    alone.pass_time(10)
    assert PING in [one.opcode for one in alone.far.frames]
    assert len(alone.detached) == 1


def test_peer_that_does_not_acknowledge_is_cut_within_six_seconds(alone: Alone) -> None:
    alone.pass_time(2)
    alone.hear(frame(b"here"))
    alone.resumable.write(b"data in flight")
    alone.pass_time(3.5)
    assert alone.detached == []
    alone.pass_time(2.5)
    assert len(alone.detached) == 1


def test_live_peer_that_never_acknowledges_ends_the_link(alone: Alone, watch: Watch) -> None:
    """Another carrier would not help, so the transport ends."""
    alone.resumable.write(b"data in flight")
    for _ in range(14):
        alone.pass_time(1)
        alone.hear(frame(b"", PONG))
    assert not alone.owner.is_lost
    for _ in range(4):
        alone.pass_time(1)
        alone.hear(frame(b"", PONG))
    assert alone.owner.was_lost_with(ConnectionLost)
    assert alone.detached == []
    [closing] = [one for one in alone.far.frames if one.opcode == CLOSE]
    assert closing.payload[:2] == (1002).to_bytes(2, "big")
    assert [event["event"] for event in watch.take()] == ["link.desync"]


def test_peer_that_acknowledges_slowly_does_not_end_the_link(alone: Alone) -> None:
    text = pattern(40)
    alone.resumable.write(text)
    for count in range(40):
        alone.pass_time(1)
        alone.ack(count, crc32(text[:count]))
    assert not alone.owner.is_lost


def test_probe_that_is_not_answered_cuts_within_three_seconds(alone: Alone) -> None:
    alone.resumable.probe()
    alone.pass_time(1.9)
    assert alone.detached == []
    alone.pass_time(1.1)
    assert len(alone.detached) == 1
    alone.resumable.probe()
