"""Behaviour of a stream beyond the transport contract: credit, lingering, aborts and producers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from seance.yamux import KIB, MIB, Limits
from tests.conftest import Watch
from tests.ears import Ear, HalfEar, PushSource, pattern
from tests.mux.peer import AgentLink
from tests.yamux.frame_bytes import DATA, FIN, RST, SYN, WINDOW, WireFrame, data, window


@pytest.fixture
def link() -> Iterator[AgentLink]:
    link = AgentLink()
    yield link
    link.end()


def credit(frames: list[WireFrame]) -> int:
    return sum(frame.length for frame in frames if frame.kind == WINDOW)


def flags(frames: list[WireFrame]) -> list[int]:
    return [frame.flags for frame in frames]


# Credit


def test_credit_is_returned_for_delivered_data(link: AgentLink) -> None:
    link.accept(Ear())
    assert credit(link.hear(data(1, pattern(200 * KIB)))) == 200 * KIB


def test_paused_protocol_returns_no_credit(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear).pauseProducing()
    assert link.hear(data(1, pattern(200 * KIB))) == []
    assert ear.data == b""


def test_credit_is_returned_after_resuming(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.pauseProducing()
    link.hear(data(1, pattern(200 * KIB)))
    transport.resumeProducing()
    link.run()
    assert ear.data == pattern(200 * KIB)
    assert credit(link.peer.take()) == 200 * KIB


def test_protocol_that_pauses_after_each_piece_returns_credit_for_it(link: AgentLink) -> None:
    ear = Ear(on_data=lambda _: ear.transport.pauseProducing())
    transport = link.accept(ear)
    link.hear(data(1, pattern(100 * KIB)), data(1, pattern(100 * KIB, 1)))
    pieces = 1
    while len(ear.data) < 200 * KIB:
        assert credit(link.peer.frames) <= len(ear.data)
        before = len(ear.data)
        transport.resumeProducing()
        link.run()
        assert len(ear.data) > before
        pieces += 1
    assert pieces > 1
    assert ear.data == pattern(100 * KIB) + pattern(100 * KIB, 1)
    assert credit(link.peer.frames) > 100 * KIB


def test_resuming_without_pause_does_nothing(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.resumeProducing()
    assert link.clock.getDelayedCalls() == []
    transport.pauseProducing()
    transport.resumeProducing()
    assert link.clock.getDelayedCalls() == []


def test_stream_paused_again_before_delivery_delivers_nothing(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.pauseProducing()
    link.hear(data(1, b"wait", FIN))
    transport.resumeProducing()
    transport.pauseProducing()
    link.run()
    assert ear.told == ["made"]
    transport.resumeProducing()
    link.run()
    assert ear.told == ["made", "data", "lost"]


# After loseConnection


def test_data_after_closing_does_not_cut_off_the_last_writes(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear, window_bytes=0)
    transport.write(pattern(400 * KIB))
    transport.loseConnection()
    link.run()
    heard = link.hear(data(1, pattern(100 * KIB)))
    assert RST not in flags(heard)
    link.hear(window(1, 0, 400 * KIB))
    assert link.peer.body(1) == pattern(400 * KIB)
    assert link.peer.frames[-1].flags == FIN
    assert ear.told == ["made", "lost"]
    assert ear.was_lost_with(ConnectionDone)


def test_data_after_closing_is_credited(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.pauseProducing()
    link.hear(data(1, pattern(200 * KIB)))
    transport.loseConnection()
    link.run()
    assert ear.was_lost_with(ConnectionDone)
    assert credit(link.peer.take()) == 200 * KIB
    assert credit(link.hear(data(1, pattern(200 * KIB)))) == 200 * KIB
    assert link.mux.stream_count == 1
    link.hear(data(1, b"the end", FIN))
    assert link.mux.stream_count == 0
    assert link.clock.getDelayedCalls() == []


def test_closed_stream_waits_for_the_peers_end_until_the_timeout(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    transport.loseConnection()
    link.run()
    assert ear.was_lost_with(ConnectionDone)
    assert flags(link.peer.take()) == [FIN]
    link.clock.advance(29.9)
    link.run()
    assert link.peer.take() == []
    assert link.mux.stream_count == 1
    link.clock.advance(0.2)
    link.run()
    assert flags(link.peer.take()) == [RST]
    assert link.mux.stream_count == 0


def test_aborting_a_lingering_stream_resets_it(link: AgentLink) -> None:
    transport = link.accept(Ear())
    transport.loseConnection()
    link.run()
    link.peer.take()
    transport.abortConnection()
    link.run()
    assert flags(link.peer.take()) == [RST]
    assert link.mux.stream_count == 0
    assert link.clock.getDelayedCalls() == []


def test_reset_by_the_peer_ends_the_lingering(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear).loseConnection()
    link.run()
    link.hear(window(1, RST))
    assert link.mux.stream_count == 0
    assert link.clock.getDelayedCalls() == []
    assert ear.was_lost_with(ConnectionDone)


def test_lost_carrier_ends_the_lingering() -> None:
    link = AgentLink()
    link.accept(Ear()).loseConnection()
    link.run()
    link.end()


def test_no_lingering_for_a_peer_that_has_ended(link: AgentLink) -> None:
    ear = HalfEar()
    transport = link.accept(ear)
    link.hear(data(1, b"all", FIN))
    transport.loseConnection()
    link.run()
    assert ear.was_lost_with(ConnectionDone)
    assert link.mux.stream_count == 0
    assert link.clock.getDelayedCalls() == []


def test_closing_waits_for_a_producer_and_its_last_data(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    source = PushSource(transport, b"")
    transport.registerProducer(source, True)
    transport.loseConnection()
    link.run()
    assert FIN not in flags(link.peer.take())
    transport.write(b"the last words")
    transport.unregisterProducer()
    link.run()
    assert link.peer.body(1) == b"the last words"
    assert ear.was_lost_with(ConnectionDone)
    assert source.stops == 0


# Halves


def test_the_end_of_the_write_half_waits_for_the_window(link: AgentLink) -> None:
    ear = HalfEar()
    transport = link.accept(ear)
    transport.write(pattern(300 * KIB))
    transport.loseWriteConnection()
    transport.loseWriteConnection()
    transport.write(b"dropped")
    link.run()
    assert ear.told == ["made"]
    assert flags(link.hear(window(1, 0, 1 * MIB)))[-1] == FIN
    assert ear.told == ["made", "write ended"]
    assert link.peer.body(1) == pattern(300 * KIB)
    link.hear(data(1, b"answer", FIN))
    assert ear.told == ["made", "write ended", "data", "read ended", "lost"]
    assert ear.was_lost_with(ConnectionDone)


def test_protocol_without_half_close_can_end_its_half(link: AgentLink) -> None:
    ear = Ear()
    link.accept(ear).loseWriteConnection()
    link.run()
    assert flags(link.peer.take())[-1] == FIN
    link.hear(data(1, b"answer"))
    assert ear.told == ["made", "data"]
    link.hear(data(1, b"", FIN))
    assert ear.was_lost_with(ConnectionDone)


def test_half_closeable_descriptor_methods(link: AgentLink) -> None:
    ear = HalfEar()
    transport = link.accept(ear)
    transport.readConnectionLost(Failure(ConnectionDone()))
    transport.writeConnectionLost(Failure(ConnectionDone()))
    assert ear.told == ["made", "read ended", "write ended", "lost"]
    transport.loseWriteConnection()
    assert ear.was_lost_with(ConnectionDone)


def test_peers_end_stops_a_producer_before_the_queue_is_sent(link: AgentLink) -> None:
    ear = Ear()
    transport = link.accept(ear)
    source = PushSource(transport, pattern(1 * MIB))
    source.start()
    link.run()
    heard = link.hear(data(1, b"all", FIN))
    assert source.stops == 1
    assert not ear.is_lost
    assert FIN not in flags(heard)
    link.hear(window(1, 0, 1 * MIB))
    assert link.peer.body(1) == pattern(source.written_bytes)
    assert ear.was_lost_with(ConnectionDone)


# Aborts


def test_frames_of_one_read_are_delivered_together(link: AgentLink) -> None:
    pieces: list[bytes] = []
    first, second = Ear(on_data=pieces.append), Ear(on_data=pieces.append)
    link.accept(first)
    link.accept(second, 3)
    link.hear(data(1, b"a"), data(1, b"b"), data(3, b"c"), data(3, b"d"), data(1, b"e"))
    assert pieces == [b"abe", b"cd"]


class Gatherer(Ear):
    """An ear that accepts pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[type]] = []

    def dataReceived(self, data: bytes) -> None:
        self.calls.append([type(data)])
        super().dataReceived(data)

    def pieces_received(self, pieces: list[bytes | memoryview], count: int) -> None:
        self.calls.append([type(piece) for piece in pieces])
        assert sum(map(len, pieces)) == count
        super().dataReceived(b"".join(pieces))


