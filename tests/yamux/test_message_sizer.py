from __future__ import annotations

import pytest

from seance.yamux import KIB
from seance.yamux.message_sizer import MessageSizer


def settled(bytes_per_second: float) -> MessageSizer:
    """The sizer after many messages over a path whose kernel buffer accepts more at half a message."""
    pace, now = MessageSizer(), 0.0
    for _ in range(50):
        pace.filled(now)
        now += 1.5 * pace.message_bytes / bytes_per_second
        pace.drained(now)
    return pace


@pytest.mark.parametrize(
    ("mbit", "least", "most"), [(1, 1, 2), (8, 8, 16), (30, 32, 64), (100, 64, 64), (10_000, 64, 64)]
)
def test_message_size_follows_the_speed_of_the_path(mbit: int, least: int, most: int) -> None:
    assert least * KIB <= settled(mbit * 125_000).message_bytes <= most * KIB


def test_one_short_wait_makes_up_for_one_long_wait() -> None:
    pace = settled(1e9)
    pace.filled(0.0)
    pace.drained(0.2)
    assert pace.message_bytes == 32 * KIB
    pace.filled(1.0)
    pace.filled(1.4)
    pace.drained(1.001)
    assert pace.message_bytes == 64 * KIB


def test_full_time_counts_from_the_first_report() -> None:
    pace = MessageSizer()
    pace.filled(1.0)
    pace.filled(1.02)
    pace.drained(1.03)
    assert pace.message_bytes == 2 * KIB


def test_drained_without_full_changes_nothing() -> None:
    pace = MessageSizer()
    pace.drained(5.0)
    assert pace.message_bytes == 4 * KIB, "the initial size"


def test_carrier_that_is_never_full_gets_large_messages() -> None:
    pace = MessageSizer()
    for _ in range(16):
        pace.sent(pace.message_bytes)
    assert pace.message_bytes == 8 * KIB
    for _ in range(1000):
        pace.sent(pace.message_bytes)
    assert pace.message_bytes == 64 * KIB


def test_small_messages_and_those_before_a_full_carrier_do_not_count() -> None:
    pace = MessageSizer()
    for _ in range(1000):
        pace.sent(KIB)
    assert pace.message_bytes == 4 * KIB
    for _ in range(10):
        for _ in range(15):
            pace.sent(4 * KIB)
        pace.filled(0.0)
        pace.drained(0.02)
    assert pace.message_bytes == 4 * KIB
