"""The carrier is cut after a byte of a recorded exchange, for every place; the ends see the same exchange.

Bytes are counted on the connection below the WebSocket, from the first byte of the agent's upgrade on. Cuts
therefore fall into heads, frame headers, masks, acknowledgements and payloads. ``Relay`` and ``Agent`` are
the real ones, on a clock (``tests/faults/everything.py``).
"""

from __future__ import annotations

import random

import pytest

from tests.faults.everything import Outcome, play
from tests.faults.figures import Stopwatch, report

STEP = 41
"""Distance between cuts in the quick run; a prime, so that it divides no message length."""


@pytest.fixture(scope="module")
def recorded() -> Outcome:
    return play()


def unlike(recorded: Outcome, cuts: tuple[int, ...]) -> str | None:
    """Describe the difference when the exchange is cut there; None if there is none."""
    try:
        outcome = play(cuts)
    except AssertionError as error:
        return f"cut after {cuts}: {error}"
    for name, digest in recorded.digests.items():
        if outcome.digests[name] != digest or outcome.ends[name] != recorded.ends[name]:
            return f"cut after {cuts}: {name} differs, and ended with {outcome.ends[name]}"
    if outcome.left:
        return f"cut after {cuts}: left behind: {outcome.left}"
    if len(outcome.carried) < 2:
        return f"cut after {cuts}: there was only one carrier"
    return None


def check(scenario: str, recorded: Outcome, places: list[tuple[int, ...]]) -> None:
    watch = Stopwatch()
    found = [difference for cuts in places if (difference := unlike(recorded, cuts)) is not None]
    report(scenario, cuts=len(places), unlike=len(found), seconds=watch.seconds)
    assert found[:5] == [], f"{len(found)} of {len(places)} differ"


def test_the_exchange_without_cuts_is_deterministic(recorded: Outcome) -> None:
    """Otherwise a comparison would prove nothing."""
    assert play() == recorded
    assert recorded.left == ()
    assert recorded.ends["ben at the local server"] == "ConnectionLost"


def test_a_cut_at_any_41st_byte_changes_nothing(recorded: Outcome) -> None:
    places = [(count,) for count in range(1, recorded.carried[0], STEP)]
    check("F8 every 41st byte", recorded, places)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_a_cut_after_any_byte_changes_nothing(recorded: Outcome, first: int) -> None:
    """In two halves, so that two workers share them."""
    places = [(count,) for count in range(first, recorded.carried[0], 2)]
    check(f"F8 every second byte from {first}", recorded, places)


@pytest.mark.slow
def test_cuts_of_three_carriers_in_a_row_change_nothing(recorded: Outcome) -> None:
    """The second and third cut fall into handshakes and replays."""
    dice = random.Random(8)
    places = [
        (dice.randrange(1, recorded.carried[0]), dice.randrange(1, 1500), dice.randrange(1, 3000))
        for _ in range(150)
    ]
    check("F8 three in a row", recorded, places)
