"""Bytes between agent and relay are changed, lost, duplicated or reordered.

TCP prevents this; a faulty proxy, a bad memory chip or a bug of this project may cause it. The damage cannot
be undone. The tests require three things: an end that received other bytes than were sent loses its
connection, neither program fails in another way, and the next client is served as usual.

The exchange is that of ``tests/faults/everything.py``, in memory; only the first carrier has the fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.attacks.parties import Innocent, RawAgent, innocent_room
from tests.conftest import Watch
from tests.e2e.wire import frame
from tests.ears import HalfEar, pattern
from tests.faults.everything import LONG_BYTES, Theatre, perform, play
from tests.faults.figures import Stopwatch, report
from tests.faults.memory import Weather
from tests.faults.stage import settles
from tests.processes import running_relay

pytestmark = pytest.mark.slow

Bend = Callable[[int, bool, int, bytes], bytes]

BLOBS = 200
TARGET_BYTES = len("GET /agent?room=r")
"""Not changed: with another room name the agent serves another room, which is no error."""

DESYNC = "A link has ended because of an error: "


def flipped(is_up: bool, place: int, bit: int) -> Bend:
    """Flip one bit in one direction."""
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
    """Drop one piece."""
    return lambda index, is_near, count, piece: (
        b"" if (index, is_near, count) == (0, is_up, number) else piece
    )


def doubled(is_up: bool, number: int) -> Bend:
    """Deliver one piece twice."""
    return lambda index, is_near, count, piece: (
        piece * 2 if (index, is_near, count) == (0, is_up, number) else piece
    )


def truncated(is_up: bool, number: int) -> Bend:
    """Drop the second half of one piece."""
    return lambda index, is_near, count, piece: (
        piece[: len(piece) // 2] if (index, is_near, count) == (0, is_up, number) else piece
    )


def swapped(is_up: bool, number: int) -> Bend:
    """Deliver one piece after the next."""
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
    "ben": pattern(LONG_BYTES, 20),
    "ben at the local server": pattern(200, 21),
}


def verdict(bend: Bend) -> str:
    """Return "unharmed" or "ended", or a description of what must not happen."""
    random.seed(1)  # for the agent's retry delays
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
        is_closed = ear.is_lost or "read ended" in ear.told
        if not SENT[name].startswith(bytes(ear.data)) and not (has_ended and is_closed):
            return f"{name} received other bytes than were sent, and its connection stayed open"
        if not ear.is_lost:
            ear.transport.abortConnection()
    if (trouble := next_client_is_not_served(theatre)) is not None:
        return trouble
    if left := theatre.close():
        return f"left behind: {left}"
    is_whole = all(name in ears and bytes(ears[name].data) == sent for name, sent in SENT.items())
    return "ended" if has_ended or not is_whole else "unharmed"


def next_client_is_not_served(theatre: Theatre) -> str | None:
    """Describe why a new client is not served; None if it is. A broken session may refuse one client."""
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
    assert counts["ended"], "no fault had any effect, so the test proves nothing"
    # A link that finds a desynchronisation logs an error; any other logged error is a failure.
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


def test_a_flipped_bit_ends_the_connection_or_changes_nothing(watch: Watch) -> None:
    check("F9 bits", flips(step=7), watch)


@pytest.mark.parametrize("fault", [lost, doubled, truncated, swapped])
def test_a_lost_doubled_or_reordered_message_ends_the_connection(
    fault: Callable[[bool, int], Bend], watch: Watch
) -> None:
    """Whole WebSocket messages; most consist of one or a few yamux frames."""
    bends = {
        f"{fault.__name__} {number} {'up' if is_up else 'down'}": fault(is_up, number)
        for is_up in (True, False)
        for number in range(25)
    }
    check(f"F28 {fault.__name__}", bends, watch)


def test_agents_that_send_random_bytes_do_not_affect_other_rooms() -> None:
    """Each sends random bytes over a new carrier; a client of another room is served as usual."""
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
