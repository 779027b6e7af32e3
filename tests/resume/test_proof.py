"""Which secrets resume a session: the newest one, and the one that was shown last."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from seance.resume import Proof


def test_first_secret_fits_and_no_other() -> None:
    proof = Proof("first")
    assert proof.fits("first")
    for wrong in ("", "firs", "first ", "First", "second"):
        assert not proof.fits(wrong)


def test_shown_secret_stays_valid_until_the_new_one_is_confirmed() -> None:
    proof = Proof("first")
    proof.renew("first", "second")
    assert proof.fits("first"), "the 101 with the second secret may be lost"
    assert proof.fits("second")
    proof.settle()
    assert not proof.fits("first")
    assert proof.fits("second")


def test_secret_stays_valid_if_answers_are_lost() -> None:
    proof = Proof("0")
    for number in range(1, 20):
        proof.renew("0", str(number))
        assert proof.fits("0")
        assert proof.fits(str(number))
        assert not proof.fits(str(number - 1)) or number == 1, "it was never shown, and is not the newest"


def test_older_secret_is_invalid() -> None:
    proof = Proof("first")
    proof.renew("first", "second")
    proof.renew("second", "third")
    assert not proof.fits("first")
    assert proof.fits("second")
    assert proof.fits("third")


def test_settle_is_idempotent() -> None:
    proof = Proof("first")
    proof.settle()
    proof.settle()
    assert proof.fits("first")


def test_secrets_are_not_stored_in_plain_text() -> None:
    proof = Proof("a-secret-that-must-not-be-kept")
    kept = [one for one in gc.get_referents(proof) if one is not Proof]
    assert len(kept) == 2
    assert all(isinstance(one, bytes) and len(one) == 32 for one in kept)
    assert "secret" not in repr(proof)


@given(st.text())
def test_any_text_can_be_checked(text: str) -> None:
    assert Proof("first").fits(text) == (text == "first")
    assert Proof(text).fits(text)


def test_unencodable_text_can_be_checked() -> None:
    assert not Proof("first").fits("\udcff")
    assert Proof("\udcff").fits("\udcff")
