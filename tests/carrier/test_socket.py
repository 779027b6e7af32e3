"""The WebSocket below a carrier: messages, pings, closing, and peers that violate the protocol."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.logger import globalLogPublisher

from seance.carrier import RESUMABLE, SUBPROTOCOL, Carrier
from seance.carrier.websocket import CLOSE_SECONDS, MAX_MESSAGE_BYTES
from tests.carrier.peers import BINARY, CLOSE, CONTINUATION, PING, PONG, Answered, Dialled, close, frame
from tests.ears import Ear, PushSource, pattern
from tests.wire import run_until

KIB = 1024

Ends = Answered | Dialled


@pytest.fixture(params=["relay", "agent"])
def join(request: pytest.FixtureRequest) -> Callable[..., Ends]:
    """A function that makes a carrier on one side; the test plays the other."""
    if request.param == "relay":
        return Answered
    return lambda *args, **kwargs: Dialled(*args, **kwargs).open()


@pytest.fixture
def ends(join: Callable[..., Ends]) -> Any:
    ends = join()
    yield ends
    ends.end()


# Messages


def test_a_write_is_a_message(ends: Ends) -> None:
    ends.carrier.write(b"one")
    ends.carrier.writeSequence([b"t", b"w", b"o"])
    ends.carrier.write(b"")
    heard = ends.hear()
    assert [(one.opcode, one.payload, one.is_final) for one in heard] == [
        (BINARY, b"one", True),
        (BINARY, b"two", True),
    ]
    assert all(one.is_masked is not ends.masks for one in heard)


def test_a_long_write_is_several_messages(ends: Ends) -> None:
    ends.carrier.write(pattern(64 * KIB))
    assert [len(one.payload) for one in ends.hear()] == [64 * KIB]
    ends.carrier.write(pattern(150 * KIB))
    heard = ends.hear()
    assert [len(one.payload) for one in heard] == [64 * KIB, 64 * KIB, 22 * KIB]
    assert all(one.is_final and one.opcode == BINARY for one in heard)
    assert b"".join(one.payload for one in heard) == pattern(150 * KIB)


@pytest.mark.parametrize(("subprotocol", "kib"), [(None, 64), (SUBPROTOCOL, 64), (RESUMABLE, 256)])
def test_only_a_peer_that_resumes_gets_messages_of_256_kib(
    ends: Ends, subprotocol: str | None, kib: int
) -> None:
    carrier = Carrier(ends.carrier._socket, subprotocol=subprotocol)
    carrier.write(pattern(600 * KIB))
    heard = ends.hear()
    assert {len(one.payload) for one in heard[:-1]} == {kib * KIB}
    assert b"".join(one.payload for one in heard) == pattern(600 * KIB)


def test_boundaries_of_messages_and_fragments_are_ignored(ends: Ends) -> None:
    ends.hear(
        frame(b"one ", is_masked=ends.masks),
        frame(b"", is_masked=ends.masks),
        frame(b"tw", is_final=False, is_masked=ends.masks),
        frame(b"between", PING, is_masked=ends.masks),
        frame(b"o th", CONTINUATION, is_final=False, is_masked=ends.masks),
        frame(b"ree", CONTINUATION, is_masked=ends.masks),
    )
    assert ends.ear.data == b"one two three"
    assert ends.ear.reentered == []


def test_a_message_is_delivered_before_it_is_complete(ends: Ends) -> None:
    whole = frame(pattern(200 * KIB), is_masked=ends.masks)
    ends.hear(whole[: 100 * KIB])
    assert 90 * KIB < len(ends.ear.data) < 100 * KIB
    ends.hear(whole[100 * KIB :])
    assert ends.ear.data == pattern(200 * KIB)


def test_the_longest_message_may_be_announced(ends: Ends) -> None:
    assert ends.hear(frame(b"begin", announced=MAX_MESSAGE_BYTES, is_masked=ends.masks)) == []
    assert ends.ear.data == b"begin"


# Protocol errors


@pytest.mark.parametrize("announced", [MAX_MESSAGE_BYTES + 1, 2**62])
def test_a_longer_message_is_refused_at_its_header(ends: Ends, announced: int) -> None:
    heard = ends.hear(frame(b"begin", announced=announced, is_masked=ends.masks))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1009)]
    ends.hear(b"x" * 100_000)
    assert ends.ear.data == b""


def test_a_frame_with_the_wrong_mask_is_refused(ends: Ends) -> None:
    heard = ends.hear(frame(b"bytes", is_masked=not ends.masks))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1002)]
    assert ends.ear.data == b""


@pytest.mark.parametrize(
    "broken",
    [
        {"opcode": 3},
        {"opcode": 11},
        {"opcode": CONTINUATION},
        {"opcode": PING, "is_final": False},
        {"opcode": PING, "announced": 126},
        {"opcode": PING, "announced": 2**40},
        {"reserved": 1},
        {"opcode": CLOSE, "payload": b"x"},
        {"opcode": CLOSE, "payload": b"\x03\xed"},
    ],
    ids=str,
)
def test_a_broken_frame_is_refused(ends: Ends, broken: dict[str, Any]) -> None:
    heard = ends.hear(frame(is_masked=ends.masks, **broken))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1002)]


def test_a_close_frame_after_a_protocol_error_is_not_a_normal_close(ends: Ends) -> None:
    ends.hear(frame(b"bytes", is_masked=not ends.masks))
    ends.hear(close(1000, is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionLost)
    assert "frame" in str(ends.ear.reasons[0].value)
    assert len(ends.far.frames) == 1


def test_a_peer_that_stays_after_a_protocol_error_is_cut(ends: Ends) -> None:
    ends.hear(frame(b"bytes", is_masked=not ends.masks))
    assert not ends.ear.is_lost
    ends.clock.advance(CLOSE_SECONDS)
    ends.run()
    assert ends.ear.was_lost_with(ConnectionLost)
    assert "frame" in str(ends.ear.reasons[0].value)
    assert ends.far.is_lost


def test_data_after_a_protocol_error_is_dropped(ends: Ends) -> None:
    ends.hear(frame(b"", PING, announced=2**40, is_masked=ends.masks))
    for _ in range(20):
        ends.hear(b"x" * 60_000)
    socket: Any = ends.carrier._socket
    assert sum(map(len, socket.control_frame_data)) == 0
    assert len(socket.data) < 64 * KIB


def test_random_bytes_cause_no_exception(join: Callable[..., Ends]) -> None:
    """Random data is accepted or ends the carrier, and no failure is logged; ``watch`` would see it."""
    for seed in range(60):
        ends = join()
        ends.hear(*nonsense(random.Random(seed), is_masked=ends.masks))
        ends.clock.advance(CLOSE_SECONDS)
        ends.run()
        ends.end()
        assert ends.ear.is_lost


def nonsense(source: random.Random, *, is_masked: bool) -> list[bytes]:
    """Frames of every kind, most of them illegal, and sometimes random bytes."""
    pieces = []
    for _ in range(30):
        one = frame(
            source.randbytes(source.choice([0, 1, 2, 5, 125, 126, 300])),
            source.choice([0, 1, 1, 2, 2, 2, 3, 7, 8, 9, 9, 10, 11, 15]),
            is_final=source.random() < 0.7,
            is_masked=is_masked is (source.random() < 0.9),
            reserved=source.choice([0] * 9 + [4]),
        )
        pieces.append(one if source.random() < 0.9 else source.randbytes(20))
    return pieces


# Pings


def test_a_ping_is_answered(ends: Ends) -> None:
    heard = ends.hear(
        frame(b"still there?", PING, is_masked=ends.masks), frame(b"", PING, is_masked=ends.masks)
    )
    assert [(one.opcode, one.payload) for one in heard] == [(PONG, b"still there?"), (PONG, b"")]
    assert ends.hear(frame(b"unasked", PONG, is_masked=ends.masks)) == []


def test_pings_of_a_peer_that_does_not_read_are_not_collected(ends: Ends) -> None:
    ends.far.transport.pauseProducing()
    source = PushSource(ends.carrier, pattern(1024 * KIB))
    source.start()
    ends.run()
    assert ends.carrier.is_full
    held = len(ends.wire.near.unsent) + len(ends.wire.far.unsent)
    for number in range(500):
        ends.far.transport.write(frame(b"%0100d" % number, PING, is_masked=ends.masks))
    ends.run()
    assert len(ends.wire.near.unsent) + len(ends.wire.far.unsent) == held
    ends.far.transport.resumeProducing()
    run_until(ends.clock, lambda: source.is_over)
    ends.run()
    assert [one.payload for one in ends.far.frames if one.opcode == PONG] == [b"%0100d" % 499]
    assert not ends.carrier.is_full


def test_unregistering_the_producer_of_a_full_carrier_sends_the_pong(ends: Ends) -> None:
    ends.far.transport.pauseProducing()
    source = PushSource(ends.carrier, pattern(1024 * KIB))
    source.start()
    ends.run()
    ends.hear(frame(b"?", PING, is_masked=ends.masks))
    ends.carrier.unregisterProducer()
    ends.far.transport.resumeProducing()
    ends.run()
    assert [one.payload for one in ends.far.frames if one.opcode == PONG] == [b"?"]


# Closing


def test_closing_sends_code_and_reason(ends: Ends) -> None:
    ends.carrier.close(1001, "the relay is stopping")
    ends.carrier.close(1000, "ignored")
    (heard,) = ends.hear()
    assert (heard.opcode, heard.close_code, heard.payload[2:]) == (CLOSE, 1001, b"the relay is stopping")
    ends.hear(close(1000, is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionDone)


def test_closing_sends_one_close_frame(ends: Ends) -> None:
    ends.carrier.registerProducer(PushSource(ends.carrier, b""), True)
    ends.carrier.loseConnection()
    assert ends.hear() == []
    ends.carrier.unregisterProducer()
    ends.carrier.unregisterProducer()
    assert [one.opcode for one in ends.hear()] == [CLOSE]


def test_a_long_reason_is_cut_between_characters(ends: Ends) -> None:
    ends.carrier.close(1001, "ä" * 100)
    (heard,) = ends.hear()
    assert heard.payload[2:] == "ä".encode() * 61


@pytest.mark.parametrize("code", [1000, 1001])
def test_a_peer_may_close_normally(ends: Ends, code: int) -> None:
    source = PushSource(ends.carrier, b"")
    ends.carrier.registerProducer(source, True)
    heard = ends.hear(close(code, b"bye", is_masked=ends.masks))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1000)]
    ends.carrier.write(b"too late")
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionDone)
    assert source.stops == 1


def test_a_peer_may_close_without_a_code(ends: Ends) -> None:
    ends.hear(frame(b"", CLOSE, is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionDone)


def test_the_code_and_reason_of_the_peer_are_reported(ends: Ends) -> None:
    ends.hear(close(1002, b"that was no yamux", is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionLost)
    assert "closed with 1002 (that was no yamux)" in str(ends.ear.reasons[0].value)


def test_a_code_of_the_peer_without_a_reason_is_reported(ends: Ends) -> None:
    ends.hear(close(1011, is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.run()
    assert "closed with 1011 (no reason)" in str(ends.ear.reasons[0].value)


def test_an_end_without_a_close_frame_is_a_lost_connection(ends: Ends) -> None:
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionLost)


def test_a_peer_that_does_not_answer_the_close_frame_is_cut(ends: Ends) -> None:
    ends.carrier.loseConnection()
    ends.run()
    ends.clock.advance(CLOSE_SECONDS - 0.1)
    ends.run()
    assert not ends.ear.is_lost
    ends.clock.advance(0.2)
    ends.run()
    assert ends.ear.was_lost_with(ConnectionLost)
    assert "did not answer the close frame" in str(ends.ear.reasons[0].value)
    assert ends.far.is_lost


def test_a_peer_that_keeps_tcp_open_after_closing_is_cut(ends: Ends) -> None:
    ends.far.transport.pauseProducing()
    ends.carrier.write(pattern(200 * KIB))
    ends.hear(close(1000, is_masked=ends.masks))
    assert not ends.ear.is_lost
    ends.clock.advance(CLOSE_SECONDS)
    ends.run()
    assert ends.ear.was_lost_with(ConnectionDone)
    assert ends.wire.far.is_connected or ends.wire.near.is_connected
    ends.far.transport.resumeProducing()
    ends.run()
    assert ends.far.is_lost


def test_writes_after_the_peers_close_frame_are_dropped(join: Callable[..., Ends]) -> None:
    ear = Ear(on_data=lambda _: ear.transport.write(b"answer"))
    ends = join(ear)
    heard = ends.hear(frame(b"?", is_masked=ends.masks) + close(1000, is_masked=ends.masks))
    ends.carrier.write(b"nobody")
    ends.carrier.send_control(b"{}")
    ends.carrier.close(1001, "nobody")
    assert [one.opcode for one in heard] == [BINARY, CLOSE]
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionDone)
    ends.end()


# Data that waits for a paused protocol


def test_waiting_data_is_at_most_one_read(join: Callable[..., Ends]) -> None:
    ear = Ear(on_data=lambda _: ear.transport.pauseProducing())
    ends = join(ear)
    ends.hear(b"".join(frame(b"%05d" % number, is_masked=ends.masks) for number in range(50_000)))
    assert sum(map(len, ends.carrier._waiting)) <= 64 * KIB
    assert len(ear.data) <= 64 * KIB
    ear.on_data = None
    ear.transport.resumeProducing()
    run_until(ends.clock, lambda: len(ear.data) == 5 * 50_000)
    assert ear.data == b"".join(b"%05d" % number for number in range(50_000))
    assert ear.reentered == []
    ends.end()


def one_and_two(ends: Ends) -> bytes:
    """Two messages that are delivered separately, because another frame is between them."""
    return b"".join(
        frame(payload, opcode, is_masked=ends.masks)
        for payload, opcode in ((b"one", BINARY), (b"", PONG), (b"two", BINARY))
    )


def stop_reading(join: Callable[..., Ends]) -> Ends:
    """A protocol that pauses after the first of two messages, after which the peer closed normally."""
    ear = Ear(on_data=lambda _: ear.transport.pauseProducing())
    ends = join(ear)
    ends.hear(one_and_two(ends) + close(1000, is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.wire.near.resumeProducing()
    ends.run()
    assert not ends.wire.near.is_connected
    assert ear.told == ["made", "data"]
    return ends


def test_a_normal_end_waits_for_unread_data(join: Callable[..., Ends]) -> None:
    ends = stop_reading(join)
    ends.carrier.resumeProducing()
    ends.run()
    assert ends.ear.data == b"onetwo"
    assert not ends.ear.is_lost
    ends.carrier.resumeProducing()
    ends.run()
    assert ends.ear.was_lost_with(ConnectionDone)
    ends.end()


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        (["loseConnection"], ConnectionDone),
        (["abortConnection"], ConnectionAborted),
        (["loseConnection", "abortConnection"], ConnectionAborted),
    ],
)
def test_a_protocol_can_close_instead_of_reading_the_rest(
    join: Callable[..., Ends], calls: list[str], reason: type[BaseException]
) -> None:
    ends = stop_reading(join)
    source = PushSource(ends.carrier, b"")
    for count in (1, 2):
        ends.carrier.registerProducer(source, True)
        assert source.stops == count
    ends.carrier.unregisterProducer()
    with ends.ear.calling() as carrier:
        for call in calls:
            getattr(carrier, call)()
    ends.run()
    assert ends.ear.reentered == []
    assert ends.ear.data == b"one"
    assert ends.ear.was_lost_with(reason)
    ends.end()


def test_a_protocol_that_fails_over_waiting_data_is_lost(join: Callable[..., Ends], watch: Any) -> None:
    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    ends = stop_reading(join)
    ends.ear.on_data = fail
    ends.carrier.resumeProducing()
    ends.run()
    assert ends.ear.is_lost
    assert len(watch.take(ZeroDivisionError)) == 1
    ends.end()


def test_a_cut_does_not_wait_for_unread_data(join: Callable[..., Ends]) -> None:
    ear = Ear(on_data=lambda _: ear.transport.pauseProducing())
    ends = join(ear)
    ends.hear(one_and_two(ends))
    ends.far.transport.abortConnection()
    ends.wire.near.resumeProducing()
    ends.run()
    assert ear.was_lost_with(ConnectionLost)
    assert ear.data == b"one"
    ends.end()


# Timers and logs


def test_no_timer_is_on_the_global_reactor(ends: Ends) -> None:
    from twisted.internet import reactor

    before = reactor.getDelayedCalls()  # type: ignore[attr-defined]
    ends.hear(frame(b"bytes", is_masked=ends.masks), frame(b"", PING, is_masked=ends.masks))
    ends.carrier.loseConnection()
    ends.run()
    assert reactor.getDelayedCalls() == before  # type: ignore[attr-defined]
    assert [call.getTime() for call in ends.clock.getDelayedCalls()] == [CLOSE_SECONDS]


def test_an_idle_carrier_has_no_timer(ends: Ends) -> None:
    assert ends.clock.getDelayedCalls() == []


def test_requests_and_data_are_not_logged(join: Callable[..., Ends]) -> None:
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        ends = join()
        ends.carrier.write(b"SECRET")
        ends.hear(frame(b"SECRET", is_masked=ends.masks), frame(b"SECRET", 1, is_masked=not ends.masks))
        ends.clock.advance(CLOSE_SECONDS)
        ends.end()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert "SECRET" not in repr(events)
    assert not [event for event in events if str(event.get("log_namespace", "")).startswith("autobahn")]


def test_the_transport_of_the_protocol_is_the_carrier(ends: Ends) -> None:
    assert type(ends.carrier) is Carrier
    assert ends.carrier.getPeer() == ends.wire.near.getPeer() or ends.wire.far.getPeer()
