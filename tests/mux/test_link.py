"""The protocol over the carrier: what leaves when, how the session ends, and what that means for streams."""

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
from tests.wire import Wire, run, run_until
from tests.yamux.frame_bytes import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    RST,
    SYN,
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


# What leaves


def test_what_one_turn_produces_leaves_in_one_message(link: AgentLink) -> None:
    before = len(link.messages)
    for number in range(5):
        link.mux.open_stream(Ear()).write(b"hello %d" % number)
    assert len(link.messages) == before
    link.run()
    assert len(link.messages) == before + 1
    frames, rest = read_frames(link.messages[-1])
    assert [frame.flags for frame in frames if frame.kind != DATA] == [SYN] * 5
    assert [frame.body for frame in frames if frame.kind == DATA] == [
        b"hello %d" % number for number in range(5)
    ]
    assert rest == b""


def test_every_message_is_whole_frames_of_at_most_64_kib(link: AgentLink) -> None:
    rules = SendRules(Role.SERVER)
    stream = link.open(Ear(), window_bytes=4 * MIB)
    stream.write(pattern(1 * MIB))
    link.run()
    assert link.peer.body(stream.stream_id) == pattern(1 * MIB)
    for message in link.messages:
        rules.sent(message, 64 * KIB)
        rules.received(window(stream.stream_id, 0, 4 * MIB))
    assert max(map(len, link.messages)) > 60 * KIB


def test_while_the_carrier_is_full_nothing_is_written(link: AgentLink) -> None:
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
    assert before <= held, "a small stream overtakes what has not left"


def test_one_slow_stream_never_stops_the_carrier() -> None:
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


def test_streams_opened_before_there_is_a_carrier_wait_for_it() -> None:
    link = AgentLink(is_connected=False)
    ear = Ear()
    link.mux.open_stream(ear).write(b"early")
    link.run()
    assert ear.told == ["made"]
    link.connect()
    assert link.peer.body(2) == b"early"
    link.end()


def test_reading_goes_on_while_nothing_can_be_written(link: AgentLink) -> None:
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


# Who takes streams


def test_without_a_listener_a_stream_is_reset(link: AgentLink) -> None:
    assert not link.mux.is_listening
    assert [(frame.flags, frame.stream_id) for frame in link.hear(window(1, SYN))] == [(RST, 1)]
    link.mux.listen(OneByOne())
    assert link.mux.is_listening
    assert [(frame.flags, frame.stream_id) for frame in link.hear(window(3, SYN), data(3, b"x"))] == [
        (RST, 3)
    ]
    assert link.mux.stream_count == 0


def test_a_stream_that_a_protocol_takes_is_acknowledged_at_once(link: AgentLink) -> None:
    ear = Ear()
    link.factory.coming.append(ear)
    link.mux.listen(link.factory)
    heard = link.hear(window(1, SYN), data(1, b"glued"))
    assert [(frame.flags, frame.stream_id) for frame in heard] == [(ACK, 1)]
    assert ear.data == b"glued"
    assert ear.transport.getPeer() == ear.transport.getHost()
    assert ear.transport.getPeer().stream_id == 1
    assert "127.0.0.1" in ear.transport.getPeer().link


def test_a_failing_factory_costs_one_stream(link: AgentLink, watch: Watch) -> None:
    class Broken(Factory):
        def buildProtocol(self, addr: object) -> Protocol:
            raise ZeroDivisionError

    link.mux.listen(Broken())
    assert [frame.flags for frame in link.hear(window(1, SYN))] == [RST]
    ear = Ear()
    link.accept(ear, 3)
    assert ear.told == ["made"]
    assert len(watch.take(ZeroDivisionError)) == 1


def test_a_protocol_that_fails_at_its_beginning_costs_one_stream(link: AgentLink, watch: Watch) -> None:
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


def test_an_open_is_refused_when_all_streams_are_in_use() -> None:
    link = AgentLink(Limits(streams=2, ping_after_seconds=None))
    link.mux.open_stream(Ear())
    link.mux.open_stream(Ear())
    ear = Ear()
    with pytest.raises(LocalProtocolError) as caught:
        link.mux.open_stream(ear)
    assert caught.value.code == "too_many_streams"
    assert ear.told == []
    link.end()


def test_an_open_that_nobody_answers_is_given_up(link: AgentLink) -> None:
    silent, answered = Ear(), Ear()
    link.mux.open_stream(silent)
    link.open(answered)
    link.clock.advance(CALM.open_timeout_seconds)
    link.run()
    assert silent.was_lost_with(ConnectionLost)
    assert "open_timeout" in str(silent.reasons[0].value)
    assert answered.told == ["made"]


def test_a_refused_open_is_a_lost_connection(link: AgentLink) -> None:
    ear = Ear()
    stream = link.mux.open_stream(ear)
    link.run()
    link.hear(window(stream.stream_id, RST))
    assert ear.was_lost_with(ConnectionLost)


