from __future__ import annotations

import pytest

from seance.yamux import KIB
from seance.yamux.pace import Pace


def settled(bytes_per_second: float, kernel_bytes: int = 8 * KIB) -> Pace:
    """A pace after many messages over a path; the kernel wants so much to leave before it takes more."""
    pace, now = Pace(), 0.0
    for _ in range(50):
        pace.filled(now)
        now += (pace.message_bytes + kernel_bytes) / bytes_per_second
        pace.drained(now)
    return pace


@pytest.mark.parametrize(
    ("mbit", "least", "most"), [(1, 4, 4), (8, 8, 16), (30, 32, 64), (100, 64, 64), (10_000, 64, 64)]
)
def test_a_message_is_as_large_as_the_path_is_fast(mbit: int, least: int, most: int) -> None:
    assert least * KIB <= settled(mbit * 125_000).message_bytes <= most * KIB


def test_one_hiccup_is_made_up_for_by_one_short_wait() -> None:
    pace = settled(1e9)
    pace.filled(0.0)
    pace.drained(0.2)
    assert pace.message_bytes == 32 * KIB
    pace.filled(1.0)
    pace.filled(1.4)
    pace.drained(1.001)
    assert pace.message_bytes == 64 * KIB


def test_full_is_counted_from_the_first_time_it_was_said() -> None:
    pace = Pace()
    pace.filled(1.0)
    pace.filled(1.02)
    pace.drained(1.03)
    assert pace.message_bytes == 8 * KIB


def test_a_carrier_that_was_not_full_says_nothing() -> None:
    pace = Pace()
    pace.drained(5.0)
    assert pace.message_bytes == 16 * KIB, "what it begins with"
