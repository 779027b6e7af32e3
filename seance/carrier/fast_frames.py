"""The short way for the frames that nearly all are: unfragmented binary, and short text.

Autobahn takes 8.7 us to send such a frame from the agent and 17.7 us to receive it on the relay,
most of it spent on what these frames never have; here it is a header and an XOR (yamux.md 6.2,
measured). All binary frames of one read are delivered as one piece, and so is the part of a frame that is
cut by a read. Text is taken if it is an acknowledgement or the like: at most 125 bytes, ASCII; there is one
for every few binary frames. What is left to Autobahn is everything else: fragments, lengths that are not
the shortest form or beyond what Autobahn would take, wrong masks, and all that stands behind one of these
in the same read. Control frames it gets too, but alone, and a header that is cut waits here for its rest:
else it would have to work off what follows until a read happens to end where a frame does, which
under load took a fifth of the relay's time. One of the marked loops of the project: local names and
no objects are on purpose.

Called by ``seance.carrier.websocket`` alone. RFC 6455, 5.2 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["FastFrameCodec", "frame", "masked_frame"]

FIN_BINARY = 0x82
FIN_TEXT = 0x81
FIN_CONTROL = 0x88
CONTROL_BITS = 0xF8
MASKED = 0x80

LONGEST_BYTES = 16 * 1024 * 1024
"""The longest message that is taken at all; ``seance.carrier.websocket`` tells Autobahn the same."""

SMALL_BYTES = 192
"""Up to here one big-integer XOR is quicker than the masker in C."""

VIEWED_BYTES = 4096
"""From here on a read is cut into views, which are copied once, when they are joined."""

Bytes = bytes | bytearray | memoryview


def _masker_in_c() -> Any:  # noqa: ANN401  # a module without types
    """Return what is under Autobahn's masker, which makes three objects a frame; None where it has none."""
    try:
        return import_module("_nvx_xormasker")
    except ImportError:
        return None


_nvx = _masker_in_c()


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
    return [_header(kind, len(payload), MASKED) + key, bytes(_masked(payload, key))]


class FastFrameCodec:
    """Takes the usual frames of one carrier from what is read.

    Args:
        is_masked: Whether the peer has to mask.
        deliver: Gets binary payloads, joined, or a piece of one that was cut; False ends the loop.
        deliver_text: Gets each text; False leaves it, and all behind it, to Autobahn.
        leave_control: Gets each control frame, for Autobahn; False ends the loop.

    Attributes:
        has_begun: Whether a frame has begun and not ended: ``take`` has to get all that is read then.
    """

    __slots__ = ("_deliver", "_deliver_text", "_head", "_is_masked", "_key", "_leave_control", "_left_bytes")

    def __init__(
        self,
        is_masked: bool,
        deliver: Callable[[bytes], bool],
        deliver_text: Callable[[bytes], bool],
        leave_control: Callable[[bytes], bool],
    ) -> None:
        self._is_masked = is_masked
        self._deliver = deliver
        self._deliver_text = deliver_text
        self._leave_control = leave_control
        self._head = b""  # of a frame that was cut before there was anything to deliver of it
        self._left_bytes = 0  # what is missing of a binary frame
        self._key = b""  # ... and its mask, turned so that it begins where the rest does

    @property
    def has_begun(self) -> bool:
        """Whether a frame has begun and not ended: ``take`` has to get all that is read then."""
        return bool(self._left_bytes or self._head)

    def take(self, data: bytes) -> bytes:
        """Deliver the usual frames at the beginning of ``data``.

        Args:
            data: What was read, beginning with a frame, or with the rest of the one that has begun.

        Returns:
            What is for Autobahn, beginning with a frame; nearly always nothing.
        """
        position = 0
        pieces: list[Bytes] = []
        is_masked = self._is_masked
        if self._left_bytes:
            position = self._take_rest(data, pieces)
        elif self._head:
            data = self._head + data
            self._head = b""
        end = len(data)
        source: Bytes = data if end < VIEWED_BYTES else memoryview(data)
        mask_flag, key_bytes = (MASKED, 4) if is_masked else (0, 0)
        while position < end:
            if position + 2 > end:
                self._head = data[position:]
                break
            length = data[position + 1] - mask_flag
            body = position + 2 + key_bytes
            kind = data[position]
            if kind != FIN_BINARY:
                if not 0 <= length < 126 or not (kind == FIN_TEXT or kind & CONTROL_BITS == FIN_CONTROL):
                    break
                after = body + length
                if after > end:
                    self._head = data[position:]
                    break
                if pieces and not self._deliver(_joined(pieces)):
                    return data[position:]
                pieces = []
                if kind == FIN_TEXT:
                    if not self._take_text(data[body - key_bytes : after]):
                        break
                    position = after
                else:
                    control = data[position:after]
                    position = after
                    if not self._leave_control(control):
                        break
                continue
            if length > 125:
                body += 2 if length == 126 else 8
            if not 0 < length < 128:
                break
            if body >= end:
                self._head = data[position:]
                break
            if length > 125:
                shortest = 126 if length == 126 else 65536
                length = int.from_bytes(data[position + 2 : body - key_bytes])
                if not shortest <= length <= LONGEST_BYTES:
                    break
            position = body + length
            piece = source[body:position]
            if is_masked:
                key = data[body - 4 : body]
                piece = _masked(piece, key)
                if position > end:
                    self._key = _turned(key, end - body)
            pieces.append(piece)
            if position > end:
                self._left_bytes = position - end
        rest = b"" if self._head else data[position:]
        if pieces and not self._deliver(_joined(pieces)):
            rest, self._head = self._head + rest, b""
        return rest

    def _take_rest(self, data: bytes, pieces: list[Bytes]) -> int:
        piece: Bytes = data if len(data) <= self._left_bytes else memoryview(data)[: self._left_bytes]
        count = len(piece)
        self._left_bytes -= count
        if self._is_masked:
            piece = _masked(piece, self._key)
            self._key = _turned(self._key, count)
        pieces.append(piece)
        return count

    def _take_text(self, text: bytes) -> bool:
        if self._is_masked:
            text = bytes(_masked(text[4:], text[:4]))
        # What is not ASCII has to be checked for UTF-8; nothing of ours needs it.
        return bool(text) and text.isascii() and self._deliver_text(text)


def _header(kind: int, length: int, mask_flag: int) -> bytes:
    if length < 126:
        return bytes((kind, mask_flag | length))
    if length < 65536:
        return bytes((kind, mask_flag | 126)) + length.to_bytes(2)
    return bytes((kind, mask_flag | 127)) + length.to_bytes(8)


def _masked(payload: Bytes, key: bytes) -> Bytes:
    length = len(payload)
    if length <= SMALL_BYTES or _nvx is None:
        mask = (key * (length // 4 + 1))[:length]
        return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(length)
    masked = bytearray(payload)
    masker = _nvx.lib.nvx_xormask_new(key)
    _nvx.lib.nvx_xormask_process(masker, _nvx.ffi.from_buffer(masked), length)
    _nvx.lib.nvx_xormask_free(masker)
    return masked


def _turned(key: bytes, count: int) -> bytes:
    """Return the mask for what follows ``count`` bytes that had ``key``."""
    turn = count % 4
    return key[turn:] + key[:turn]


def _joined(pieces: list[Bytes]) -> bytes:
    piece = pieces[0]
    return piece if len(pieces) == 1 and isinstance(piece, bytes) else b"".join(pieces)
