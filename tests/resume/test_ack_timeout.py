"""When a peer that never acknowledges is taken for one, and when it is not."""

from __future__ import annotations

import pytest

from seance.resume import AckTimeout


@pytest.mark.parametrize(("is_full", "seconds"), [(False, 15.0), (True, 60.0)])
def test_no_progress_for_so_long_is_too_long(is_full: bool, seconds: float) -> None:
    arrears = AckTimeout(0.0)
    assert not arrears.has_expired(1.0, base=0, kept_bytes=5, is_full=is_full)
    assert not arrears.has_expired(seconds + 0.9, base=0, kept_bytes=5, is_full=is_full)
    assert arrears.has_expired(seconds + 1.0, base=0, kept_bytes=5, is_full=is_full)


def test_any_progress_is_enough() -> None:
    arrears = AckTimeout(0.0)
    for number in range(100):
        assert not arrears.has_expired(14.0 * number, base=number, kept_bytes=10_000, is_full=False)


def test_nothing_owed_is_no_arrears() -> None:
    arrears = AckTimeout(0.0)
    assert not arrears.has_expired(1.0, base=0, kept_bytes=5, is_full=False)
    assert not arrears.has_expired(100.0, base=0, kept_bytes=0, is_full=False)
    assert not arrears.has_expired(114.0, base=0, kept_bytes=5, is_full=False)
