"""Properties of the tables in ``seance.mux.stream_states``."""

from __future__ import annotations

from itertools import product

from seance.mux.stream_states import LIFECYCLE, READ, WRITE, Lifecycle, ReadState, StreamStep, WriteState


def test_steps_that_the_peer_can_cause_are_allowed_in_every_state() -> None:
    assert set(product(ReadState, [StreamStep.FIN])) <= set(READ)
    assert set(product(WriteState, [StreamStep.END, StreamStep.FIN, StreamStep.RESET])) == set(WRITE)


def test_ended_and_cut_halves_do_not_change() -> None:
    assert {after for (state, _), after in READ.items() if state is ReadState.ENDED} == {ReadState.ENDED}
    for final in (WriteState.ENDED, WriteState.CUT):
        assert {after for (state, _), after in WRITE.items() if state is final} == {final}


def test_lifecycle_only_moves_forward_and_ends_lost() -> None:
    assert all(after >= state for (state, _), after in LIFECYCLE.items())
    assert {state for state, step in LIFECYCLE if step is StreamStep.LOSE} == set(Lifecycle) - {
        Lifecycle.LOST
    }
    assert Lifecycle.LOST not in {state for state, _ in LIFECYCLE}
