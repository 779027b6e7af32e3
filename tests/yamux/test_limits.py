"""The limits. ``REACHED_BY`` lists the test that reaches each of them, and is checked."""

from __future__ import annotations

import ast
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from seance.errors import ConfigError
from seance.yamux import KIB, MIB, Limits

REACHED_BY = {
    "streams": "test_open_of_the_peer_beyond_the_limit_is_reset",
    "unacknowledged": "test_open_beyond_256_unanswered_ones_is_a_local_error",
    "accept_backlog": "test_open_of_the_peer_beyond_the_limit_is_reset",
    "receive_window_bytes": "test_frame_beyond_the_window_ends_the_session_at_its_header",
    "receive_window_max_bytes": "test_window_grows_to_its_limit",
    "window_budget": "test_windows_of_all_sessions_share_one_budget",
    "send_queue_bytes": "test_full_send_queue_resets_its_stream_only",
    "send_high_water_bytes": "test_writable_is_reported_once_at_the_low_water_mark",
    "send_low_water_bytes": "test_writable_is_reported_once_at_the_low_water_mark",
    "pongs": "test_pings_do_not_stop_receiving_while_we_cannot_send",
    "control_frames": "test_too_many_unread_answers_end_the_session",
    "stray_bytes": "test_too_much_stray_data_ends_the_session",
    "id_gaps": "test_id_of_a_dropped_gap_counts_as_reused",
    "open_timeout_seconds": "test_unanswered_open_is_reset_alone",
    "ping_after_seconds": "test_pings_are_sent_while_the_session_is_idle",
    "dead_after_seconds": "test_a_silent_peer_ends_the_session_within_ten_seconds",
}


def names_of_tests() -> set[str]:
    trees = [ast.parse(path.read_text("utf-8")) for path in Path(__file__).parent.glob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_limit_is_reached_by_a_test() -> None:
    assert set(REACHED_BY) == {field.name for field in fields(Limits)}
    assert set(REACHED_BY.values()) <= names_of_tests()


def test_defaults_fit_other_implementations() -> None:
    limits = Limits()
    assert (limits.streams, limits.unacknowledged, limits.accept_backlog) == (256, 256, 256)
    assert limits.receive_window_bytes == 256 * KIB
    assert limits.receive_window_max_bytes == 1 * MIB
    assert limits.window_budget.total_bytes == 64 * MIB
    assert (limits.ping_after_seconds, limits.dead_after_seconds) == (5.0, 5.0)


def test_limits_are_immutable() -> None:
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
def test_invalid_numbers_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Limits(**wrong)
    assert caught.value.code == "yamux_limits"


@pytest.mark.parametrize(
    "right",
    [{"receive_window_bytes": 16 * MIB}, {"stray_bytes": 0}, {"ping_after_seconds": None}],
    ids=str,
)
def test_extreme_values_are_allowed(right: dict[str, Any]) -> None:
    Limits(**right)
