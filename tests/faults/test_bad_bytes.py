"""F9 and F28: bytes between agent and relay are bent, lost, doubled or change places.

TCP sees to it that this does not happen; a proxy with a fault, a bad memory chip or a bug of ours would make
it happen. Nobody can undo it, so what is asked is this: whoever got anything but what was sent has
lost the connection over which it came, the two programs do not fail in any way of their own, and the next
client is served as if nothing had been.

The exchange is that of ``tests/faults/everything.py``, in memory; the fault is in the first carrier only.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.attacks.parties import Innocent, RawAgent, innocent_room
from tests.conftest import Watch
from tests.e2e.wire import frame
from tests.ears import HalfEar, pattern
from tests.faults.everything import Theatre, perform, play
from tests.faults.figures import Stopwatch, report
from tests.faults.memory import Weather
from tests.faults.stage import settles
from tests.processes import running_relay

pytestmark = pytest.mark.slow

Bend = Callable[[int, bool, int, bytes], bytes]

BLOBS = 200
TARGET_BYTES = len("GET /agent?room=r")
"""Left alone: another name of the room is another room, and nobody can tell."""

DESYNC = "A link has ended because of an error: "


def flipped(is_up: bool, place: int, bit: int) -> Bend:
    """Turns one bit of one direction."""
    passed = 0

    def bend(index: int, is_near: bool, _: int, piece: bytes) -> bytes:
        nonlocal passed
        if index or is_near != is_up:
            return piece
        start, passed = passed, passed + len(piece)
        if not start <= place < passed:
            return piece
        at = place - start
        return piece[:at] + bytes([piece[at] ^ bit]) + piece[at + 1 :]

    return bend


def lost(is_up: bool, number: int) -> Bend:
    """Loses one piece."""
    return lambda index, is_near, count, piece: (
        b"" if (index, is_near, count) == (0, is_up, number) else piece
    )


def doubled(is_up: bool, number: int) -> Bend:
    """Brings one piece twice."""
    return lambda index, is_near, count, piece: (
        piece * 2 if (index, is_near, count) == (0, is_up, number) else piece
    )


def truncated(is_up: bool, number: int) -> Bend:
    """Loses the second half of one piece."""
    return lambda index, is_near, count, piece: (
        piece[: len(piece) // 2] if (index, is_near, count) == (0, is_up, number) else piece
    )


def swapped(is_up: bool, number: int) -> Bend:
    """Lets one piece come after the next."""
    held = b""

    def bend(index: int, is_near: bool, count: int, piece: bytes) -> bytes:
        nonlocal held
        if index or is_near != is_up or count not in (number, number + 1):
            return piece
        if count == number:
            held = piece
            return b""
        return piece + held

    return bend


SENT = {
    "ada": b"".join(pattern(30, number + 10) for number in range(3)),
    "ada at the local server": b"".join(pattern(40, number) for number in range(3))
    + pattern(10, 22)
    + b"the last word",
    "ben": pattern(600, 20),
    "ben at the local server": pattern(200, 21),
}


def verdict(bend: Bend) -> str:
    """What came of it: "unharmed", "ended", or in other words what must not be."""
    random.seed(1)  # of the agent's waits
    theatre = Theatre(Weather(bend=bend))
    ears: dict[str, HalfEar] = {}
    has_ended = False
    try:
        perform(theatre, ears)
    except AssertionError:
        has_ended = True
    theatre.reactor.pass_seconds(60)
    has_ended = has_ended or len(theatre.weather.wires) > 1
    for name, ear in ears.items():
        is_told = ear.is_lost or "read ended" in ear.told
        if not SENT[name].startswith(bytes(ear.data)) and not (has_ended and is_told):
            return f"{name} was told something else, and its connection did not mind"
        if not ear.is_lost:
            ear.transport.abortConnection()
    if (trouble := next_client_is_not_served(theatre)) is not None:
        return trouble
    if left := theatre.close():
        return f"left behind: {left}"
    is_whole = all(name in ears and bytes(ears[name].data) == sent for name, sent in SENT.items())
    return "ended" if has_ended or not is_whole else "unharmed"


def next_client_is_not_served(theatre: Theatre) -> str | None:
    """Says why nobody who comes now is served; whoever comes upon a broken session may be refused once."""
    for last in (False, True):
        try:
            theatre.reactor.pass_until(lambda: theatre.agent.when_connected().called)
            client, local = theatre.join("next")
            client.transport.write(b"hello")
            theatre.reactor.pass_until(lambda local=local: local.data == b"hello")  # type: ignore[misc]
            client.transport.abortConnection()
            theatre.reactor.pass_until(lambda local=local: local.is_lost)  # type: ignore[misc]
        except AssertionError as error:
            if last:
                return f"the next client was not served: {error}"
        else:
            return None
    return None


def check(scenario: str, bends: dict[str, Bend], watch: Watch) -> None:
    stopwatch = Stopwatch()
    verdicts = {name: verdict(bend) for name, bend in bends.items()}
    wrong = {name: one for name, one in verdicts.items() if one not in ("ended", "unharmed")}
    counts = {one: list(verdicts.values()).count(one) for one in ("ended", "unharmed")}
    report(scenario, tries=len(bends), wrong=len(wrong), **counts, seconds=stopwatch.seconds)
    assert not wrong, "\n".join(f"{name}: {one}" for name, one in list(wrong.items())[:5])
    assert counts["ended"], "no fault has had any effect, so this shows nothing"
    # A link that finds that it was lied to says so at the level of an error; anything else is one.
    if logged := watch.failures():
        assert [line for line in logged if DESYNC not in line] == []
        watch.take()


def flips(step: int) -> dict[str, Bend]:
    dice = random.Random(9)
    half = play().carried[0] // 2 + 200
    return {
        f"bit {bit:#04x} of byte {place} {'up' if is_up else 'down'}": flipped(is_up, place, bit)
        for is_up in (True, False)
        for place in range(TARGET_BYTES + dice.randrange(step), half, step)
        for bit in (1 << dice.randrange(8),)
    }


def test_nobody_goes_on_with_bits_that_were_turned(watch: Watch) -> None:
    """F9."""
    check("F9 some bits", flips(step=53), watch)


@pytest.mark.slow
def test_nobody_goes_on_with_any_bit_that_was_turned(watch: Watch) -> None:
    """F9."""
    check("F9 many bits", flips(step=5), watch)


@pytest.mark.parametrize("fault", [lost, doubled, truncated, swapped])
def test_nobody_goes_on_with_messages_that_went_astray(
    fault: Callable[[bool, int], Bend], watch: Watch
) -> None:
    """F28: whole messages, most of them of one or a few yamux frames."""
    bends = {
        f"{fault.__name__} {number} {'up' if is_up else 'down'}": fault(is_up, number)
        for is_up in (True, False)
        for number in range(25)
    }
    check(f"F28 {fault.__name__}", bends, watch)


@pytest.mark.slow
def test_agents_that_say_anything_at_all_cost_nobody_else_anything() -> None:
    """F28: random bytes after attaching, on a fresh carrier each; a neighbour notices nothing."""
    dice = random.Random(28)
    with running_relay() as relay, innocent_room(relay) as target:
        for warming in range(2):
            before, descriptors = relay.resident_bytes(), len(relay.open_descriptors())
            with Innocent(relay, target, name="F28 neighbour"):
                for number in range(BLOBS):
                    with RawAgent(relay, f"babble-{warming}-{number % 7}") as agent:
                        if agent.head.status == 101:
                            blob = dice.randbytes(dice.choice([1, 11, 12, 13, 200, 5000]))
                            agent.wire.send(frame(dice.choice([1, 2, 2, 2, 9]), blob[:125], masked=True))
                            agent.wire.send(dice.choice([frame(2, blob, masked=True), blob]))
            settles(relay, descriptors)
            grown = relay.resident_bytes() - before
        report("F28 random bytes", agents=2 * BLOBS, grown_kib=grown // 1024)
        assert grown < 4 * 1024 * 1024
