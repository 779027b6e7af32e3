"""When a peer that does not acknowledge data times out, and when it does not."""

from __future__ import annotations

import pytest

from seance.resume import AckTimeout


@pytest.mark.parametrize(("is_full", "seconds"), [(False, 15.0), (True, 60.0)])
def test_no_progress_until_the_timeout_expires(is_full: bool, seconds: float) -> None:
    timeout = AckTimeout(0.0)
    assert not timeout.has_expired(1.0, base=0, kept_bytes=5, is_full=is_full)
    assert not timeout.has_expired(seconds + 0.9, base=0, kept_bytes=5, is_full=is_full)
    assert timeout.has_expired(seconds + 1.0, base=0, kept_bytes=5, is_full=is_full)


def test_any_progress_is_enough() -> None:
    timeout = AckTimeout(0.0)
    for number in range(100):
        assert not timeout.has_expired(14.0 * number, base=number, kept_bytes=10_000, is_full=False)


def test_without_unacked_data_there_is_no_timeout() -> None:
    timeout = AckTimeout(0.0)
    assert not timeout.has_expired(1.0, base=0, kept_bytes=5, is_full=False)
    assert not timeout.has_expired(100.0, base=0, kept_bytes=0, is_full=False)
    assert not timeout.has_expired(114.0, base=0, kept_bytes=5, is_full=False)