def test_large_pieces_are_delivered_without_a_join_to_a_protocol_that_accepts_them(link: AgentLink) -> None:
    ear, plain = Gatherer(), Ear()
    stream = link.accept(ear)
    link.accept(plain, 3)
    large, small = pattern(10 * KIB), b"small"
    link.hear(data(1, large), data(3, large), data(1, large), data(3, large))
    link.hear(data(1, large))
    link.hear(data(1, small), data(1, small))
    assert ear.calls == [[memoryview, memoryview], [memoryview], [bytes]]
    assert ear.data == 3 * large + 2 * small
    assert plain.data == 2 * large
    stream.pauseProducing()
    link.hear(data(1, large), data(1, large))
    stream.resumeProducing()
    link.run()
    assert ear.calls[3:] == [[bytes]]
    assert ear.data == 3 * large + 2 * small + 2 * large


def test_pieces_are_credited_like_other_data(link: AgentLink) -> None:
    link.accept(Gatherer())
    assert credit(link.hear(*[data(1, pattern(40 * KIB))] * 5)) == 200 * KIB


def test_failure_in_pieces_received_resets_the_stream(link: AgentLink, watch: Watch) -> None:
    class Failing(Gatherer):
        def pieces_received(self, pieces: list[bytes | memoryview], count: int) -> None:
            raise ZeroDivisionError

    link.accept(Failing())
    assert flags(link.hear(data(1, pattern(40 * KIB)), data(1, pattern(40 * KIB)))) == [RST]
    assert len(watch.take(ZeroDivisionError)) == 1


