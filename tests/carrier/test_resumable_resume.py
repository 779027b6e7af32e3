"""A resumable transport whose WebSockets are cut and replaced."""

from __future__ import annotations

import random
from zlib import crc32

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost

from seance.carrier import CarrierProtocol
from seance.errors import LocalProtocolError, RemoteProtocolError
from tests.carrier.resumable_pair import ResumablePair
from tests.conftest import Watch
from tests.ears import Ear, PullSource, PushSource, pattern

KIB = 1024


def story(seed: int, *, seconds: float = 60.0) -> ResumablePair:
    """Data in both directions at full speed, with cuts at random times."""
    dice = random.Random(seed)
    texts = pattern(300 * KIB, 1), pattern(260 * KIB, 2)
    near, far = Ear(), Ear()
    pair = ResumablePair(
        near,
        far,
        kept_bytes=dice.choice([10, 50, 200]) * KIB,
        chop_bytes=dice.choice([64 * KIB, 5000, 997]),
        seed=seed,
        room_bytes=dice.choice([64, 16]) * KIB,
        high_water_bytes=dice.choice([64, 8]) * KIB,
        latency_seconds=0.002,
    ).open()
    sources = [
        PushSource(resumable, text, piece_bytes=dice.choice([100, 1000, 16 * KIB]))
        for resumable, text in zip((pair.near, pair.far), texts, strict=True)
    ]
    for source in sources:
        source.start()
    cuts = 0
    while near.data != texts[1] or far.data != texts[0]:
        assert pair.clock.seconds() < seconds, (
            f"seed {seed}: {len(near.data)} and {len(far.data)} bytes arrived"
        )
        for _ in range(dice.randint(1, 40)):
            pair.clock.advance(dice.choice([0.001, 0.001, 0.002, 0.02]))
        for source, resumable in zip(sources, (pair.near, pair.far), strict=True):
            assert resumable.continuity.outgoing.kept_bytes < 217 * KIB
            assert source.is_paused or source.is_over or resumable.is_attached
        assert texts[1].startswith(bytes(near.data))
        assert texts[0].startswith(bytes(far.data))
        if cuts < 25 and (cuts == 0 or dice.random() < 0.5):
            cuts += 1
            end = pair.wires[-1].near if dice.random() < 0.5 else pair.wires[-1].far
            end.abortConnection()  # the other end may notice the cut, or get a new carrier first
            for _ in range(dice.randint(0, 6)):
                pair.clock.advance(0.001)
            pair.open()
    assert near.told == far.told == ["made", "data"]
    return pair


@pytest.mark.parametrize("seed", range(12))
def test_cuts_at_any_time_lose_and_duplicate_no_data(seed: int) -> None:
    pair = story(seed)
    pair.pass_time(1)
    assert len(pair.wires) > 1
    for resumable in (pair.near, pair.far):
        assert resumable.continuity.outgoing.kept_bytes == 0, "all data is acknowledged"
    pair.end()


@pytest.mark.slow
def test_many_more_random_cuts() -> None:
    for seed in range(100, 250):
        story(seed).end()


# One cut


def test_protocol_does_not_notice_a_cut() -> None:
    pair = ResumablePair().open()
    pair.near.write(b"before")
    pair.run()
    pair.cut()
    pair.run()
    assert sorted(name for name, _ in pair.detached) == ["far", "near"]
    assert not pair.near.is_attached
    pair.near.write(b" while away")
    pair.far.write(b"the other way")
    pair.open()
    pair.near.write(b" after")
    pair.run()
    assert pair.far_ear.data == b"before while away after"
    assert pair.near_ear.data == b"the other way"
    assert pair.near_ear.told == pair.far_ear.told == ["made", "data"]
    pair.end()
    assert pair.near_ear.was_lost_with(ConnectionLost)


def test_data_in_flight_at_a_cut_is_sent_again_once() -> None:
    for turns in range(6):
        pair = ResumablePair(chop_bytes=7, latency_seconds=0.001).open()
        for number in range(10):
            pair.far.write(b"%d" % number)
        pair.run(turns)
        pair.cut()
        pair.run()
        assert b"0123456789".startswith(bytes(pair.near_ear.data))
        assert len(pair.near_ear.data) < 10
        pair.open()
        pair.run()
        assert pair.near_ear.data == b"0123456789"
        pair.end()


def test_producer_is_paused_while_there_is_no_carrier() -> None:
    pair = ResumablePair().open()
    source = PushSource(pair.near, b"")
    pair.near.registerProducer(source, True)
    pair.cut()
    pair.run()
    assert source.is_paused
    pair.open()
    assert not source.is_paused
    pair.end()


