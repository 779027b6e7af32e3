"""F30: one fault after the other, for forty seconds; ``python -m tests.faults.soak`` takes twenty minutes."""

from __future__ import annotations

import pytest

from tests.faults.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_random_faults_leave_nothing() -> None:
    soak(seconds=40, seed=4)
