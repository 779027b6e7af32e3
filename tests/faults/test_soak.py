"""Random faults in sequence, for 25 s; ``python -m tests.faults.soak`` runs for twenty minutes."""

from __future__ import annotations

import pytest

from tests.faults.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_random_faults_leave_nothing_behind() -> None:
    soak(seconds=25, seed=4)
