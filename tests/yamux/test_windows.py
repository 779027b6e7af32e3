from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import LocalProtocolError
from seance.yamux import KIB, MIB
from seance.yamux.windows import ReceiveWindow, SendWindow

INITIAL = 256 * KIB


class TestSendWindow:
    def test_send_window_starts_at_256_kib(self) -> None:
        assert SendWindow().available_bytes == INITIAL

    def test_window_updates_add_up(self) -> None:
        """Cases 47 and 51: updates are deltas, not totals."""
        window = SendWindow()
        window.available_bytes -= INITIAL
        assert window.grow(1000)
        assert window.grow(500)
        assert window.available_bytes == 1500

    def test_send_window_grows_to_32_bits(self) -> None:
        """Case 44."""
        window = SendWindow()
        assert window.grow(2**32 - 1 - INITIAL)
        assert window.available_bytes == 2**32 - 1
        assert not window.grow(1)
        assert window.available_bytes == 2**32 - 1

    def test_overspending_fails_the_check(self) -> None:
        window = SendWindow()
        window.available_bytes -= INITIAL + 1
        with pytest.raises(AssertionError):
            window.check()

    def test_repr_shows_available_bytes(self) -> None:
        assert repr(SendWindow()) == "<SendWindow 262144 available>"


class TestReceiveWindow:
    def test_credit_is_due_when_half_of_the_window_was_taken(self) -> None:
        """Cases 38 and 54."""
        window = ReceiveWindow()
        window.receive(INITIAL)
        assert not window.take(INITIAL // 2 - 1)
        assert window.take(1)
        assert window.grant() == INITIAL // 2
        assert window.remaining_bytes == INITIAL // 2

    def test_credit_of_a_large_window_is_due_after_1_mib(self) -> None:
        window = ReceiveWindow()
        window.widen(16 * MIB)
        window.receive(2 * MIB)
        assert not window.take(1 * MIB - 1)
        assert window.take(1)

    def test_credit_is_given_once(self) -> None:
        """Case 54."""
        window = ReceiveWindow()
        window.receive(INITIAL)
        window.take(INITIAL)
        assert window.grant() == INITIAL
        assert window.grant() == 0

    def test_unconsumed_bytes_give_no_credit(self) -> None:
        window = ReceiveWindow()
        window.receive(INITIAL)
        assert window.grant() == 0
        assert window.remaining_bytes == 0

    @pytest.mark.parametrize("count", [-1, 11])
    def test_taking_more_than_delivered_raises(self, count: int) -> None:
        window = ReceiveWindow()
        window.receive(10)
        with pytest.raises(LocalProtocolError) as caught:
            window.take(count)
        assert caught.value.code == "taken_too_much"
        window.check()

    def test_widening_returns_the_delta(self) -> None:
        """Case 48: a window grows by the exact difference."""
        window = ReceiveWindow()
        assert window.widen(INITIAL + 5) == 5
        assert (window.size_bytes, window.remaining_bytes) == (INITIAL + 5, INITIAL + 5)
        assert window.widen(INITIAL) == 0, "a window never shrinks"
        assert window.size_bytes == INITIAL + 5

    def test_receiving_beyond_the_window_fails_an_assertion(self) -> None:
        with pytest.raises(AssertionError):
            ReceiveWindow().receive(INITIAL + 1)

    def test_repr_shows_all_counts(self) -> None:
        window = ReceiveWindow()
        window.receive(30)
        window.take(10)
        assert repr(window) == "<ReceiveWindow 262114 of 262144 remaining, 20 held, 10 taken>"

    @given(st.lists(st.tuples(st.sampled_from("rtgw"), st.integers(0, INITIAL))))
    def test_credit_is_conserved(self, steps: list[tuple[str, int]]) -> None:
        """Case 49: every byte of the window is counted exactly once."""
        window = ReceiveWindow()
        for step, count in steps:
            if step == "r":
                window.receive(min(count, window.remaining_bytes))
            elif step == "t":
                is_due = window.take(min(count, window.held_bytes))
                due_bytes = min(window.size_bytes / 2, 1 * MIB)
                assert is_due == (window.taken_bytes >= due_bytes)
            elif step == "g":
                before = window.remaining_bytes
                assert before + window.grant() == window.remaining_bytes
            else:
                window.widen(INITIAL + count)
            window.check()
