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
        """The session asks ``is Sending.OPEN`` instead of the table; the two must agree."""
        assert ((state, Step.DATA) in SENDING) == (state is Sending.OPEN)

    @pytest.mark.parametrize("state", list(Sending))
    def test_ending_is_allowed_always_and_changes_nothing_the_second_time(self, state: Sending) -> None:
        once = walk(state, Step.END)
        assert once is not None
        assert walk(once, Step.END) is once

    def test_fin_follows_the_wish_to_end_and_nothing_else(self) -> None:
        assert [state for state in Sending if (state, Step.FIN) in SENDING] == [Sending.ENDING]


class TestReceiving:
    @pytest.mark.parametrize("state", list(Receiving))
    def test_data_is_allowed_exactly_while_open(self, state: Receiving) -> None:
        assert ((state, Step.DATA) in RECEIVING) == (state is Receiving.OPEN)

    @pytest.mark.parametrize("state", list(Receiving))
    def test_fin_is_allowed_always_and_ends_the_half(self, state: Receiving) -> None:
        assert RECEIVING[state, Step.FIN] is Receiving.ENDED

    def test_the_wish_to_end_is_not_the_peers_to_have(self) -> None:
        assert not [state for state in Receiving if (state, Step.END) in RECEIVING]


def test_an_ended_half_stays_ended() -> None:
    for table, end in ((SENDING, Sending.ENDED), (RECEIVING, Receiving.ENDED)):
        assert {after for (state, _), after in table.items() if state is end} == {end}


def test_tables_hold_only_what_they_are_about() -> None:
    assert set(SENDING) <= set(product(Sending, Step))
    assert set(RECEIVING) <= set(product(Receiving, Step))


def test_tables_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        SENDING[Sending.ENDED, Step.DATA] = Sending.OPEN  # type: ignore[index]
