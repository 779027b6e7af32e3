"""Yamux frames: bytes to frames and back. Knows headers, not streams.

Called by :mod:`seance.yamux.session` alone. Receiving accepts any cut (a header may come byte by byte,
hashicorp sends header and body apart) and **never buffers a body**: what has arrived of a data frame
is passed on at once as a data frame of its own. Yamux data has no message boundaries, so for a
stream that is the same, and three things follow:

* the decoder holds at most eleven bytes, whatever the peer announces;
* credit moves while a large frame is still arriving (hashicorp sends frames as large as the window);
* whoever checks the announced length against a window does so before the body exists, because the
  first part is passed on with the header, even when it is empty.

So that a part means what the whole would have meant, SYN, ACK and RST go with the first part and FIN
with the last.
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
"""What frames are made of and cut into: large parts are views, which whoever joins them copies, once."""

_VIEWED_BYTES: Final = 2048
"""From here on a view is cheaper than a copy."""

Frame: TypeAlias = tuple[int, int, int, int, Bytes]
"""Type, flags, stream id, length, body. Deliberately a bare tuple: one is made per frame.

``length`` is the header's field; for a part of a data frame it is what the peer has announced and not yet
sent *before* this part, so ``len(body) <= length`` always, and the frame is over when they are equal.
"""


def part_of(data: Bytes, start: int, stop: int) -> Bytes:
    """Return a part of some bytes, as a view if it is a large one."""
    return data[start:stop] if stop - start < _VIEWED_BYTES else memoryview(data)[start:stop]


def data_header(stream_id: int, length: int) -> bytes:
    """Make the header of a data frame; the body follows it in the same message."""
    return _pack(0, 0, 0, stream_id, length)  # VERSION, DATA, no flags; looking them up costs a third


def window_update_frame(stream_id: int, flags: int, delta_bytes: int) -> bytes:
    """Make a window update, which is also what carries SYN, ACK, FIN and RST."""
    return HEADER.pack(VERSION, WINDOW_UPDATE, flags, stream_id, delta_bytes)


def ping_frame(flags: int, value: int) -> bytes:
    """Make a ping (SYN) or its answer (ACK); the answer repeats the value."""
    return HEADER.pack(VERSION, PING, flags, 0, value)


def go_away_frame(code: int) -> bytes:
    """Make the frame that announces the end of the session."""
    return HEADER.pack(VERSION, GO_AWAY, 0, 0, code)


class FrameDecoder:
    """Turns the bytes of a session into frames, in time linear in their number.

    After an error the decoder is of no more use: the stream of bytes has lost its frame boundaries.
    """

    __slots__ = ("_head", "_late_flags", "_missing_bytes", "_stream_id")

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a header, at most eleven bytes."""
        self._missing_bytes = 0
        """What is still to come of the body of a data frame ..."""
        self._stream_id = 0
        """... for this stream, ..."""
        self._late_flags = 0
        """... and the flags that apply when it is complete."""

    def decode(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames, and the parts of data frames, that ``data`` completes.

        Take them all, or none of them after this chunk can be trusted.

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
            # At most eleven bytes are put in front: each byte is copied once more, not once per chunk.
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
