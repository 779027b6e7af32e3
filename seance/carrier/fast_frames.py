"""A fast codec for the most common WebSocket frames: unfragmented binary, and short text.

Autobahn needs 8.7 us to send such a frame on the agent and 17.7 us to receive it on the relay, most of it for
features that these frames do not use. Here a frame costs a header and an XOR. All binary payload of one read
is delivered as one piece, and so is the first part of a frame that the read cuts off. Text frames of at most
125 ASCII bytes are handled too, because there is an acknowledgement for every few binary frames.

Autobahn gets all other frames, and everything behind them in the same read: fragments, lengths that are too
large or not in their shortest form, and wrong masks. A control frame is passed to Autobahn separately, and an
incomplete header waits here for its remaining bytes. Otherwise Autobahn would have to parse all that follows
until a read happens to end at a frame boundary, which took a fifth of the relay's time under load.

This is one of the project's hot loops, so it uses local names and makes no objects. Used only by
``seance.carrier.websocket``. RFC 6455, 5.2 and 5.3.
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

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Maximum length of a message. hashicorp/yamux sends a whole window in one; no window is larger."""

SMALL_BYTES = 192
"""Up to this length one big-integer XOR is faster than the masker in C."""

MIN_VIEW_BYTES = 4096
"""From this length on, a read is cut into memory views, which are copied only once, when they are joined."""

Bytes = bytes | bytearray | memoryview


def _masker_in_c() -> Any:  # noqa: ANN401  # a module without types
    """Return the C module that Autobahn's masker uses; None if it is missing. It makes fewer objects."""
    try:
        return import_module("_nvx_xormasker")
    except ImportError:
        return None


_nvx = _masker_in_c()


def frame(payload: bytes, *, is_text: bool = False) -> list[Bytes]:
    """Return a server's frame in pieces."""
    return [_header(FIN_TEXT if is_text else FIN_BINARY, len(payload), 0), payload]


def masked_frame(payload: bytes, key: bytes, *, is_text: bool = False) -> list[Bytes]:
    """Return a client's frame in pieces.

    Args:
        payload: The payload, which is copied once, to be masked.
        key: Four unpredictable bytes (RFC 6455, 5.3).
        is_text: Whether to send a text frame; ``payload`` is UTF-8 then.
    """
    kind = FIN_TEXT if is_text else FIN_BINARY
    return [_header(kind, len(payload), MASKED) + key, _masked(payload, key)]


class FastFrameCodec:
    """Decodes the common frames of one carrier.

    Args:
        is_masked: Whether the peer has to mask.
        deliver: Gets joined binary payloads, or a part of one; returns False to stop decoding.
        deliver_text: Gets each text payload; returns False to leave it and all that follows to Autobahn.
        leave_control: Gets each control frame, for Autobahn; returns False to stop decoding.
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
        self._head = b""  # the beginning of a frame, without payload to deliver yet
        self._left_bytes = 0  # payload still missing of a binary frame
        self._key = b""  # the mask of that frame, rotated to begin at the missing part

    @property
    def has_begun(self) -> bool:
        """Whether a frame is incomplete: all further bytes must go to ``take`` then."""
        return bool(self._left_bytes or self._head)

    def take(self, data: Bytes) -> bytes:
        """Decode and deliver the common frames at the beginning of ``data``.

        Args:
            data: Received bytes that begin with a frame, or with the rest of the incomplete one. If they are
                writable, large payloads are unmasked in place, which saves a copy. Nothing keeps them after
                the call: what is delivered or returned is ``bytes``.

        Returns:
            The bytes for Autobahn, beginning with a frame; usually none.
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
        source: Bytes = data if end < MIN_VIEW_BYTES else memoryview(data)
        mask_flag, key_bytes = (MASKED, 4) if is_masked else (0, 0)
        while position < end:
            if position + 2 > end:
                self._head = bytes(data[position:])
                break
            length = data[position + 1] - mask_flag
            body = position + 2 + key_bytes
            kind = data[position]
            if kind != FIN_BINARY:
                if not 0 <= length < 126 or not (kind == FIN_TEXT or kind & CONTROL_BITS == FIN_CONTROL):
                    break
                after = body + length
                if after > end:
                    self._head = bytes(data[position:])
                    break
                if pieces and not self._deliver(_joined(pieces)):
                    return bytes(data[position:])
                pieces = []
                if kind == FIN_TEXT:
                    if not self._take_text(bytes(data[body - key_bytes : after])):
                        break
                    position = after
                else:
                    control = bytes(data[position:after])
                    position = after
                    if not self._leave_control(control):
                        break
                continue
            if length > 125:
                body += 2 if length == 126 else 8
            if not 0 < length < 128:
                break
            if body >= end:
                self._head = bytes(data[position:])
                break
            if length > 125:
                shortest = 126 if length == 126 else 65536
                length = int.from_bytes(data[position + 2 : body - key_bytes])
                if not shortest <= length <= MAX_MESSAGE_BYTES:
                    break
            position = body + length
            piece = source[body:position]
            if is_masked:
                key = bytes(data[body - 4 : body])
                piece = _masked(piece, key)
                if position > end:
                    self._key = _rotated(key, end - body)
            pieces.append(piece)
            if position > end:
                self._left_bytes = position - end
        rest = b"" if self._head else bytes(data[position:])
        if pieces and not self._deliver(_joined(pieces)):
            rest, self._head = self._head + rest, b""
        return rest

    def _take_rest(self, data: Bytes, pieces: list[Bytes]) -> int:
        piece: Bytes = data if len(data) <= self._left_bytes else memoryview(data)[: self._left_bytes]
        count = len(piece)
        self._left_bytes -= count
        if self._is_masked:
            piece = _masked(piece, self._key)
            self._key = _rotated(self._key, count)
        pieces.append(piece)
        return count

    def _take_text(self, text: bytes) -> bool:
        if self._is_masked:
            text = bytes(_masked(text[4:], text[:4]))
        # Other text would need a UTF-8 check; no message of this project contains any.
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
    masked = payload if type(payload) is memoryview and not payload.readonly else bytearray(payload)
    masker = _nvx.lib.nvx_xormask_new(key)
    _nvx.lib.nvx_xormask_process(masker, _nvx.ffi.from_buffer(masked), length)
    _nvx.lib.nvx_xormask_free(masker)
    return masked


def _rotated(key: bytes, count: int) -> bytes:
    """Return the mask for the bytes that follow ``count`` bytes masked with ``key``."""
    shift = count % 4
    return key[shift:] + key[:shift]


def _joined(pieces: list[Bytes]) -> bytes:
    piece = pieces[0]
    return piece if len(pieces) == 1 and isinstance(piece, bytes) else b"".join(pieces)
