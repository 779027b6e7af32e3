"""WebSocket frames as bytes (RFC 6455, 5), for a client and a server that exist in order to look at a tunnel.

Not a WebSocket library: it negotiates nothing, joins no fragments and closes nothing by itself, because the
programs that use it want to see every frame as it came. The tunnel itself never looks at frames; what
serves people does it with Autobahn. Here that would be most of what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seance.errors import RemoteProtocolError

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "LONGEST_FRAME_BYTES",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "FrameReader",
    "close_payload",
    "encode",
]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

LONGEST_FRAME_BYTES = 64 * 1024 * 1024
"""What a reader takes at most; the biggest frame that is sent here has a quarter of it."""

FIN: Final = 0x80
MASKED: Final = 0x80
RESERVED: Final = 0x70
TWO_BYTES: Final = 126
EIGHT_BYTES: Final = 127


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        opcode: ``TEXT``, ``BINARY``, ``CONTINUATION``, ``CLOSE``, ``PING`` or ``PONG``.
        payload: Without the mask.
        is_last: Whether a message ends with it (FIN).
    """

    opcode: int
    payload: bytes = b""
    is_last: bool = True


def encode(frame: Frame, *, mask: bytes | None = None) -> bytes:
    """Write one frame.

    Args:
        frame: What to write.
        mask: Four bytes on a client's side; None on a server's.
    """
    size = len(frame.payload)
    first = frame.opcode | (FIN if frame.is_last else 0)
    masked = 0 if mask is None else MASKED
    if size < TWO_BYTES:
        head = bytes((first, masked | size))
    elif size < 1 << 16:
        head = bytes((first, masked | TWO_BYTES)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, masked | EIGHT_BYTES)) + size.to_bytes(8, "big")
    return head + frame.payload if mask is None else head + mask + _masked(frame.payload, mask)


def close_payload(code: int, reason: str = "") -> bytes:
    """Return what a close frame says."""
    return code.to_bytes(2, "big") + reason.encode()


class FrameReader:
    """Takes bytes as they come, cut anywhere, and gives whole frames.

    Args:
        limit_bytes: A longer frame is an error.
    """

    __slots__ = ("_buffer", "_limit_bytes", "_needed")

    def __init__(self, limit_bytes: int = LONGEST_FRAME_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._needed = 2  # a look at fewer bytes would be in vain

    def receive(self, data: bytes) -> list[Frame]:
        """Take the next bytes.

        Returns:
            The frames that are whole now.

        Raises:
            RemoteProtocolError: A reserved bit is set, or a frame is too long.
        """
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []
        frames = []
        at = 0
        while True:
            payload_at, ends = self._bounds(buffer, at)
            if ends > len(buffer):
                self._needed = ends - at
                break
            payload = bytes(memoryview(buffer)[payload_at:ends])
            if buffer[at + 1] & MASKED:
                payload = _masked(payload, bytes(buffer[payload_at - 4 : payload_at]))
            frames.append(Frame(buffer[at] & 0x0F, payload, bool(buffer[at] & FIN)))
            at = ends
        del buffer[:at]
        return frames

    def _bounds(self, buffer: bytearray, at: int) -> tuple[int, int]:
        """Return where the payload begins and ends, or the end of what has to be there to know it."""
        have = len(buffer) - at
        if have < 2:
            return at, at + 2
        first, second = buffer[at], buffer[at + 1]
        if first & RESERVED:
            raise RemoteProtocolError("A frame has a reserved bit set.", code="reserved_bit")
        size = second & 0x7F
        more = {TWO_BYTES: 2, EIGHT_BYTES: 8}.get(size, 0)
        head = 2 + more + (4 if second & MASKED else 0)
        if have < head:
            return at, at + head
        if more:
            size = int.from_bytes(buffer[at + 2 : at + 2 + more], "big")
        if size > self._limit_bytes:
            sentence = f"A frame has {size} bytes; at most {self._limit_bytes} are taken."
            raise RemoteProtocolError(sentence, code="frame_too_long")
        return at + head, at + head + size


def _masked(payload: bytes, mask: bytes) -> bytes:
    """Return the payload with the mask put on or taken off, at the speed of big integers."""
    size = len(payload)
    if mask == b"\0\0\0\0" or not size:
        return payload
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
