"""F30: one fault after the other, for a minute. ``python -m tests.faults.soak`` goes on for twenty."""

from __future__ import annotations

import pytest

from tests.faults.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_minute_of_random_faults_leaves_nothing() -> None:
    soak(seconds=60, seed=4)
