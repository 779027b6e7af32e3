"""Decode yamux bytes, with code that shares nothing with ours.

Used by the recorded vectors and the live tests: the pattern of the data of every stream, a frame decoder, the
send rules, and the outline of the frames of one side.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "GO_AWAY",
    "PING",
    "RST",
    "SYN",
    "WINDOW",
    "Frame",
    "Recording",
    "Step",
    "check_sending_rules",
    "frames_of",
    "heard",
    "opposite",
    "outline",
    "pattern",
    "vectors",
    "wire_bytes",
]

Step: TypeAlias = dict[str, Any]
"""One line of a recording: who did what on which stream; see ``tests/go/party/step.go``."""

Recording: TypeAlias = dict[str, Any]
"""One run of a scenario: the side that opened, the configuration of both sides, and the steps."""

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

_VECTORS = Path(__file__).resolve().parent.parent / "vectors"
_PATTERN = bytes(range(251))


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    flags: int
    stream: int
    length: int
    body: bytes = field(default=b"", repr=False)


def pattern(start: int, count: int) -> bytes:
    """Return bytes ``start`` to ``start + count`` of the data of a stream, the same both ways."""
    period = len(_PATTERN)
    return (_PATTERN * (count // period + 2))[start % period :][:count]


def wire_bytes(spelled: str) -> bytes:
    """Decode one recorded write: hex, or ``[HEX]run:START:COUNT`` for a long part of the pattern."""
    head, _, run = spelled.partition("run:")
    return bytes.fromhex(head) + (pattern(*map(int, run.split(":"))) if run else b"")


def frames_of(wire: bytes) -> Iterator[Frame]:
    """Decode ``wire``, which must consist of whole frames."""
    at = 0
    while at < len(wire):
        version, kind, flags, stream, length = struct.unpack_from(">BBHII", wire, at)
        at += 12
        body = wire[at : at + length] if kind == DATA and version == 0 else b""
        assert len(body) == length or kind != DATA, "the bytes end inside a frame"
        at += len(body)
        yield Frame(kind, flags, stream, length, body)


def vectors() -> dict[str, dict[str, Any]]:
    """Return every recorded scenario by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(_VECTORS.glob("*.json"))}


def opposite(role: str) -> str:
    return "server" if role == "client" else "client"


def heard(recording: Recording, role: str) -> list[Frame]:
    """Return the frames that the other side of ``role`` wrote."""
    steps = (step for step in recording["steps"] if step["what"] == "bytes" and step["who"] != role)
    return list(frames_of(b"".join(wire_bytes(each) for step in steps for each in step["wire"])))


def check_sending_rules(frames: Iterable[Frame]) -> None:
    """Check the send rules that can be seen in one side's bytes.

    Lone SYN, lone ACK before any data, at most one lone FIN or RST with nothing after it, no flags on data,
    data frames of at most 16 KiB.
    """
    said: dict[int, set[int]] = defaultdict(set)
    for frame in frames:
        before = said[frame.stream]
        if frame.stream == 0:
            assert frame.kind in (PING, GO_AWAY), frame
            continue
        assert RST not in before, f"after RST: {frame}"
        assert frame.flags in (0, SYN, ACK, FIN, RST), f"combined flags: {frame}"
        assert frame.flags not in before or not frame.flags, f"a second time: {frame}"
        if frame.flags:
            assert frame.kind == WINDOW, f"a flag on data: {frame}"
            assert frame.flags in (SYN, ACK) or frame.length == 0, f"FIN or RST with credit: {frame}"
            assert frame.flags not in (SYN, ACK) or not before, f"not the first of its stream: {frame}"
        if frame.kind == DATA:
            assert FIN not in before, f"data after FIN: {frame}"
            assert 0 < frame.length < 65536, f"not a frame of ours: {frame}"
        before.add(frame.flags)


def outline(frames: Iterable[Frame]) -> dict[int, list[str]]:
    """Return what was sent on each stream (0: the session), without credit and frame sizes.

    Both depend on the implementation, except for the credit on a SYN or ACK, which is the window size.
    """
    told: dict[int, list[str]] = defaultdict(list)
    amounts: dict[int, int] = defaultdict(int)
    for frame in frames:
        if frame.kind == PING:
            told[0].append("ping" if frame.flags & SYN else "pong")
        elif frame.kind == GO_AWAY:
            told[0].append(f"go away {frame.length}")
        else:
            amounts[frame.stream] += len(frame.body)
            extra = f" with {frame.length} more" if frame.kind == WINDOW and frame.length else ""
            words = ((SYN, "opens" + extra), (ACK, "accepts" + extra), (FIN, "ends"), (RST, "resets"))
            told[frame.stream] += [word for flag, word in words if frame.flags & flag]
    for stream, amount in amounts.items():
        if amount:
            told[stream].append(f"{amount} bytes")
    return {stream: words for stream, words in told.items() if words}
