from __future__ import annotations

from itertools import product

import pytest

from seance.yamux.half_states import RECEIVING, SENDING, Receiving, Sending, Step


def walk(start: Sending, *steps: Step) -> Sending | None:
    state: Sending | None = start
    for step in steps:
        if state is None:
            return None
        state = SENDING.get((state, step))
    return state


class TestSending:
    def test_data_then_end_then_fin_ends_our_half(self) -> None:
        assert walk(Sending.OPEN, Step.DATA, Step.END, Step.FIN) is Sending.ENDED

    @pytest.mark.parametrize("state", list(Sending))
    def test_data_is_allowed_exactly_while_open(self, state: Sending) -> None:
        """The session tests ``is Sending.OPEN`` instead of the table; the two must agree."""
        assert ((state, Step.DATA) in SENDING) == (state is Sending.OPEN)

    @pytest.mark.parametrize("state", list(Sending))
    def test_end_is_allowed_in_every_state_and_idempotent(self, state: Sending) -> None:
        once = walk(state, Step.END)
        assert once is not None
        assert walk(once, Step.END) is once

    def test_fin_is_allowed_only_after_end(self) -> None:
        assert [state for state in Sending if (state, Step.FIN) in SENDING] == [Sending.ENDING]


class TestReceiving:
    @pytest.mark.parametrize("state", list(Receiving))
    def test_data_is_allowed_exactly_while_open(self, state: Receiving) -> None:
        assert ((state, Step.DATA) in RECEIVING) == (state is Receiving.OPEN)

    @pytest.mark.parametrize("state", list(Receiving))
    def test_fin_is_allowed_in_every_state_and_ends_the_half(self, state: Receiving) -> None:
        assert RECEIVING[state, Step.FIN] is Receiving.ENDED

    def test_end_is_no_step_of_the_receiving_half(self) -> None:
        assert not [state for state in Receiving if (state, Step.END) in RECEIVING]


def test_ended_half_stays_ended() -> None:
    for table, end in ((SENDING, Sending.ENDED), (RECEIVING, Receiving.ENDED)):
        assert {after for (state, _), after in table.items() if state is end} == {end}


def test_tables_have_only_known_states_and_steps() -> None:
    assert set(SENDING) <= set(product(Sending, Step))
    assert set(RECEIVING) <= set(product(Receiving, Step))


def test_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        SENDING[Sending.ENDED, Step.DATA] = Sending.OPEN  # type: ignore[index]
