"""Recorded conversations of hashicorp/yamux v0.1.2, replayed to our session.

The vectors are recorded by ``tests/go/record`` (which documents how to record them again). They have, step by
step, the actions of each side's program and the bytes on the wire. Here our session replaces one side: it
takes that program's actions and is fed the bytes of the other side, cut in every way. It has to report the
same events as the program saw, and the frames that it sends have to be equivalent to the recorded ones.

The replay does not need Go. ``tests/interop/test_yamux_live.py`` checks that a live hashicorp/yamux
understands our session.
"""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seance.errors import RemoteProtocolError
from seance.yamux import GoAwayReceived
from tests.interop.player import Player, expected_history, limits_for, steps_of
from tests.interop.wire import (
    ACK,
    GO_AWAY,
    PING,
    SYN,
    WINDOW,
    Recording,
    check_sending_rules,
    heard,
    opposite,
    outline,
    vectors,
    wire_bytes,
)

# Ways to cut

Cut = Callable[[bytes], Iterator[bytes]]


def whole(text: bytes) -> Iterator[bytes]:
    yield text


def byte_by_byte(text: bytes) -> Iterator[bytes]:
    """Cut into single bytes, except inside a long body."""
    depth = 3000
    middle = text[depth:-depth]
    for at in range(min(depth, len(text))):
        yield text[at : at + 1]
    if middle:
        yield middle
    for at in range(max(depth, len(text) - depth), len(text)):
        yield text[at : at + 1]


def at_random(seed: int) -> Cut:
    def cut(text: bytes) -> Iterator[bytes]:
        chance, at = random.Random(seed), 0
        while at < len(text):
            size = chance.choice((1, 2, 3, 11, 12, 13, 40, chance.randint(1, 20000)))
            yield text[at : at + size]
            at += size

    return cut


CUTS: dict[str, Cut] = {"whole": whole, "byte_by_byte": byte_by_byte}
CUTS |= {f"random_{seed}": at_random(seed) for seed in range(2)}


class Replay(Player):
    """Plays ``role`` in a recording.

    Args:
        recording: The steps of both sides.
        role: The side to play.
        cut: How to cut each answer of the other side; None leaves every write as recorded.
    """

    def __init__(self, recording: Recording, role: str, cut: Cut | None = None) -> None:
        super().__init__(role, limits_for(recording, role))
        self.cut = cut
        self.fatal: RemoteProtocolError | None = None
        for step in recording["steps"]:
            if step["what"] != "bytes" and step["who"] == role:
                self.do(step)
            elif step["what"] == "bytes" and step["who"] != role:
                self.hear([self.with_our_ping(wire_bytes(each)) for each in step["wire"]])

    def hear(self, writes: list[bytes]) -> None:
        assert self.fatal is None, "nothing comes after the end of the session"
        try:
            for piece in self.cut(b"".join(writes)) if self.cut else writes:
                self.session.receive_data(piece, self.now)
        except RemoteProtocolError as error:
            self.fatal = error
        self.handle_events()

    def with_our_ping(self, write: bytes) -> bytes:
        """Replace the number of a recorded pong by that of our ping."""
        asked = [frame.length for frame in self.frames() if (frame.kind, frame.flags) == (PING, SYN)]
        if asked and write[:4] == struct.pack(">BBH", 0, PING, ACK):
            return write[:8] + struct.pack(">I", asked[-1])
        return write


def cases(only: Callable[[Recording, str], bool] = lambda recording, role: True) -> list[Any]:
    """Every recorded side that our session can play; with ``only``, those for which it is true."""
    return list(_cases(only))


def _cases(only: Callable[[Recording, str], bool]) -> Iterator[Any]:
    for name, vector in vectors().items():
        for recording in vector["recordings"]:
            for role in ("client", "server"):
                if role != recording["script"] and only(recording, role):
                    yield pytest.param(recording, role, id=f"{name}-{recording['opener']}_opens-as_{role}")


def reads(recording: Recording, role: str) -> bool:
    return any(step["what"] == "read" for step in steps_of(recording, role))


def asked_pings(recording: Recording, role: str) -> list[int]:
    return [frame.length for frame in heard(recording, role) if (frame.kind, frame.flags) == (PING, SYN)]


@pytest.mark.parametrize(("recording", "role"), cases())
@pytest.mark.parametrize("cut", [None, *CUTS.values()], ids=["as_recorded", *CUTS])
def test_recorded_side_is_understood(recording: Recording, role: str, cut: Cut | None) -> None:
    replay = Replay(recording, role, cut)
    steps = steps_of(recording, role)
    for stream in {step["stream"] for step in steps if "stream" in step}:
        assert replay.streams[stream] == expected_history(recording, role, stream)
    gone = [frame.length for frame in heard(recording, role) if frame.kind == GO_AWAY]
    assert [event.code for event in replay.about_session if isinstance(event, GoAwayReceived)] == gone
    assert replay.pings_answered() == sum(step["what"] in ("ping", "kept_alive") for step in steps)
    is_over = any(step["what"] == "session_over" for step in steps)
    assert replay.session.is_closed == is_over
    assert (replay.fatal is not None) == (is_over and not gone)


@pytest.mark.parametrize(("recording", "role"), cases())
def test_sent_frames_are_equivalent_to_the_recording(recording: Recording, role: str) -> None:
    replay = Replay(recording, role)
    recorded = outline(heard(recording, opposite(role)))
    for step in steps_of(recording, role):
        told = recorded.get(step.get("stream", 0), [])
        if step["what"] == "accept" and not any(word.startswith("accepts") for word in told):
            # hashicorp/yamux does not acknowledge a stream that ended before it was accepted; we always do.
            recorded[step["stream"]] = ["accepts", *told]
    if replay.fatal is not None:
        # hashicorp/yamux intends to send this too, but closes before it was sent.
        recorded[0] = ["go away 1"]
    asked = any(step["what"] in ("ping", "kept_alive") for step in steps_of(recording, role))
    # Ours also measures the round trip, for windows that grow.
    said = [frame for frame in replay.frames() if asked or (frame.kind, frame.flags) != (PING, SYN)]
    assert outline(said) == recorded
    check_sending_rules(replay.frames())


@pytest.mark.parametrize(("recording", "role"), cases(reads))
def test_credit_follows_consumed_data(recording: Recording, role: str) -> None:
    """The peer never gets more than our window, and does not wait after we have consumed half of it."""
    replay = Replay(recording, role)
    window = recording["window_bytes"] or 256 * 1024
    granted: dict[int, int] = defaultdict(lambda: 256 * 1024)
    for frame in replay.frames():
        if frame.kind == WINDOW:
            granted[frame.stream] += frame.length
    for stream, read in replay.taken_bytes.items():
        assert granted[stream] <= window + read
        if "ended" not in replay.streams[stream]:
            assert granted[stream] > window // 2 + read


@pytest.mark.parametrize(("recording", "role"), cases(lambda *side: bool(asked_pings(*side))))
def test_answered_pings_carry_their_numbers(recording: Recording, role: str) -> None:
    said = Replay(recording, role).frames()
    answers = [frame.length for frame in said if (frame.kind, frame.flags) == (PING, ACK)]
    assert answers == asked_pings(recording, role)


def test_every_vector_names_its_origin() -> None:
    assert vectors()
    for name, vector in vectors().items():
        assert vector["scenario"] == name
        assert vector["recorded"]["module"] == "github.com/hashicorp/yamux v0.1.2"
        assert vector["recorded"]["go"].startswith("go1.")
        assert vector["recorded"]["command"] == "go run ./record -into ../vectors"
