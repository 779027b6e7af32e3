from __future__ import annotations

import pytest

from seance.yamux.keepalive import Keepalive, Verdict

AFTER, DEAD = 5.0, 5.0


def ask(keepalive: Keepalive, now: float) -> Verdict:
    return keepalive.verdict(now, AFTER, DEAD)


def due(keepalive: Keepalive) -> float | None:
    return keepalive.deadline(AFTER, DEAD)


def test_deadline_is_immediate_before_the_first_time() -> None:
    keepalive = Keepalive()
    assert due(keepalive) == 0.0
    assert ask(keepalive, 100.0) is Verdict.NOTHING
    assert due(keepalive) == 105.0


def test_silence_leads_to_a_ping_and_then_a_timeout() -> None:
    """Cases 76 and 77: a silent peer is detected within 10 s."""
    keepalive = Keepalive()
    keepalive.bytes_received(100.0)
    assert ask(keepalive, 104.9) is Verdict.NOTHING
    assert ask(keepalive, 105.0) is Verdict.PING
    keepalive.ping(105.0)
    assert due(keepalive) == 110.0
    assert ask(keepalive, 109.9) is Verdict.NOTHING
    assert ask(keepalive, 110.0) is Verdict.DEAD


def test_any_byte_prevents_the_timeout() -> None:
    """Case 78."""
    keepalive = Keepalive()
    keepalive.ping(0.0)
    for now in range(1, 100):
        keepalive.bytes_received(float(now))
        assert ask(keepalive, now + 4.9) is not Verdict.DEAD
    assert keepalive.is_ping_in_flight


def test_new_ping_replaces_an_unanswered_one() -> None:
    keepalive = Keepalive()
    lost = keepalive.ping(0.0)
    keepalive.bytes_received(1.0)
    assert ask(keepalive, 6.0) is Verdict.PING
    current = keepalive.ping(6.0)
    assert keepalive.pong_received(lost, 7.0) is None
    assert keepalive.pong_received(current, 7.5) == 1.5


def test_clock_jump_leads_to_a_ping_first() -> None:
    """A laptop that slept for an hour."""
    keepalive = Keepalive()
    keepalive.bytes_received(0.0)
    assert ask(keepalive, 3600.0) is Verdict.PING
    keepalive.ping(3600.0)
    assert ask(keepalive, 3600.0) is Verdict.NOTHING


def test_byte_at_the_time_of_the_ping_counts() -> None:
    keepalive = Keepalive()
    keepalive.ping(10.0)
    keepalive.bytes_received(10.0)
    assert ask(keepalive, 14.9) is Verdict.NOTHING
    assert ask(keepalive, 15.0) is Verdict.PING


def test_answer_measures_the_round_trip() -> None:
    """Case 70."""
    keepalive = Keepalive()
    value = keepalive.ping(1.0)
    assert keepalive.round_trip_seconds is None
    assert keepalive.pong_received(value, 1.25) == 0.25
    assert keepalive.round_trip_seconds == 0.25
    assert not keepalive.is_ping_in_flight


def test_minimum_of_the_last_eight_round_trips_counts() -> None:
    """A longer path is noticed after eight answers; a queue on the path is not."""
    keepalive = Keepalive()
    seen = []
    for at, seconds in enumerate([0.5, 0.2, *[0.9] * 8]):
        keepalive.pong_received(keepalive.ping(float(at)), at + seconds)
        seen.append(keepalive.min_round_trip_seconds)
    assert seen == pytest.approx([0.5, *[0.2] * 8, 0.9])


def test_round_trip_is_measured_on_request_and_not_too_often() -> None:
    keepalive = Keepalive()
    keepalive.wants_round_trip = True
    assert keepalive.is_measuring_due(0.0)
    assert not keepalive.wants_round_trip
    value = keepalive.ping(0.0)
    assert not keepalive.is_measuring_due(100.0), "one is in flight"
    keepalive.pong_received(value, 0.1)
    assert not keepalive.is_measuring_due(4.9)
    assert keepalive.is_measuring_due(5.0)


def test_unexpected_answer_is_ignored() -> None:
    """Case 73."""
    keepalive = Keepalive()
    assert keepalive.pong_received(0, 1.0) is None
    value = keepalive.ping(1.0)
    assert keepalive.pong_received(value + 1, 2.0) is None
    assert keepalive.is_ping_in_flight
    assert keepalive.pong_received(value, 3.0) == 2.0
    assert keepalive.pong_received(value, 4.0) is None


def test_ping_values_stay_within_their_field() -> None:
    keepalive = Keepalive()
    keepalive._sent_value = 2**32 - 1
    assert keepalive.ping(1.0) == 0


def test_without_pings_there_is_no_timeout() -> None:
    keepalive = Keepalive()
    assert keepalive.deadline(None, DEAD) is None
    assert keepalive.verdict(1e9, None, DEAD) is Verdict.NOTHING


def test_ping_of_the_application_can_time_out() -> None:
    keepalive = Keepalive()
    keepalive.ping(1.0)
    assert keepalive.deadline(None, DEAD) == 6.0
    assert keepalive.verdict(6.0, None, DEAD) is Verdict.DEAD
