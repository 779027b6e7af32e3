"""The short way for the two kinds of frame that nearly all are: unfragmented binary, and short text.

Autobahn takes 8.7 us to send such a frame from the agent and 17.7 us to receive it on the relay,
most of it spent on what these frames never have; here it is a header and an XOR (yamux.md 6.2,
measured). A binary frame that is cut by a read is delivered in pieces, as it comes. Text is taken if it
is an acknowledgement or the like: whole, at most 125 bytes, ASCII; there is one for every few binary
frames, and what stands behind a frame that Autobahn gets is Autobahn's too. Everything else is left
to it: fragments, control frames, headers that are cut, lengths that are not the shortest form or
beyond what Autobahn would take, wrong masks. One of the marked loops of the project: local names and
no objects are on purpose.

Called by ``seance.carrier.websocket`` alone. RFC 6455, 5.2 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.websocket.protocol import create_xor_masker

__all__ = ["UsualFrames", "frame", "masked_frame"]

FIN_BINARY = 0x82
FIN_TEXT = 0x81
MASKED = 0x80

LONGEST_BYTES = 16 * 1024 * 1024
"""The longest message that is taken at all; ``seance.carrier.websocket`` tells Autobahn the same."""

SMALL_BYTES = 1024
"""Up to here one big-integer XOR is quicker than Autobahn's masker, which costs 3.6 us to set up."""


def frame(payload: bytes, *, is_text: bool = False) -> list[bytes]:
    """Return a server's frame, as pieces; ``payload`` has at most 64 KiB."""
    return [_header(FIN_TEXT if is_text else FIN_BINARY, len(payload), 0), payload]


def masked_frame(payload: bytes, key: bytes, *, is_text: bool = False) -> list[bytes]:
    """Return a client's frame, as pieces.

    Args:
        payload: What it carries, at most 64 KiB.
        key: Four unpredictable bytes (RFC 6455, 5.3).
        is_text: Whether it is text, UTF-8 then.
    """
    kind = FIN_TEXT if is_text else FIN_BINARY
    return [_header(kind, len(payload), MASKED) + key, _masked(payload, key)]


class UsualFrames:
    """Takes the usual frames of one carrier from what is read.

    Args:
        is_masked: Whether the peer has to mask.
        deliver: Gets each binary payload, or each piece of one that was cut by a read; False ends the loop.
        deliver_text: Gets each text; False ends the loop too.

    Attributes:
        left_bytes: What is missing of a frame that has begun. While there is any, ``take`` has to get
            all that is read.
    """

    __slots__ = ("_deliver", "_deliver_text", "_is_masked", "_masker", "left_bytes")

    def __init__(
        self, is_masked: bool, deliver: Callable[[bytes], bool], deliver_text: Callable[[bytes], bool]
    ) -> None:
        self._is_masked = is_masked
        self._deliver = deliver
        self._deliver_text = deliver_text
        self._masker: Any = None
        self.left_bytes = 0

    def take(self, data: bytes) -> int:
        """Deliver the usual frames at the beginning of ``data``.

        Args:
            data: What was read, beginning with a frame, or with the rest of the one that has begun.

        Returns:
            How many bytes were taken. What follows is for Autobahn.
        """
        position, end = 0, len(data)
        is_masked, deliver = self._is_masked, self._deliver
        if self.left_bytes:
            position = min(self.left_bytes, end)
            self.left_bytes -= position
            piece = data if position == end else data[:position]
            if not deliver(self._masker.process(piece) if is_masked else piece):
                return position
        mask_flag = MASKED if is_masked else 0
        key_bytes = 4 if is_masked else 0
        while position + 2 <= end:
            kind = data[position]
            if kind == FIN_TEXT:
                after = self._take_text(data, position)
                if after == position:
                    break
                position = after
                continue
            if kind != FIN_BINARY:
                break
            length = data[position + 1] - mask_flag
            body = position + 2
            if length == 126:
                length = int.from_bytes(data[body : body + 2])
                body += 2
                if length < 126:
                    break
            elif length == 127:
                length = int.from_bytes(data[body : body + 8])
                body += 8
                if not 65536 <= length <= LONGEST_BYTES:
                    break
            elif not 0 < length < 126:
                break
            body += key_bytes
            if body >= end:
                break
            position = body + length
            if position <= end:
                payload = data[body:position]
                if is_masked:
                    payload = _masked(payload, data[body - 4 : body])
            else:
                payload = data[body:]
                self.left_bytes = position - end
                position = end
                if is_masked:
                    self._masker = create_xor_masker(data[body - 4 : body], length)
                    payload = self._masker.process(payload)
            if not deliver(payload):
                break
        return position

    def _take_text(self, data: bytes, position: int) -> int:
        length = data[position + 1] - (MASKED if self._is_masked else 0)
        body = position + (6 if self._is_masked else 2)
        after = body + length
        if not 0 < length < 126 or after > len(data):
            return position
        text = data[body:after]
        if self._is_masked:
            text = _masked(text, data[body - 4 : body])
        # What is not ASCII has to be checked for UTF-8; nothing of ours needs it.
        return after if text.isascii() and self._deliver_text(text) else position


def _header(kind: int, length: int, mask_flag: int) -> bytes:
    if length < 126:
        return bytes((kind, mask_flag | length))
    if length < 65536:
        return bytes((kind, mask_flag | 126)) + length.to_bytes(2)
    return bytes((kind, mask_flag | 127)) + length.to_bytes(8)


def _masked(payload: bytes, key: bytes) -> bytes:
    length = len(payload)
    if length <= SMALL_BYTES:
        mask = (key * (length // 4 + 1))[:length]
        return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(length)
    masked: bytes = create_xor_masker(key, length).process(payload)
    return masked
