"""Numbered messages through carrier resets and a silence: none is lost, duplicated or out of order."""

from __future__ import annotations

import pytest

from tests.faults.conversations import Sequence
from tests.faults.numbered import endure


def test_sequence_counts_lost_duplicated_and_late_messages() -> None:
    sequence = Sequence()
    for number in (0, 1, 4, 2, 2, 5):
        sequence.take(number)
    assert (sequence.next, sequence.lost, sequence.misordered, sequence.duplicated) == (6, 1, 1, 1)


def test_a_reset_disconnects_no_client() -> None:
    toll = endure(clients=10, resets=1, swallow_seconds=0, every_seconds=0.1)
    assert not any(toll.fates.values()), toll


@pytest.mark.slow
def test_three_resets_and_nine_seconds_of_silence_disconnect_none_of_100_clients() -> None:
    toll = endure(clients=100, resets=3, swallow_seconds=9, every_seconds=0.2)
    assert not any(toll.fates.values()), toll
