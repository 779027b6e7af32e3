"""Constants of the yamux wire format, with references to the specification.

Reference ("spec" below): https://github.com/hashicorp/yamux/blob/master/spec.md, or the behaviour of every
known implementation. Limits that we choose are in :mod:`seance.yamux.limits`.

Frame types and flags are plain ints: ``IntFlag(x) & FIN`` costs forty times as much as ``x & FIN``, and this
runs once per frame.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

__all__ = [
    "ACK",
    "DATA",
    "DATA_FRAME_BYTES",
    "FIN",
    "GO_AWAY",
    "HEADER",
    "HEADER_BYTES",
    "INITIAL_WINDOW_BYTES",
    "KIB",
    "LAST_STREAM_ID",
    "MIB",
    "PING",
    "RST",
    "SESSION_ID",
    "SYN",
    "VERSION",
    "WINDOW_CEILING_BYTES",
    "WINDOW_UPDATE",
    "GoAwayCode",
    "Role",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB

HEADER: Final = struct.Struct(">BBHII")
"""Version, type, flags, stream id, length; all big-endian (spec, Framing)."""

HEADER_BYTES: Final = 12

VERSION: Final = 0
"""The only version (spec, Version Field)."""

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3
"""The four frame types (spec, Type Field)."""

SYN: Final = 0x1
ACK: Final = 0x2
FIN: Final = 0x4
RST: Final = 0x8
"""The four flags (spec, Flag Field)."""

SESSION_ID: Final = 0
"""The stream id of frames that concern the session itself (spec, StreamID Field)."""

INITIAL_WINDOW_BYTES: Final = 256 * KIB
"""Bytes that each side of a new stream may send before any window update (spec, Flow Control)."""

WINDOW_CEILING_BYTES: Final = 2**32 - 1
"""The largest window that the peer's updates may add up to: the maximum of the length field."""

LAST_STREAM_ID: Final = 2**32 - 3
"""The highest id that is opened; hashicorp/yamux has the same limit (session.go, OpenStream)."""

DATA_FRAME_BYTES: Final = 16 * KIB - HEADER_BYTES
"""The body of the largest frame that the scheduler grants in one turn. With its header it is the size that
rust-yamux chose, with 0.07 % of overhead. Consecutive turns of one stream in a message form one frame,
which in messages of 64 KiB is below the maximum of go-yamux."""


class GoAwayCode(enum.IntEnum):
    """Why a session ends (spec, GoAway). A peer may send other codes; they end the session too."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class Role(enum.Enum):
    """The end of the session; determines which stream ids are ours (spec, StreamID Field)."""

    CLIENT = 1
    """Opens 1, 3, 5 ...: the agent."""

    SERVER = 2
    """Opens 2, 4, 6 ...: the relay."""

    @property
    def first_stream_id(self) -> int:
        """The id of the first stream that this role opens."""
        return self.value

    @property
    def peer(self) -> Role:
        """The role of the other end."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT
