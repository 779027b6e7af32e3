from __future__ import annotations

import pytest

from seance.yamux import KIB, LARGE_MESSAGE_BYTES
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


def large(messages: int) -> MessageSizer:
    """A sizer for a peer that accepts 256 KiB, after that many full-size messages without a full carrier."""
    sizer = MessageSizer(LARGE_MESSAGE_BYTES)
    for _ in range(messages):
        sizer.sent(sizer.message_bytes)
    return sizer


def test_messages_above_64_kib_need_a_run_of_64_kib_without_a_full_carrier() -> None:
    grown = 4 * 16  # from 4 to 64 KiB
    sizes = [large(grown + count).message_bytes // KIB for count in (15, 16, 31, 32, 1000)]
    assert sizes == [64, 128, 128, 256, 256]


def test_short_waits_do_not_make_messages_larger_than_64_kib() -> None:
    sizer = MessageSizer(LARGE_MESSAGE_BYTES)
    for second in range(50):
        sizer.filled(second)
        sizer.drained(second + 0.001)
        for _ in range(15):
            sizer.sent(sizer.message_bytes)
    assert sizer.message_bytes == 64 * KIB


@pytest.mark.parametrize(("seconds", "kib"), [(0.012, 256), (0.013, 64), (0.02, 64), (3.0, 64)])
def test_a_wait_that_is_not_short_ends_messages_above_64_kib(seconds: float, kib: int) -> None:
    sizer = large(1000)
    sizer.filled(5.0)
    sizer.drained(5.0 + seconds)
    assert sizer.message_bytes == kib * KIB
