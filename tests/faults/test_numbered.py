"""Numbered messages through carrier resets and a silence: none is lost, doubled or out of order."""

from __future__ import annotations

import pytest

from tests.faults.conversations import Sequence
from tests.faults.numbered import endure


def test_oracle_tells_lost_doubled_and_late_apart() -> None:
    sequence = Sequence()
    for number in (0, 1, 4, 2, 2, 5):
        sequence.take(number)
    assert (sequence.next, sequence.lost, sequence.misordered, sequence.duplicated) == (6, 1, 1, 1)


def test_a_few_clients_do_not_notice_a_reset() -> None:
    toll = endure(clients=10, resets=1, swallow_seconds=0, every_seconds=0.1)
    assert not any(toll.fates.values()), toll


@pytest.mark.slow
def test_a_hundred_clients_do_not_notice_six_resets_and_nine_seconds_of_silence() -> None:
    toll = endure(clients=100, resets=6, swallow_seconds=9, every_seconds=0.2)
    assert not any(toll.fates.values()), toll
