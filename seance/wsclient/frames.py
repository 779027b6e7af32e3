"""Encode and decode WebSocket frames (RFC 6455, section 5).

This codec negotiates nothing, joins no fragments and answers no frame, because doctor, check and bench
compare every frame with the one that was sent. Relay and agent use Autobahn for their own WebSocket, and do
not parse the frames of clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seance.errors import RemoteProtocolError

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "MAX_FRAME_BYTES",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "FrameReader",
    "apply_mask",
    "close_payload",
    "encode",
    "encode_header",
]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Default limit of a reader: four times the largest frame that ``seance check`` sends."""

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
        payload: The unmasked payload.
        is_final: The FIN bit: whether this frame completes a message.
    """

    opcode: int
    payload: bytes = b""
    is_final: bool = True


def encode(frame: Frame, *, mask: bytes | None = None) -> bytes:
    """Return a frame as bytes; ``mask`` is four bytes for a client and None for a server."""
    header = encode_header(frame.opcode, len(frame.payload), is_final=frame.is_final, mask=mask)
    return header + (frame.payload if mask is None else apply_mask(frame.payload, mask))


def encode_header(
    opcode: int, size: int, *, is_final: bool = True, reserved: int = 0, mask: bytes | None = None
) -> bytes:
    """Return the header of a frame, including its mask.

    Args:
        opcode: The opcode.
        size: Payload length to announce, in bytes.
        is_final: The FIN bit.
        reserved: The three reserved bits, 0 to 7.
        mask: Four bytes for a client; None for a server.
    """
    first = (FIN if is_final else 0) | reserved << 4 | opcode
    masked = 0 if mask is None else MASKED
    if size < TWO_BYTES:
        header = bytes((first, masked | size))
    elif size < 1 << 16:
        header = bytes((first, masked | TWO_BYTES)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, masked | EIGHT_BYTES)) + size.to_bytes(8, "big")
    return header + (mask or b"")


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame."""
    return code.to_bytes(2, "big") + reason.encode()


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload with four bytes.

    One XOR of two big integers is much faster than a loop over the bytes.
    """
    size = len(payload)
    if mask == b"\0\0\0\0" or not size:
        return payload
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


class FrameReader:
    """Decodes frames from a byte stream.

    Args:
        limit_bytes: Maximum payload length.
    """

    __slots__ = ("_buffer", "_limit_bytes", "_needed")

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._needed = 2  # parse nothing before the buffer holds this many bytes

    def receive(self, data: bytes) -> list[Frame]:
        """Add bytes and return the frames that are now complete.

        Raises:
            RemoteProtocolError: A reserved bit is set (``reserved_bit``), or a frame is too long
                (``frame_too_long``).
        """
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []
        frames = []
        at = 0
        while True:
            payload_at, end = self._bounds(buffer, at)
            if end > len(buffer):
                self._needed = end - at
                break
            payload = bytes(memoryview(buffer)[payload_at:end])
            if buffer[at + 1] & MASKED:
                payload = apply_mask(payload, bytes(buffer[payload_at - 4 : payload_at]))
            frames.append(Frame(buffer[at] & 0x0F, payload, bool(buffer[at] & FIN)))
            at = end
        del buffer[:at]
        return frames

    def _bounds(self, buffer: bytearray, at: int) -> tuple[int, int]:
        """Return start and end of the payload; the end of the header while the header is incomplete."""
        have = len(buffer) - at
        if have < 2:
            return at, at + 2
        first, second = buffer[at], buffer[at + 1]
        if first & RESERVED:
            raise RemoteProtocolError("A frame has a reserved bit set.", code="reserved_bit")
        size = second & 0x7F
        extended = {TWO_BYTES: 2, EIGHT_BYTES: 8}.get(size, 0)
        header = 2 + extended + (4 if second & MASKED else 0)
        if have < header:
            return at, at + header
        if extended:
            size = int.from_bytes(buffer[at + 2 : at + 2 + extended], "big")
        if size > self._limit_bytes:
            message = f"A frame has {size} bytes; the limit is {self._limit_bytes}."
            raise RemoteProtocolError(message, code="frame_too_long")
        return at + header, at + header + size
