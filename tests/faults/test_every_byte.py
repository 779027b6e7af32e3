"""F8: the carrier is cut after every single byte of a recorded exchange, and nobody notices.

The bytes are counted on the connection below the WebSocket, from the first of the agent's upgrade on, so
cuts fall into heads, frame headers, masks, acknowledgements and payloads alike. Relay and agent are the real
ones, on a clock (``tests/faults/everything.py``).
"""

from __future__ import annotations

import random

import pytest

from tests.faults.everything import Outcome, play
from tests.faults.figures import Stopwatch, report

STEP = 41
"""Of the cuts in every run; a prime, so that no length of a message divides it."""


@pytest.fixture(scope="module")
def recorded() -> Outcome:
    return play()


def unlike(recorded: Outcome, cuts: tuple[int, ...]) -> str | None:
    """What differs when the exchange is cut there; None if nobody can tell."""
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


def test_the_same_exchange_is_the_same_twice(recorded: Outcome) -> None:
    """Else a comparison would tell nothing."""
    assert play() == recorded
    assert recorded.left == ()
    assert recorded.ends["ben at the local server"] == "ConnectionLost"


def test_cuts_all_over_the_exchange_are_not_noticed(recorded: Outcome) -> None:
    places = [(count,) for count in range(1, recorded.carried[0], STEP)]
    check("F8 every 41st byte", recorded, places)


@pytest.mark.slow
def test_a_cut_after_any_byte_is_not_noticed(recorded: Outcome) -> None:
    check("F8 every byte", recorded, [(count,) for count in range(1, recorded.carried[0])])


@pytest.mark.slow
def test_cuts_of_several_carriers_in_a_row_are_not_noticed(recorded: Outcome) -> None:
    """The second and third fall into handshakes and replays."""
    dice = random.Random(8)
    places = [
        (dice.randrange(1, recorded.carried[0]), dice.randrange(1, 1500), dice.randrange(1, 3000))
        for _ in range(400)
    ]
    check("F8 three in a row", recorded, places)
