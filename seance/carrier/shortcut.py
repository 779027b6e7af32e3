"""The short way for the one kind of frame that nearly all are: whole, unfragmented, binary.

Autobahn takes 8.7 us to send such a frame from the agent and 17.7 us to receive it on the relay,
most of it spent on what these frames never have; here it is a header and an XOR (yamux.md 6.2,
measured). Everything else is left to Autobahn: fragments, text, control frames, frames that are cut
by a read, lengths that are not the shortest form, wrong masks. One of the marked loops of the
project: local names and no objects are on purpose.

Called by ``seance.carrier.websocket`` alone. RFC 6455, 5.2 and 5.3.
"""

from __future__ import annotations

from collections.abc import Callable

from autobahn.websocket.protocol import create_xor_masker

__all__ = ["binary_frame", "masked_binary_frame", "take_binary_frames"]

FIN_BINARY = 0x82
MASKED = 0x80

SMALL_BYTES = 1024
"""Up to here one big-integer XOR is quicker than Autobahn's masker, which costs 3.6 us to set up."""


def binary_frame(payload: bytes) -> list[bytes]:
    """Return a server's frame, as pieces; ``payload`` has at most 64 KiB."""
    return [_header(len(payload), 0), payload]


def masked_binary_frame(payload: bytes, key: bytes) -> bytes:
    """Return a client's frame; ``payload`` has at most 64 KiB.

    Args:
        payload: What it carries.
        key: Four unpredictable bytes (RFC 6455, 5.3).
    """
    return _header(len(payload), MASKED) + key + _masked(payload, key)


def take_binary_frames(data: bytes, is_masked: bool, deliver: Callable[[bytes], bool]) -> int:
    """Deliver the whole binary frames at the beginning of ``data``.

    Args:
        data: What was read, beginning with a frame.
        is_masked: Whether the peer has to mask.
        deliver: Gets each payload; False stops the loop.

    Returns:
        How many bytes were taken. What follows is for Autobahn.
    """
    position, end = 0, len(data)
    mask_flag = MASKED if is_masked else 0
    key_bytes = 4 if is_masked else 0
    while position + 2 <= end and data[position] == FIN_BINARY:
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
            if length < 65536:
                break
        elif not 0 < length < 126:
            break
        body += key_bytes
        after = body + length
        if after > end:
            break
        payload = data[body:after]
        if is_masked:
            payload = _masked(payload, data[body - 4 : body])
        position = after
        if not deliver(payload):
            break
    return position


def _header(length: int, mask_flag: int) -> bytes:
    if length < 126:
        return bytes((FIN_BINARY, mask_flag | length))
    if length < 65536:
        return bytes((FIN_BINARY, mask_flag | 126)) + length.to_bytes(2)
    return bytes((FIN_BINARY, mask_flag | 127)) + length.to_bytes(8)


def _masked(payload: bytes, key: bytes) -> bytes:
    length = len(payload)
    if length <= SMALL_BYTES:
        mask = (key * (length // 4 + 1))[:length]
        return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(length)
    masked: bytes = create_xor_masker(key, length).process(payload)
    return masked