def test_after_the_carrier_nothing_can_be_opened() -> None:
    link = AgentLink()
    link.end()
    with pytest.raises(LocalProtocolError) as caught:
        link.mux.open_stream(Ear())
    assert caught.value.code == "session_closed"
    assert link.mux.stream_count == 0


# How it ends


def test_a_lost_carrier_is_lost_streams() -> None:
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


def test_a_lost_session_is_over_for_the_budget_of_the_process_too() -> None:
    """Otherwise what its windows had grown would be missing for ever."""
    link = AgentLink()
    link.accept(Ear(), 1)
    link.peer.transport.loseConnection()
    link.run()
    assert link.mux.session.is_closed
    link.end()


def test_a_peer_that_breaks_the_protocol_is_told_before_the_carrier_closes(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    heard = link.hear(data(1, b"still good"), frame(DATA, 0, 1, 0, version=7), data(1, b"ignored"))
    assert ear.data == b"still good"
    assert ear.was_lost_with(ConnectionLost)
    assert [(frame.kind, frame.length) for frame in heard][-1:] == [(GO_AWAY, GoAwayCode.PROTOCOL_ERROR)]
    assert link.peer.was_lost_with(ConnectionDone)
    assert len(link.lost) == 1
    assert link.lost[0].startswith("The peer broke the yamux protocol")


def test_the_goaway_goes_out_into_a_full_carrier_too(link: AgentLink) -> None:
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


def test_a_protocol_that_writes_while_the_session_breaks_does_no_harm(link: AgentLink) -> None:
    ear = Ear(on_data=lambda _: ear.transport.write(b"answer"))
    link.accept(ear)
    link.hear(data(1, b"question"), frame(DATA, 0, 1, 0, version=7))
    assert ear.was_lost_with(ConnectionLost)
    assert ear.reentered == []


def test_a_peer_that_leaves_opens_and_takes_nothing_but_goes_on(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear)
    link.hear(go_away(0), data(1, b"and on"))
    assert ear.data == b"and on"
    assert link.lost == []
    with pytest.raises(LocalProtocolError) as caught:
        link.mux.open_stream(Ear())
    assert caught.value.code == "going_away"


def test_a_goaway_with_an_error_is_the_end(link: AgentLink) -> None:
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


def test_leaving_says_so_at_once(link: AgentLink) -> None:
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


def test_leaving_comes_after_all_that_can_leave_before(link: AgentLink) -> None:
    stream = link.open(Ear(), window_bytes=1 * MIB)
    stream.write(pattern(500 * KIB))
    link.mux.leave()
    stream.write(b"too late")
    assert read_frames(link.messages[-1])[0][-1].kind == GO_AWAY
    link.run()
    assert link.peer.frames[-1].kind == GO_AWAY


def test_leaving_a_full_carrier_adds_one_message(link: AgentLink) -> None:
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


def test_leaving_before_there_is_a_carrier_is_nothing() -> None:
    link = AgentLink(is_connected=False)
    link.mux.leave()
    assert link.clock.getDelayedCalls() == []


# Time


def test_a_peer_is_asked_for_a_sign_of_life_and_may_give_it() -> None:
    link = AgentLink(Limits(ping_after_seconds=5, dead_after_seconds=5))
    for _ in range(4):
        link.clock.advance(5)
        link.run()
        pings = link.peer.pings
        link.hear(ping(ACK, pings[-1].length))
    assert len(pings) == 4
    assert link.lost == []
    link.end()


def test_a_peer_that_gives_none_is_dead() -> None:
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
    assert heard[-1] == (GO_AWAY, GoAwayCode.PROTOCOL_ERROR), "it is told why"
    assert ear.was_lost_with(ConnectionLost)
    assert link.peer.was_lost_with(ConnectionDone)
    link.end()


def test_the_earliest_of_all_deadlines_counts() -> None:
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


def test_a_session_without_a_carrier_dies_of_age_too() -> None:
    link = AgentLink(Limits(ping_after_seconds=5, dead_after_seconds=5), is_connected=False)
    ear = Ear()
    link.mux.open_stream(ear)
    for _ in range(3):
        link.clock.advance(5)
    assert link.lost == ["The peer is silent: no answer to a yamux ping within 5 s"]
    assert ear.was_lost_with(ConnectionLost)
    assert link.clock.getDelayedCalls() == []


def test_a_link_can_be_described_without_saying_what_passes(link: AgentLink) -> None:
    link.open(Ear()).write(b"secret")
    assert "1 streams" in link.mux.describe()
    assert "secret" not in link.mux.describe()
    assert "nothing" in Mux(link.clock, Role.SERVER).describe()  # type: ignore[arg-type]


def test_a_protocol_may_leave_from_inside_data_received(link: AgentLink) -> None:
    ear = HalfEar(on_data=lambda _: link.mux.leave())
    link.accept(ear)
    link.hear(data(1, b"one"), data(1, b"two"), data(1, b"three", FIN))
    assert ear.data == b"onetwothree"
    assert ear.told == ["made", "data", "read ended"]
    assert GO_AWAY in [frame.kind for frame in link.peer.frames]