def test_producer_registered_without_a_carrier_is_paused_immediately() -> None:
    pair = ResumablePair().open()
    pair.cut()
    pair.run()
    source = PushSource(pair.near, b"all of it")
    pair.near.registerProducer(source, True)
    assert source.is_paused
    pair.open()
    pair.run()
    assert pair.far_ear.data == b"all of it"
    pair.end()


def test_producer_is_paused_from_begin_until_join() -> None:
    pair = ResumablePair().open()
    source = PushSource(pair.far, b"")
    pair.far.registerProducer(source, True)
    epoch = pair.far.begin(0, 0)
    assert source.is_paused
    pair.far.give_up(epoch)
    pair.end()


def test_pull_producer_goes_on_over_the_next_carrier() -> None:
    pair = ResumablePair().open()
    pieces = [pattern(1000, number) for number in range(300)]
    text = b"".join(pieces)
    PullSource(pair.near, pieces).start()
    for _ in range(8):
        pair.run(10)
        pair.cut()
        pair.run()
        left = len(pieces)
        pair.run()
        assert len(pieces) == left
        pair.open()
    pair.run(400)
    assert pair.far_ear.data == text
    pair.end()


def test_protocol_that_was_paused_stays_paused_over_the_next_carrier() -> None:
    pair = ResumablePair().open()
    pair.far.pauseProducing()
    pair.near.write(b"not yet")
    pair.run()
    pair.cut()
    pair.run()
    pair.open()
    pair.run()
    assert pair.far_ear.data == b""
    pair.far.resumeProducing()
    pair.run()
    assert pair.far_ear.data == b"not yet"
    pair.end()


def test_delayed_acknowledgement_is_not_sent_on_the_next_carrier() -> None:
    pair = ResumablePair().open()
    pair.near.write(b"hello")
    pair.run()
    pair.cut()
    pair.run()
    assert pair.clock.getDelayedCalls() == [], "neither heartbeat nor acknowledgement has a timer"
    pair.open()
    assert pair.near.continuity.outgoing.kept_bytes == 0, "the handshake contained it"
    pair.end()


def test_close_right_after_a_cut_sends_earlier_data() -> None:
    pair = ResumablePair(room_bytes=8 * KIB, high_water_bytes=8 * KIB, latency_seconds=0.001).open()
    pair.cut()
    pair.run()
    text = pattern(500 * KIB)
    pair.near.write(text)
    pair.connect()
    pair.until(lambda: pair.near.is_attached)
    assert len(pair.far_ear.data) < len(text)
    pair.near.loseConnection()
    pair.run(1000)
    assert pair.far_ear.data == text
    assert pair.far_ear.was_lost_with(ConnectionDone)
    pair.end()


def test_large_counts_work() -> None:
    pair = ResumablePair()
    for resumable in (pair.near, pair.far):
        for half in (resumable.continuity.outgoing, resumable.continuity.incoming):
            for name in ("base", "sent", "end", "count", "_told"):
                if hasattr(half, name):
                    setattr(half, name, 2**32 - 10)
    pair.far.begin(2**32 - 10, 0)
    pair.open()
    for number in range(10):
        pair.near.write(b"%04d" % number)
        pair.run()
        pair.cut()
        pair.run()
        pair.open()
    pair.pass_time(1)
    assert pair.far_ear.data == b"".join(b"%04d" % number for number in range(10))
    assert pair.near.continuity.outgoing.base == 2**32 + 30
    pair.end()


# Takeover


def test_new_carrier_replaces_one_that_is_still_open() -> None:
    pair = ResumablePair(latency_seconds=0.001).open()
    pair.near.write(b"one")
    pair.run()
    pair.open()
    pair.near.write(b"two")
    pair.run()
    assert pair.far_ear.data == b"onetwo"
    assert not pair.wires[0].near.is_connected
    assert "far" not in dict(pair.detached), "it always had a carrier"
    pair.end()


def test_data_of_a_replaced_carrier_is_dropped() -> None:
    pair = ResumablePair(latency_seconds=0.001).open()
    pair.run()
    (old,) = [carrier_protocol for name, carrier_protocol in pair.carrier_protocols if name == "far"]
    old_words = old.carrier.on_control
    assert old_words is not None
    pair.open()
    old.dataReceived(b"late")
    old_words({"t": "ack", "n": 10**9, "c": "00000000"})
    old_words({"t": "bye"})
    old.connectionLost()
    pair.run()
    assert pair.far_ear.data == b""
    assert pair.far.is_attached
    assert "far" not in dict(pair.detached)
    pair.near.write(b"in time")
    pair.run()
    assert pair.far_ear.data == b"in time"
    pair.end()


