"""When a carrier counts as dead, and when it does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.resume import CHECK_SECONDS, Heartbeat
from seance.resume import HeartbeatAction as Action

IDLE_SECONDS, OWED_SECONDS = 10.0, 6.0
"""The promised detection times (docs/continuity.md)."""


def checks(
    heartbeat: Heartbeat, times: list[float], *, heard: bool = False, owed: bool = False
) -> list[Action]:
    return [heartbeat.check(now, has_heard=heard, is_owed=owed) for now in times]


def every_second(start: float, count: int) -> list[float]:
    return [start + CHECK_SECONDS * number for number in range(1, count + 1)]


def test_silence_leads_to_a_ping_and_then_to_the_end() -> None:
    actions = checks(Heartbeat(0.0), every_second(0, 8))
    assert actions == [Action.NONE] * 3 + [Action.PING] + [Action.NONE] * 3 + [Action.DEAD]


def test_idle_carrier_is_pinged_once_per_silence() -> None:
    heartbeat = Heartbeat(0.0)
    for round_ in range(100):
        start = round_ * 5.0
        assert checks(heartbeat, every_second(start, 4))[-1] is Action.PING
        assert heartbeat.check(start + 5, has_heard=True, is_owed=False) is Action.NONE


def test_silence_with_unacked_data_leads_to_the_end_without_a_ping() -> None:
    actions = checks(Heartbeat(0.0), every_second(0, 5), owed=True)
    assert actions == [Action.NONE] * 4 + [Action.DEAD]


def test_carrier_that_delivers_bytes_stays_alive() -> None:
    heartbeat = Heartbeat(0.0)
    assert set(checks(heartbeat, every_second(0, 1000), heard=True, owed=True)) == {Action.NONE}


def test_occasional_bytes_keep_a_carrier_alive() -> None:
    heartbeat = Heartbeat(0.0)
    for now in range(1, 1000):
        beat = heartbeat.check(float(now), has_heard=now % 4 == 0, is_owed=True)
        assert beat is Action.NONE


@given(st.floats(0, 0.999), st.booleans())
def test_dead_carrier_is_detected_within_the_promised_time(phase: float, is_owed: bool) -> None:
    """The last byte arrives, or the first unacknowledged one is sent, at any time between two checks."""
    heartbeat = Heartbeat(0.0)
    died_at = 3.0 + phase
    now, beat = 0.0, Action.NONE
    while beat is not Action.DEAD:
        now += CHECK_SECONDS
        has_heard = now <= died_at or now - CHECK_SECONDS < died_at
        beat = heartbeat.check(now, has_heard=has_heard, is_owed=is_owed and now > died_at)
    promised = OWED_SECONDS if is_owed else IDLE_SECONDS
    assert promised - 3 <= now - died_at <= promised


def test_data_sent_during_silence_does_not_shorten_the_timeout() -> None:
    heartbeat = Heartbeat(0.0)
    assert set(checks(heartbeat, every_second(0, 3))) == {Action.NONE}
    actions = checks(heartbeat, every_second(3, 5), owed=True)
    assert actions == [Action.NONE] * 4 + [Action.DEAD]


def test_pending_ping_keeps_its_deadline_when_data_is_sent() -> None:
    heartbeat = Heartbeat(0.0)
    checks(heartbeat, every_second(0, 4))
    assert checks(heartbeat, every_second(4, 4), owed=True)[-1] is Action.DEAD


@pytest.mark.parametrize("asked_at", [5.0, 5.25, 5.9])
def test_probe_waits_two_seconds_and_at_most_three(asked_at: float) -> None:
    heartbeat = Heartbeat(0.0)
    checks(heartbeat, every_second(0, 5), heard=True)
    heartbeat.probe(asked_at)
    now, beat = 5.0, Action.NONE
    while beat is not Action.DEAD:
        now += CHECK_SECONDS
        beat = heartbeat.check(now, has_heard=False, is_owed=False)
    assert 2 <= now - asked_at <= 3


def test_probe_that_is_answered_changes_nothing() -> None:
    heartbeat = Heartbeat(0.0)
    heartbeat.probe(0.5)
    heartbeat.check(1.0, has_heard=True, is_owed=False)
    assert checks(heartbeat, every_second(1, 4)) == [Action.NONE] * 3 + [Action.PING]


@pytest.mark.parametrize("stall_seconds", [3.0, 60.0, 86400.0])
@pytest.mark.parametrize("owed", [False, True])
def test_late_check_sends_a_ping_first(stall_seconds: float, owed: bool) -> None:
    heartbeat = Heartbeat(0.0)
    checks(heartbeat, every_second(0, 4), owed=owed)
    late = 4.0 + stall_seconds
    assert heartbeat.check(late, has_heard=False, is_owed=owed) is Action.PING
    assert checks(heartbeat, every_second(late, 2), owed=owed) == [Action.NONE, Action.DEAD]


@pytest.mark.parametrize("stall_seconds", [1.6, 3.0, 60.0])
def test_repeated_stalls_still_detect_a_dead_carrier(
    stall_seconds: float,
) -> None:
    heartbeat = Heartbeat(0.0)
    actions = checks(heartbeat, [stall_seconds * number for number in range(1, 20)], owed=True)
    assert set(actions[:5]) == {Action.PING}
    assert actions[6] is Action.DEAD


def test_repeated_stalls_do_not_kill_a_carrier_that_answers() -> None:
    heartbeat = Heartbeat(0.0)
    for number in range(1, 100):
        assert heartbeat.check(3.0 * number, has_heard=number % 4 == 0, is_owed=True) is Action.PING


@pytest.mark.parametrize("every_seconds", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("owed", [False, True])
def test_repeated_probes_do_not_postpone_the_end(every_seconds: float, owed: bool) -> None:
    heartbeat = Heartbeat(0.0)
    now, asked_at, beat = 0.0, 0.0, Action.NONE
    while beat is not Action.DEAD:
        now += CHECK_SECONDS
        while asked_at + every_seconds < now:
            asked_at += every_seconds
            heartbeat.probe(asked_at)
        beat = heartbeat.check(now, has_heard=False, is_owed=owed)
        assert now <= 4


@given(st.floats(0, 0.999), st.floats(0, 1.6))
def test_answer_has_half_a_second_of_running_time(phase: float, stall_seconds: float) -> None:
    """A reactor runs timers first: bytes that arrived during a stall are not seen in the next check."""
    heartbeat = Heartbeat(0.0)
    checks(heartbeat, every_second(0, 5), heard=True)
    heartbeat.probe(5.0 + phase)
    listened_seconds = 1.0 - phase
    assert heartbeat.check(6.0, has_heard=False, is_owed=False) is Action.NONE
    beat = heartbeat.check(7.0 + stall_seconds, has_heard=False, is_owed=False)
    assert beat is not Action.DEAD or listened_seconds >= 0.5


@given(
    st.lists(
        st.tuples(st.floats(0, 100, allow_nan=False), st.booleans(), st.booleans(), st.booleans()),
        max_size=60,
    )
)
def test_carrier_heard_within_two_seconds_is_not_dead(
    story: list[tuple[float, bool, bool, bool]],
) -> None:
    now, heard_at = 0.0, -math.inf
    heartbeat = Heartbeat(now)
    for wait, has_heard, is_owed, is_probed in story:
        now += wait
        if has_heard:
            heard_at = now
        beat = heartbeat.check(now, has_heard=has_heard, is_owed=is_owed)
        if beat is Action.DEAD:
            assert now - heard_at >= 2 - 1e-6
        if is_probed:
            heartbeat.probe(now)
