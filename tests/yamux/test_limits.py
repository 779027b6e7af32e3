"""The bounds themselves. Which test reaches each of them is in ``REACHED_BY``, and checked."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from seance.errors import ConfigError
from seance.yamux import KIB, MIB, Limits

REACHED_BY = {
    "streams": "test_an_open_beyond_the_limit_is_reset_and_the_others_live",
    "unacknowledged": "test_256_opens_go_unanswered_and_the_next_waits_for_one_answer",
    "accept_backlog": "test_an_open_beyond_the_limit_is_reset_and_the_others_live",
    "receive_window_bytes": "test_a_frame_beyond_the_window_ends_the_session_at_its_header",
    "receive_window_max_bytes": "test_a_window_grows_to_what_the_limits_say_and_no_further",
    "window_budget": "test_windows_of_all_sessions_share_one_budget",
    "send_queue_bytes": "test_a_queue_that_grows_too_long_resets_its_stream_alone",
    "send_high_water_bytes": "test_writable_comes_once_when_a_congested_queue_has_run_low",
    "send_low_water_bytes": "test_writable_comes_once_when_a_congested_queue_has_run_low",
    "pongs": "test_pings_while_we_cannot_write_do_not_stop_reading",
    "control_frames": "test_a_peer_that_makes_us_answer_and_does_not_read_ends_the_session",
    "stray_bytes": "test_stray_data_is_counted_and_too_much_of_it_ends_the_session",
    "id_gaps": "test_an_id_of_a_gap_too_old_to_know_counts_as_reused",
    "open_timeout_seconds": "test_an_open_that_nobody_answers_is_reset_alone",
    "ping_after_seconds": "test_pings_flow_unasked_while_it_is_quiet",
    "dead_after_seconds": "test_a_silent_peer_ends_the_session_within_ten_seconds",
}


def names_of_tests() -> set[str]:
    trees = [ast.parse(path.read_text("utf-8")) for path in Path(__file__).parent.glob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_limit_is_reached_by_a_test() -> None:
    assert set(REACHED_BY) == {field.name for field in fields(Limits)}
    assert set(REACHED_BY.values()) <= names_of_tests()


def test_the_defaults_are_what_other_implementations_cope_with() -> None:
    limits = Limits()
    assert (limits.streams, limits.unacknowledged, limits.accept_backlog) == (256, 256, 256)
    assert limits.receive_window_bytes == 256 * KIB
    assert limits.receive_window_max_bytes == 1 * MIB
    assert limits.window_budget.total_bytes == 64 * MIB
    assert (limits.ping_after_seconds, limits.dead_after_seconds) == (5.0, 5.0)


def test_limits_do_not_change_behind_anybodys_back() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().streams = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"streams": 0},
        {"unacknowledged": 0},
        {"accept_backlog": -1},
        {"pongs": 0},
        {"id_gaps": 0},
        {"control_frames": 0},
        {"stray_bytes": -1},
        {"receive_window_bytes": 256 * KIB - 1},
        {"receive_window_bytes": 16 * MIB + 1},
        {"receive_window_max_bytes": 256 * KIB - 1},
        {"receive_window_max_bytes": 16 * MIB + 1},
        {"send_low_water_bytes": -1},
        {"send_low_water_bytes": 65 * KIB},
        {"send_queue_bytes": 63 * KIB},
        {"open_timeout_seconds": 0},
        {"dead_after_seconds": 0},
        {"ping_after_seconds": 0},
    ],
    ids=str,
)
def test_numbers_that_could_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(**wrong)
    assert caught.value.code == "yamux_limits"


@pytest.mark.parametrize(
    "right",
    [{"receive_window_bytes": 16 * MIB}, {"stray_bytes": 0}, {"ping_after_seconds": None}],
    ids=str,
)
def test_the_extremes_are_allowed(right: dict[str, Any]) -> None:
    Limits(**right)
