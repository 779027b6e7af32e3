"""The multiplexer on its carrier: sending, accepting, opening, and the end of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from seance.errors import LocalProtocolError
from seance.mux import Mux
from seance.yamux import KIB, MIB, GoAwayCode, Limits, Role
from tests.conftest import Watch
from tests.ears import Ear, HalfEar, pattern
from tests.mux.peer import CALM, AgentLink
from tests.rigs import OneByOne, join_muxes
from tests.wire import Wire, WireEnd, run, run_until
from tests.yamux.frame_bytes import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    RST,
    SYN,
    WINDOW,
    data,
    frame,
    go_away,
    ping,
    read_frames,
    window,
)
from tests.yamux.send_rules import SendRules


@pytest.fixture
def link() -> Iterator[AgentLink]:
    link = AgentLink()
    yield link
    link.end()


# Sending


def test_frames_of_one_turn_are_sent_in_one_message(link: AgentLink) -> None:
    before = len(link.messages)
    for number in range(5):
        link.mux.open_stream(Ear()).write(b"hello %d" % number)
    assert len(link.messages) == before
    link.run()
    assert len(link.messages) == before + 1
    frames, rest = read_frames(link.messages[-1])
    assert [frame.flags for frame in frames if frame.kind == WINDOW] == [SYN] * 5
    assert [frame.body for frame in frames if frame.kind == DATA] == [
        b"hello %d" % number for number in range(5)
    ]
    assert rest == b""


def test_a_carrier_that_accepts_larger_messages_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WireEnd, "max_message_bytes", 256 * KIB, raising=False)
    link = AgentLink(high_water_bytes=16 * MIB)
    stream = link.open(Ear(), window_bytes=8 * MIB)
    stream.write(pattern(8 * MIB))
    link.run()
    assert link.peer.body(stream.stream_id) == pattern(8 * MIB)
    assert max(map(len, link.messages)) > 200 * KIB
    link.end()


def test_every_message_is_whole_frames_of_at_most_64_kib(link: AgentLink) -> None:
    link.lift_bulk_limit()
    rules = SendRules(Role.SERVER)
    stream = link.open(Ear(), window_bytes=4 * MIB)
    stream.write(pattern(1 * MIB))
    link.run()
    assert link.peer.body(stream.stream_id) == pattern(1 * MIB)
    for message in link.messages:
        rules.sent(message, 64 * KIB)
        rules.received(window(stream.stream_id, 0, 4 * MIB))
    assert max(map(len, link.messages)) > 60 * KIB


def test_nothing_is_written_to_a_full_carrier(link: AgentLink) -> None:
    link.lift_bulk_limit()
    bulk = link.open(Ear(), window_bytes=8 * MIB)
    link.peer.transport.pauseProducing()
    bulk.write(pattern(1 * MIB))
    link.run()
    written = len(link.messages)
    held = sum(map(len, link.messages))
    assert held < 256 * KIB
    link.mux.open_stream(Ear()).write(b"small")
    bulk.write(b"more")
    link.run()
    assert len(link.messages) == written
    link.peer.transport.resumeProducing()
    link.run()
    assert link.peer.body(bulk.stream_id) == pattern(1 * MIB) + b"more"
    heard = link.peer.take()
    first = [frame.stream_id for frame in heard].index(4)
    before = sum(frame.length for frame in heard[:first] if frame.kind == DATA)
    assert before <= held, "a small stream overtakes unsent data"


def test_slow_stream_does_not_pause_the_carrier() -> None:
    clock = Clock()
    wire = Wire(clock)
    agent, relay = join_muxes(clock, wire, CALM)
    slow, quick, factory = Ear(), Ear(), OneByOne()
    factory.coming += [slow, quick]
    agent.listen(factory)
    to_slow, to_quick = relay.open_stream(Ear()), relay.open_stream(Ear())
    run(clock)
    slow.transport.pauseProducing()
    to_slow.write(pattern(1 * MIB))
    to_quick.write(pattern(1 * MIB, 1))

    def is_over() -> bool:
        assert wire.near.is_reading
        assert wire.far.is_reading
        return len(quick.data) == MIB

    run_until(clock, is_over)
    assert slow.data == b""
    assert quick.data == pattern(1 * MIB, 1)
    slow.transport.resumeProducing()
    run(clock, 500)
    assert slow.data == pattern(1 * MIB)
    wire.near.abortConnection()
    run(clock)


def test_streams_opened_before_the_carrier_wait_for_it() -> None:
    link = AgentLink(is_connected=False)
    ear = Ear()
    link.mux.open_stream(ear).write(b"early")
    link.run()
    assert ear.told == ["made"]
    link.connect()
    assert link.peer.body(2) == b"early"
    link.end()


def test_reading_continues_while_the_carrier_is_full(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    link.peer.transport.pauseProducing()
    bulk = link.mux.open_stream(Ear())
    bulk.write(pattern(250 * KIB))
    link.run()
    for number in range(40):
        link.peer.transport.write(data(1, b"%05d" % number) + ping(SYN, number))
        link.run()
    assert ear.data == b"".join(b"%05d" % number for number in range(40))
    link.peer.transport.resumeProducing()
    link.run()
    assert len(link.peer.pings) <= 40


# Accepting


def test_without_a_listener_a_stream_is_reset(link: AgentLink) -> None:
    assert not link.mux.is_listening
    assert [(frame.flags, frame.stream_id) for frame in link.hear(window(1, SYN))] == [(RST, 1)]
    link.mux.listen(OneByOne())
    assert link.mux.is_listening
    assert [(frame.flags, frame.stream_id) for frame in link.hear(window(3, SYN), data(3, b"x"))] == [
        (RST, 3)
    ]
    assert link.mux.stream_count == 0


def test_accepted_stream_is_acknowledged_immediately(link: AgentLink) -> None:
    ear = Ear()
    link.factory.coming.append(ear)
    link.mux.listen(link.factory)
    heard = link.hear(window(1, SYN), data(1, b"glued"))
    assert [(frame.flags, frame.stream_id) for frame in heard] == [(ACK, 1)]
    assert ear.data == b"glued"
    assert ear.transport.getPeer() == ear.transport.getHost()
    assert ear.transport.getPeer().stream_id == 1
    assert "127.0.0.1" in ear.transport.getPeer().link


def test_failing_factory_resets_one_stream(link: AgentLink, watch: Watch) -> None:
    class Broken(Factory):
        def buildProtocol(self, addr: object) -> Protocol:
            raise ZeroDivisionError

    link.mux.listen(Broken())
    assert [frame.flags for frame in link.hear(window(1, SYN))] == [RST]
    ear = Ear()
    link.accept(ear, 3)
    assert ear.told == ["made"]
    assert len(watch.take(ZeroDivisionError)) == 1


def test_protocol_that_fails_in_connection_made_costs_one_stream(link: AgentLink, watch: Watch) -> None:
    def fail(ear: Ear) -> None:
        raise ZeroDivisionError

    theirs, ours, good = Ear(on_made=fail), Ear(on_made=fail), Ear()
    link.accept(theirs)
    link.mux.open_stream(ours)
    link.run()
    assert theirs.was_lost_with(ZeroDivisionError)
    assert ours.was_lost_with(ZeroDivisionError)
    assert RST in [frame.flags for frame in link.peer.frames if frame.stream_id == 1]
    assert RST in [frame.flags for frame in link.peer.frames if frame.stream_id == 2]
    link.accept(good, 3)
    assert good.told == ["made"]
    assert len(watch.take(ZeroDivisionError)) == 2


# Opening


def test_open_fails_when_all_streams_are_in_use() -> None:
    link = AgentLink(Limits(streams=2, ping_after_seconds=None))
    link.mux.open_stream(Ear())
    link.mux.open_stream(Ear())
    ear = Ear()
    with pytest.raises(LocalProtocolError) as caught:
        link.mux.open_stream(ear)
    assert caught.value.code == "too_many_streams"
    assert ear.told == []
    link.end()


def test_unanswered_open_times_out(link: AgentLink) -> None:
    silent, answered = Ear(), Ear()
    link.mux.open_stream(silent)
    link.open(answered)
    link.clock.advance(CALM.open_timeout_seconds)
    link.run()
    assert silent.was_lost_with(ConnectionLost)
    assert "open_timeout" in str(silent.reasons[0].value)
    assert answered.told == ["made"]


def test_rejected_open_loses_the_connection(link: AgentLink) -> None:
    ear = Ear()
    stream = link.mux.open_stream(ear)
    link.run()
    link.hear(window(stream.stream_id, RST))
    assert ear.was_lost_with(ConnectionLost)


def test_open_fails_after_the_carrier_is_lost() -> None:
    link = AgentLink()
    link.end()
    with pytest.raises(LocalProtocolError) as caught:
        link.mux.open_stream(Ear())
    assert caught.value.code == "session_closed"
    assert link.mux.stream_count == 0


# Ending


def test_lost_carrier_loses_all_streams() -> None:
    link = AgentLink()
    reading, half, paused = Ear(), HalfEar(), Ear()
    link.accept(reading, 1)
    link.accept(half, 3)
    half.transport.loseWriteConnection()
    link.accept(paused, 5).pauseProducing()
    link.hear(data(5, b"unread"))
    link.peer.transport.loseConnection()
    link.run()
    assert reading.was_lost_with(ConnectionLost)
    assert half.was_lost_with(ConnectionLost)
    assert paused.was_lost_with(ConnectionLost)
    assert paused.data == b""
    assert len(link.lost) == 1
    assert link.lost[0].startswith("The connection below ended")
    assert link.mux.is_over
    link.mux.dataReceived(window(7, SYN))
    assert link.mux.stream_count == 0
    link.end()


def test_lost_session_releases_its_window_budget() -> None:
    """Otherwise the growth of its windows would be lost to the budget for good."""
    link = AgentLink()
    link.accept(Ear(), 1)
    link.peer.transport.loseConnection()
    link.run()
    assert link.mux.session.is_closed
    link.end()


def test_goaway_is_sent_before_the_carrier_closes_after_a_protocol_error(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    heard = link.hear(data(1, b"still good"), frame(DATA, 0, 1, 0, version=7), data(1, b"ignored"))
    assert ear.data == b"still good"
    assert ear.was_lost_with(ConnectionLost)
    assert [(frame.kind, frame.length) for frame in heard][-1:] == [(GO_AWAY, GoAwayCode.PROTOCOL_ERROR)]
    assert link.peer.was_lost_with(ConnectionDone)
    assert len(link.lost) == 1
    assert link.lost[0].startswith("The peer broke the yamux protocol")


def test_goaway_is_written_to_a_full_carrier(link: AgentLink) -> None:
    link.lift_bulk_limit()
    bulk = link.open(Ear(), window_bytes=8 * MIB)
    link.peer.transport.pauseProducing()
    bulk.write(pattern(1 * MIB))
    link.run()
    link.peer.transport.write(frame(DATA, 0, 1, 0, version=7))
    link.run()
    assert len(link.lost) == 1
    link.peer.transport.write(frame(DATA, 0, 1, 0, version=7))
    link.peer.transport.resumeProducing()
    link.run()
    assert link.peer.frames[-1].kind == GO_AWAY
    assert link.peer.is_lost


def test_writing_while_the_session_fails_is_harmless(link: AgentLink) -> None:
    ear = Ear(on_data=lambda _: ear.transport.write(b"answer"))
    link.accept(ear)
    link.hear(data(1, b"question"), frame(DATA, 0, 1, 0, version=7))
    assert ear.was_lost_with(ConnectionLost)
    assert ear.reentered == []


def test_peer_that_goes_away_keeps_its_open_streams(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    link.hear(go_away(0), data(1, b"and on"))
    assert ear.data == b"and on"
    assert link.lost == []
    with pytest.raises(LocalProtocolError) as caught:
        link.mux.open_stream(Ear())
    assert caught.value.code == "going_away"


def test_goaway_with_an_error_ends_the_session(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    link.hear(go_away(2))
    assert link.lost == ["The peer ended the session with GoAway 2"]
    assert ear.was_lost_with(ConnectionLost)
    assert link.peer.was_lost_with(ConnectionDone)


def test_going_away_lets_streams_finish(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    link.mux.go_away()
    link.run()
    assert [frame.kind for frame in link.peer.take()] == [GO_AWAY]
    link.hear(data(1, b"go on"))
    assert ear.data == b"go on"
    assert [frame.flags for frame in link.hear(window(3, SYN))] == [RST]
    assert link.lost == []


def test_leave_sends_goaway_immediately(link: AgentLink) -> None:
    stream = link.open(Ear())
    stream.write(b"the last word")
    before = len(link.messages)
    link.mux.leave()
    assert len(link.messages) > before
    stream.write(b"too late")
    link.run()
    link.mux.transport.loseConnection()
    link.run()
    assert [frame.kind for frame in link.peer.frames][-2:] == [DATA, GO_AWAY]
    assert link.peer.was_lost_with(ConnectionDone)
    link.mux.leave()


def test_leave_sends_goaway_after_all_data_that_can_be_sent(link: AgentLink) -> None:
    stream = link.open(Ear(), window_bytes=1 * MIB)
    stream.write(pattern(500 * KIB))
    link.mux.leave()
    stream.write(b"too late")
    assert read_frames(link.messages[-1])[0][-1].kind == GO_AWAY
    link.run()
    assert link.peer.frames[-1].kind == GO_AWAY


def test_leave_adds_one_message_to_a_full_carrier(link: AgentLink) -> None:
    link.lift_bulk_limit()
    bulk = link.open(Ear(), window_bytes=8 * MIB)
    link.peer.transport.pauseProducing()
    bulk.write(pattern(1 * MIB))
    link.run()
    before = len(link.messages)
    link.mux.leave()
    link.mux.transport.loseConnection()
    assert len(link.messages) == before + 1
    link.peer.transport.resumeProducing()
    link.run()
    assert link.peer.frames[-1].kind == GO_AWAY
    assert link.peer.was_lost_with(ConnectionDone)


def test_leave_without_a_carrier_does_nothing() -> None:
    link = AgentLink(is_connected=False)
    link.mux.leave()
    assert link.clock.getDelayedCalls() == []


# Time


def test_idle_peer_is_pinged() -> None:
    link = AgentLink(Limits(ping_after_seconds=5, dead_after_seconds=5))
    for _ in range(4):
        link.clock.advance(5)
        link.run()
        pings = link.peer.pings
        link.hear(ping(ACK, pings[-1].length))
    assert len(pings) == 4
    assert link.lost == []
    link.end()


def test_peer_that_does_not_answer_times_out() -> None:
    link = AgentLink(Limits(ping_after_seconds=5, dead_after_seconds=5))
    ear = Ear()
    link.accept(ear)
    link.clock.advance(5)
    link.run()
    link.clock.advance(4.9)
    link.run()
    assert link.lost == []
    link.clock.advance(0.2)
    link.run()
    assert link.lost == ["The peer is silent: no answer to a yamux ping within 5 s"]
    heard = [(frame.kind, frame.length) for frame in link.peer.frames]
    assert heard[-1] == (GO_AWAY, GoAwayCode.PROTOCOL_ERROR), "the peer gets the reason"
    assert ear.was_lost_with(ConnectionLost)
    assert link.peer.was_lost_with(ConnectionDone)
    link.end()


def test_earliest_deadline_counts() -> None:
    link = AgentLink(Limits(ping_after_seconds=60, open_timeout_seconds=10))
    ear = Ear()
    link.mux.open_stream(ear)
    link.run()
    assert [call.getTime() for call in link.clock.getDelayedCalls()] == [10]
    link.clock.advance(10)
    link.run()
    assert ear.was_lost_with(ConnectionLost)
    assert [call.getTime() for call in link.clock.getDelayedCalls()] == [60]
    link.end()


def test_session_without_a_carrier_times_out() -> None:
    link = AgentLink(Limits(ping_after_seconds=5, dead_after_seconds=5), is_connected=False)
    ear = Ear()
    link.mux.open_stream(ear)
    for _ in range(3):
        link.clock.advance(5)
    assert link.lost == ["The peer is silent: no answer to a yamux ping within 5 s"]
    assert ear.was_lost_with(ConnectionLost)
    assert link.clock.getDelayedCalls() == []


def test_description_contains_no_payload(link: AgentLink) -> None:
    link.open(Ear()).write(b"secret")
    assert "1 streams" in link.mux.describe()
    assert "secret" not in link.mux.describe()
    assert "nothing" in Mux(link.clock, Role.SERVER).describe()  # type: ignore[arg-type]


def test_leave_inside_data_received(link: AgentLink) -> None:
    ear = HalfEar(on_data=lambda _: link.mux.leave())
    link.accept(ear)
    link.hear(data(1, b"one"), data(1, b"two"), data(1, b"three", FIN))
    assert ear.data == b"onetwothree"
    assert ear.told == ["made", "data", "read ended"]
    assert GO_AWAY in [frame.kind for frame in link.peer.frames]