def test_replaced_carrier_does_not_pause_the_producer() -> None:
    pair = ResumablePair().open()
    pair.open()
    source = PushSource(pair.far, b"")
    pair.far.registerProducer(source, True)
    pair.far.carrier_is_full(1)
    assert not source.is_paused
    pair.far.carrier_is_full(pair.far.continuity.epoch)
    pair.far.carrier_has_room(1)
    assert source.is_paused
    pair.far.carrier_has_room(pair.far.continuity.epoch)
    assert not source.is_paused
    pair.end()


@pytest.mark.parametrize(("count", "code"), [(7, "ack_ahead"), (4, "ack_mismatch"), (1, "ack_gap")])
def test_carrier_with_wrong_numbers_changes_nothing(count: int, code: str) -> None:
    pair = ResumablePair().open()
    pair.far.write(b"abcdef")
    pair.far.continuity.acknowledge(1, 2, crc32(b"ab"))
    with pytest.raises(RemoteProtocolError) as caught:
        pair.far.begin(count, 0)
    assert caught.value.code == code
    pair.far.write(b"gh")
    pair.run()
    assert pair.near_ear.data == b"abcdefgh"
    assert pair.wires[0].far.is_connected
    pair.end()


# Late and superfluous carriers


def test_carrier_that_comes_too_late_is_cut() -> None:
    pair = ResumablePair().open()
    carrier_protocol: CarrierProtocol = pair.carrier_protocols[0][1]
    pair.far.begin(0, 0)
    pair.run()
    pair.connect()  # the far end expects this carrier
    first = pair.wires[-1]
    pair.far.begin(0, 0)  # and then another one
    pair.run()
    assert not first.far.is_connected
    assert not pair.far.is_attached
    assert carrier_protocol.epoch == 1
    pair.open()
    assert pair.far.is_attached
    pair.end()


def test_second_carrier_for_one_epoch_is_cut() -> None:
    pair = ResumablePair().open()
    far = pair.far.carrier
    pair.far.join(pair.carrier_protocols[1][1], pair.far.continuity.epoch)
    assert pair.far.carrier is far
    pair.end()


def test_carrier_that_never_opens_is_given_up_once() -> None:
    pair = ResumablePair()
    epoch = pair.far.begin(0, 0)
    pair.far.give_up(epoch)
    pair.far.give_up(epoch)
    assert pair.detached == [("far", "The new carrier did not open.")]
    pair.open()
    pair.far.give_up(epoch)
    pair.far.give_up(pair.far.continuity.epoch)
    assert pair.far.is_attached
    assert len(pair.detached) == 1
    pair.end()


def test_after_the_end_no_carrier_is_taken() -> None:
    pair = ResumablePair().open()
    carrier_protocol = next(
        carrier_protocol for name, carrier_protocol in pair.carrier_protocols if name == "far"
    )
    pair.far.expire("over")
    with pytest.raises(LocalProtocolError) as caught:
        pair.far.begin(0, 0)
    assert caught.value.code == "link_over"
    pair.far.join(carrier_protocol, 1)
    pair.far.give_up(1)
    pair.far.probe()
    pair.far.write(b"dropped")
    pair.far.send_control(b"{}")
    assert pair.far.continuity.outgoing.kept_bytes == 0
    pair.end()


def test_end_without_any_carrier_is_not_reported_to_the_protocol() -> None:
    pair = ResumablePair()
    pair.near.begin(0, 0)
    pair.near.expire("no carrier came")
    assert pair.near_ear.told == []
    pair.end()


def test_bytes_that_differ_end_the_link_at_both_ends(watch: Watch) -> None:
    pair = ResumablePair().open()
    pair.far.continuity.incoming.crc ^= 1
    pair.near.write(b"hello")
    pair.pass_time(1)
    assert [event["event"] for event in watch.take()] == ["link.desync"]
    assert pair.near_ear.was_lost_with(ConnectionLost)
    assert pair.far_ear.is_lost
    (far,) = [carrier_protocol for name, carrier_protocol in pair.carrier_protocols if name == "far"]
    assert far.carrier.peer_close_code == 1002
    assert pair.detached == []
    pair.pass_time(3)
    assert pair.clock.getDelayedCalls() == []
    pair.end()
