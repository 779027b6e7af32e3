"""Resets of a stream: data that precedes a reset is delivered before it, within a time limit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from seance.yamux import KIB, MIB
from tests.ears import Ear, HalfEar, PushSource, pattern
from tests.mux.peer import AgentLink
from tests.yamux.frame_bytes import FIN, RST, WINDOW, WireFrame, data, window


@pytest.fixture
def link() -> Iterator[AgentLink]:
    link = AgentLink()
    yield link
    link.end()


def credit(frames: list[WireFrame]) -> int:
    return sum(frame.length for frame in frames if frame.kind == WINDOW)


def flags(frames: list[WireFrame]) -> list[int]:
    return [frame.flags for frame in frames]


def test_reset_by_the_peer_loses_the_connection(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.write(pattern(400 * KIB))
    transport.pauseProducing()
    link.hear(window(1, RST))
    assert ear.told == ["made", "lost"]
    assert ear.was_lost_with(ConnectionLost)
    assert link.mux.stream_count == 0


def test_reset_by_the_peer_waits_for_a_paused_protocol(link: AgentLink) -> None:
    ear = HalfEar()
    transport = link.accept(ear)
    transport.pauseProducing()
    transport.write(pattern(400 * KIB))
    link.hear(data(1, b"un"), data(1, b"read", FIN), window(1, RST))
    transport.write(b"dropped")
    assert ear.told == ["made"]
    assert link.mux.stream_count == link.mux.session.stream_count == 1
    transport.resumeProducing()
    link.run()
    assert ear.told == ["made", "data", "read ended", "lost"]
    assert ear.data == b"unread"
    assert ear.was_lost_with(ConnectionLost)
    assert link.mux.stream_count == link.mux.session.stream_count == 0


def test_reset_is_reported_after_a_timeout_if_the_protocol_does_not_read(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear).pauseProducing()
    link.hear(data(1, b"unread"), window(1, RST))
    link.clock.advance(link.mux.linger_seconds - 1)
    link.run()
    assert ear.told == ["made"]
    link.clock.advance(1)
    link.run()
    assert ear.was_lost_with(ConnectionLost)
    assert ear.data == b""
    assert link.mux.stream_count == link.mux.session.stream_count == 0


def test_timeout_of_unread_data_is_suspended_without_a_carrier(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.pauseProducing()
    link.hear(data(1, b"unread"), window(1, RST))
    link.mux.pause_clock()
    link.clock.advance(link.mux.linger_seconds)
    link.mux.resume_clock()
    transport.resumeProducing()
    link.run()
    assert ear.data == b"unread"
    assert ear.was_lost_with(ConnectionLost)


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection", "resetConnection"])
def test_unread_data_before_a_reset_is_dropped_when_the_protocol_closes(link: AgentLink, how: str) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.pauseProducing()
    link.hear(data(1, b"unread"), window(1, RST))
    getattr(transport, how)()
    assert ear.told == ["made"], "not inside the call"
    link.run()
    assert ear.told == ["made", "lost"]
    assert link.mux.stream_count == link.mux.session.stream_count == 0


def test_unread_data_can_be_taken_when_the_carrier_is_lost(link: AgentLink) -> None:
    taken: list[bytes] = []

    class Taker(Ear):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            taken.append(self.transport.take_undelivered())
            super().connectionLost(reason)

    ear = Taker()
    link.accept(ear).pauseProducing()
    link.hear(data(1, b"unread"), window(1, RST))
    link.mux.connectionLost(Failure(ConnectionDone()))
    assert ear.was_lost_with(ConnectionLost)
    assert taken == [b"unread"]
    link.end()


def test_reset_connection_follows_all_written_data(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    source = PushSource(transport, pattern(1 * MIB), piece_bytes=400 * KIB)
    source.start()
    assert source.is_paused
    with ear.calling():
        transport.resetConnection()
        transport.resetConnection()
        transport.write(b"dropped")
    link.run()
    assert ear.told == ["made"]
    heard = link.hear(data(1, b"dropped, and credited"), window(1, 0, 1 * MIB))
    assert flags(heard)[-1] == RST
    assert link.peer.body(1) == pattern(source.written_bytes)
    assert ear.told == ["made", "lost"]
    assert ear.was_lost_with(ConnectionAborted)
    assert link.mux.stream_count == 0


def test_reset_connection_with_an_empty_queue_is_immediate(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear).resetConnection()
    assert ear.told == ["made"]
    link.run()
    assert flags(link.peer.take())[-1] == RST
    assert ear.was_lost_with(ConnectionAborted)


def test_reset_connection_waits_for_the_peers_window_until_the_timeout(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.write(pattern(300 * KIB))
    transport.resetConnection()
    link.run()
    link.mux.pause_clock()
    link.clock.advance(link.mux.linger_seconds)
    assert not ear.is_lost, "no time passes while the carrier is away"
    link.mux.resume_clock()
    link.clock.advance(link.mux.linger_seconds - 1)
    link.run()
    assert not ear.is_lost
    link.clock.advance(1)
    link.run()
    assert ear.was_lost_with(ConnectionAborted)
    assert flags(link.peer.take())[-1] == RST


def test_reset_connection_of_an_ended_stream_is_immediate(link: AgentLink) -> None:
    ear = HalfEar()
    transport = link.accept(ear)
    transport.loseWriteConnection()
    link.run()
    transport.resetConnection()
    link.run()
    assert flags(link.peer.take())[-1] == RST
    assert ear.was_lost_with(ConnectionAborted)


def test_abort_after_a_reset_was_sent_but_not_dispatched(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.write(pattern(400 * KIB))
    transport.resetConnection()
    transport.abortConnection()
    transport.reset_sent()  # the event of the session was waiting meanwhile
    link.run()
    assert ear.told == ["made", "lost"]
    assert ear.was_lost_with(ConnectionAborted)
    assert link.mux.stream_count == link.mux.session.stream_count == 0