def test_nothing_is_delivered_after_aborting(link: AgentLink) -> None:
    ear = HalfEar(on_data=lambda _: ear.transport.abortConnection())
    link.accept(ear)
    link.accept(Ear(), 3)
    heard = link.hear(data(1, b"one"), window(5, SYN), data(1, b"two"), data(1, b"three", FIN))
    assert ear.data == b"one"
    assert ear.told == ["made", "data", "lost"]
    assert ear.was_lost_with(ConnectionAborted)
    assert flags(heard)[-1] == RST


def test_aborted_stream_reports_the_abort_if_the_carrier_is_lost() -> None:
    link = AgentLink()
    ear = Ear()
    link.accept(ear).abortConnection()
    link.mux.connectionLost(Failure(ConnectionDone()))
    link.end()
    assert ear.was_lost_with(ConnectionAborted)


def test_aborting_drops_a_pending_end(link: AgentLink) -> None:
    ear = HalfEar()
    transport = link.accept(ear)
    transport.loseWriteConnection()
    transport.abortConnection()
    transport.loseWriteConnection()
    transport.unregisterProducer()
    link.run()
    assert ear.told == ["made", "lost"]
    assert ear.was_lost_with(ConnectionAborted)


def test_full_send_queue_resets_the_stream_alone() -> None:
    link = AgentLink(Limits(send_queue_bytes=1 * MIB, ping_after_seconds=None))
    greedy, other = Ear(), Ear()
    transport = link.accept(greedy, 1)
    link.accept(other, 3)
    with greedy.calling():
        transport.write(pattern(1 * MIB))
        transport.write(b"one more")
        transport.write(b"dropped")
    link.run()
    assert greedy.reentered == []
    assert greedy.was_lost_with(ConnectionLost)
    assert "1048576" in str(greedy.reasons[0].value)
    assert flags([frame for frame in link.peer.frames if frame.stream_id == 1])[-1] == RST
    assert other.told == ["made"]
    link.end()


# Producers


def test_producer_registered_on_a_full_stream_is_paused(link: AgentLink) -> None:
    transport = link.accept(Ear())
    transport.write(pattern(400 * KIB))
    link.run()
    source = PushSource(transport, b"more")
    transport.registerProducer(source, True)
    assert source.is_paused
    assert source.written_bytes == 0
    link.hear(window(1, 0, 1 * MIB))
    assert link.peer.body(1) == pattern(400 * KIB) + b"more"


def test_unregistered_producer_leaves_no_pause(link: AgentLink) -> None:
    transport = link.accept(Ear())
    transport.registerProducer(PushSource(transport, b""), True)
    transport.write(pattern(400 * KIB))
    transport.unregisterProducer()
    link.hear(window(1, 0, 1 * MIB))
    source = PushSource(transport, b"more")
    source.start()
    link.run()
    assert source.pauses == 0
    assert link.peer.body(1) == pattern(400 * KIB) + b"more"


