"""Encode and decode frames without ``seance.yamux``, so that tests check the wire format independently."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "GO_AWAY",
    "PING",
    "RST",
    "SYN",
    "WINDOW",
    "WireFrame",
    "data",
    "frame",
    "go_away",
    "ping",
    "read_frames",
    "window",
]

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
KINDS = ("data", "window", "ping", "go_away")


@dataclass(frozen=True)
class WireFrame:
    kind: int
    flags: int
    stream_id: int
    length: int
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<{KINDS[self.kind]} {self.flags:#x} stream {self.stream_id} length {self.length}>"


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"", version: int = 0) -> bytes:
    return struct.pack(">BBHII", version, kind, flags, stream_id, length) + body


def data(stream_id: int, body: bytes = b"", flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, len(body), body)


def window(stream_id: int, flags: int = 0, delta: int = 0) -> bytes:
    return frame(WINDOW, flags, stream_id, delta)


def ping(flags: int, value: int) -> bytes:
    return frame(PING, flags, 0, value)


def go_away(code: int) -> bytes:
    return frame(GO_AWAY, 0, 0, code)


def read_frames(octets: bytes) -> tuple[list[WireFrame], bytes]:
    """Read whole frames; return them and the rest: an incomplete or an invalid frame."""
    frames = []
    while len(octets) >= 12:
        version, kind, flags, stream_id, length = struct.unpack(">BBHII", octets[:12])
        end = 12 + (length if kind == DATA else 0)
        if version != 0 or kind > GO_AWAY or len(octets) < end:
            break
        frames.append(WireFrame(kind, flags, stream_id, length, octets[12:end]))
        octets = octets[end:]
    return frames, octets
