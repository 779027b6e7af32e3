"""Encode and decode yamux frames. This module handles headers and does not know streams.

The decoder accepts frames cut anywhere (a header may arrive byte by byte; hashicorp/yamux sends header and
body separately) and **never buffers a body**: it passes on each received part of a data frame immediately, as
a separate data frame. Yamux data has no message boundaries, so this makes no difference to a stream. It has
three advantages:

* The decoder holds at most eleven bytes, for any announced length.
* Credit is returned while a large frame still arrives (hashicorp/yamux sends frames as large as the window).
* The announced length can be checked against the window before the body arrives, because the first part is
  passed on with the header, even when it is empty.

So that the parts together have the meaning of the whole frame, SYN, ACK and RST go with the first part and
FIN goes with the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from seance.errors import RemoteProtocolError
from seance.yamux.constants import DATA, FIN, GO_AWAY, HEADER, HEADER_BYTES, PING, VERSION, WINDOW_UPDATE

__all__ = [
    "Bytes",
    "Frame",
    "FrameDecoder",
    "data_header",
    "go_away_frame",
    "part_of",
    "ping_frame",
    "window_update_frame",
]

_pack = HEADER.pack

Bytes: TypeAlias = bytes | memoryview
"""The pieces of frames. Large pieces are views, which are copied once, when a message is joined."""

_VIEWED_BYTES: Final = 2048
"""Size from which a view is cheaper than a copy."""

Frame: TypeAlias = tuple[int, int, int, int, Bytes]
"""Type, flags, stream id, length, body. A bare tuple, because one is made per frame.

``length`` is the header's field. For a part of a data frame it is the number of bytes that remained *before*
this part, so ``len(body) <= length``, and the frame is complete when they are equal."""


def part_of(data: Bytes, start: int, stop: int) -> Bytes:
    """Return a part of some bytes; a large part is a view."""
    return data[start:stop] if stop - start < _VIEWED_BYTES else memoryview(data)[start:stop]


def data_header(stream_id: int, length: int) -> bytes:
    """Encode the header of a data frame; the body follows it in the same message."""
    return _pack(0, 0, 0, stream_id, length)  # VERSION, DATA, no flags; the names would cost a third more


def window_update_frame(stream_id: int, flags: int, delta_bytes: int) -> bytes:
    """Encode a window update, which also carries SYN, ACK, FIN and RST."""
    return HEADER.pack(VERSION, WINDOW_UPDATE, flags, stream_id, delta_bytes)


def ping_frame(flags: int, value: int) -> bytes:
    """Encode a ping (SYN) or its answer (ACK); the answer repeats the value."""
    return HEADER.pack(VERSION, PING, flags, 0, value)


def go_away_frame(code: int) -> bytes:
    """Encode the frame that announces the end of the session."""
    return HEADER.pack(VERSION, GO_AWAY, 0, 0, code)


class FrameDecoder:
    """Decode the bytes of a session into frames, in time linear in their number.

    After an error the decoder is unusable: the frame boundaries are lost.
    """

    __slots__ = ("_head", "_late_flags", "_missing_bytes", "_stream_id")

    def __init__(self) -> None:
        self._head = b""
        """The start of an incomplete header, at most eleven bytes."""
        self._missing_bytes = 0
        """Bytes that the current data frame still lacks."""
        self._stream_id = 0
        """The stream of the current data frame."""
        self._late_flags = 0
        """Flags that apply when the current data frame is complete."""

    def decode(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames, and the parts of data frames, that ``data`` completes.

        The caller has to consume all of them before it calls ``decode`` again.

        Raises:
            RemoteProtocolError: A header has an unknown version ("bad_version") or type ("bad_type").
        """
        position = 0
        if self._missing_bytes:
            missing = self._missing_bytes
            if not data:
                return
            position = min(missing, len(data))
            body = data if position == len(data) else part_of(data, 0, position)
            self._missing_bytes = missing - position
            yield DATA, 0 if self._missing_bytes else self._late_flags, self._stream_id, missing, body
        elif self._head:
            # At most eleven bytes are prepended: each byte is copied once more per chunk, not once per header
            # byte.
            data = self._head + data
        end = len(data)
        unpack_from = HEADER.unpack_from
        while end - position >= HEADER_BYTES:
            version, kind, flags, stream_id, length = unpack_from(data, position)
            position += HEADER_BYTES
            if version != VERSION:
                msg = f"The peer sent a frame of yamux version {version}; only version 0 exists."
                raise RemoteProtocolError(msg, code="bad_version")
            if kind != DATA:
                if kind > GO_AWAY:
                    msg = f"The peer sent a frame of type {kind}; there are types 0 to 3."
                    raise RemoteProtocolError(msg, code="bad_type")
                yield kind, flags, stream_id, length, b""
                continue
            body_end = position + length
            if body_end <= end:
                yield DATA, flags, stream_id, length, part_of(data, position, body_end)
                position = body_end
                continue
            body = part_of(data, position, end)
            position = end
            self._missing_bytes = length - len(body)
            self._stream_id = stream_id
            self._late_flags = flags & FIN
            yield DATA, flags & ~FIN, stream_id, length, body
        self._head = data[position:]