class Teller:
    """A pull producer that writes the given data, one piece per request."""

    def __init__(self, *says: list[bytes]) -> None:
        self.says = list(says)
        self.asked = 0
        self.stops = 0

    def start(self, transport: object) -> None:
        self.transport = transport
        transport.registerProducer(self, False)  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        self.asked += 1
        for piece in self.says.pop(0) if self.says else []:
            self.transport.write(piece)  # type: ignore[attr-defined]

    def stopProducing(self) -> None:
        self.stops += 1


def test_pull_producer_is_asked_once_per_write(link: AgentLink) -> None:
    teller = Teller([b"one"], [b"two", b"three"], [], [b"never asked for"])
    transport = link.accept(Ear())
    teller.start(transport)
    assert teller.asked == 1
    link.run()
    assert teller.asked == 3
    assert link.peer.body(1) == b"onetwothree"
    transport.write(b"by the way")
    link.run()
    assert teller.asked == 5
    assert link.clock.getDelayedCalls() == []


def test_pull_producer_waits_for_the_peers_window(link: AgentLink) -> None:
    teller = Teller([pattern(200 * KIB)], [pattern(200 * KIB, 1)], [b"end"])
    teller.start(link.accept(Ear()))
    link.run()
    assert teller.asked == 2
    link.hear(window(1, 0, 1 * MIB))
    assert teller.asked == 4
    assert link.peer.body(1) == pattern(200 * KIB) + pattern(200 * KIB, 1) + b"end"


def test_pull_producer_is_not_asked_while_the_queue_is_full(link: AgentLink) -> None:
    teller = Teller([b"one"], [b"two"])
    transport = link.accept(Ear())
    teller.start(transport)
    transport.write(pattern(400 * KIB))
    link.run()
    assert teller.asked == 1
    link.hear(window(1, 0, 1 * MIB))
    assert teller.asked == 3
    assert link.peer.body(1) == b"one" + pattern(400 * KIB) + b"two"


def test_pull_producer_registered_on_a_full_stream_waits(link: AgentLink) -> None:
    transport = link.accept(Ear())
    transport.write(pattern(400 * KIB))
    teller = Teller([b"more"])
    teller.start(transport)
    link.run()
    assert teller.asked == 0
    link.hear(window(1, 0, 1 * MIB))
    assert teller.asked == 2
    assert link.peer.body(1).endswith(b"more")


def test_pull_producer_is_stopped_when_its_stream_is_aborted(link: AgentLink) -> None:
    transport = link.accept(Ear())
    teller = Teller([b"one"])
    teller.start(transport)
    transport.abortConnection()
    link.run()
    assert (teller.asked, teller.stops) == (1, 1)


@pytest.mark.parametrize("is_streaming", [True, False])
def test_failing_producer_costs_one_stream(link: AgentLink, watch: Watch, is_streaming: bool) -> None:
    class Broken(Teller):
        def pauseProducing(self) -> None:
            pass

        def resumeProducing(self) -> None:
            if self.asked or is_streaming:
                raise ZeroDivisionError
            super().resumeProducing()

        def stopProducing(self) -> None:
            raise ZeroDivisionError

    failing, other = Ear(), Ear()
    transport = link.accept(failing, 1)
    link.accept(other, 3)
    broken = Broken([pattern(400 * KIB)])
    broken.transport = transport
    transport.registerProducer(broken, is_streaming)
    if is_streaming:
        transport.write(pattern(400 * KIB))
    other.transport.write(b"unharmed")
    link.hear(window(1, 0, 1 * MIB))
    assert failing.was_lost_with(ZeroDivisionError)
    assert link.peer.body(3) == b"unharmed"
    assert len(watch.take(ZeroDivisionError)) == 2


@pytest.mark.parametrize("name", ["readConnectionLost", "writeConnectionLost"])
def test_protocol_that_fails_at_a_half_close_is_reset(link: AgentLink, watch: Watch, name: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    ear = HalfEar()
    setattr(ear, name, fail)
    transport = link.accept(ear)
    if name == "writeConnectionLost":
        transport.loseWriteConnection()
        link.run()
    else:
        link.hear(data(1, b"all", FIN))
    assert flags(link.peer.frames)[-1] == RST
    assert ear.was_lost_with(ZeroDivisionError)
    assert len(watch.take(ZeroDivisionError)) == 1


def test_write_rejects_other_types_than_bytes(link: AgentLink) -> None:
    transport = link.accept(Ear())
    for wrong in ("text", bytearray(b"x"), memoryview(b"x"), None):
        with pytest.raises(TypeError, match="bytes"):
            transport.write(wrong)
    link.run()
    assert [frame for frame in link.peer.frames if frame.kind == DATA] == []
