"""Where the frames of a WebSocket end, for whoever wants to add one more: a close frame.

When a relay has to send a client away (it restarts, or the room's agent is gone for good), a close
frame with a code says so, and a client that gets one redials at once instead of wondering. But the
client's WebSocket is the local server's, and its bytes pass unread; a frame of ours may stand only
between two of its frames. `FrameWalk` is fed with what passes from the local server to the client
after the 101, and knows whether the stream stands at such a place.

It is no parser of WebSocket: it hops from header to header, looks at two bytes of each, checks nothing,
and gives up rather than work. A chunk within one frame costs a subtraction; beyond
`HEADERS_PER_CHUNK` headers in one chunk, after a close frame, and after a frame that no server may
send, the answer is "no" from then on, and the client gets the plain end of its connection.

What it costs (CPython 3.11, ``timeit``, the best of seven): 65 ns for a chunk inside one frame, 0.15 us for a
chunk of one frame of 110 bytes, 0.5 us for eight of them, 7 us for 160, and 0.4 ms for the most that is
looked at.
"""

from __future__ import annotations

from typing import Final

__all__ = ["HEADERS_PER_CHUNK", "SERVICE_RESTART", "FrameWalk", "close_frame"]

HEADERS_PER_CHUNK = 8192
"""Headers that are looked at in one chunk: one for every 32 bytes of the largest. With 64, clients of a room
in which everybody typed were sent away without a word when the relay stopped."""

SERVICE_RESTART = 1012
"""Close code: the service restarts, come again (the IANA registry of RFC 6455, 11.7)."""

CLOSE: Final = 0x88
"""The first byte of a close frame, which is never in fragments (RFC 6455, 5.5)."""

FINAL: Final = 0x80
"""Set in the first byte of a message's last frame."""

CONTROL: Final = 0x08
"""Set in the first byte of frames that belong to no message: ping, pong, close."""

TWO_BYTES: Final = 126
EIGHT_BYTES: Final = 127
NEVER: Final = 1 << 100
"""More than any frame can say that it holds: a walk that gave up is one inside a frame without an end."""

_HEADERS = range(HEADERS_PER_CHUNK)


class FrameWalk:
    """Follows one server's frames. Feed it with `receive`, look at `is_between_frames` at the end."""

    __slots__ = ("_has_more", "_left", "_split")

    def __init__(self) -> None:
        self._has_more = False  # whether fragments of the last message are still to come
        self._left = 0  # of the frame that has begun; it ends that far into what comes next
        self._split = b""  # a header whose rest is still to come

    @property
    def is_between_frames(self) -> bool:
        """Whether a whole frame of ours may follow now."""
        return self._left == 0 and not self._split

    @property
    def is_in_message(self) -> bool:
        """Whether a message has begun that has not passed in full, as far as this can tell.

        Only the last frame header of each chunk counts, so a ping that ends a chunk may hide a fragment.
        """
        return 0 < self._left < NEVER or (self._has_more and self._left == 0)

    def give_up(self) -> None:
        """Take no place for one between frames any more: the server has said its end, say."""
        self._left, self._split = NEVER, b""

    def receive(self, data: bytes) -> None:
        """Take what passes to the client, as it came and cut anywhere; nothing may be left out."""
        at = self._left
        size = len(data)
        if at >= size:
            if at < NEVER:
                self._left = at - size
            return
        if self._split:
            data = self._split + data
            self._split = b""
            size = len(data)
        try:
            for _ in _HEADERS:
                begins = at
                length = data[at + 1]
                if length < TWO_BYTES:
                    at += length + 2
                elif length == TWO_BYTES:
                    at += 4 + (data[at + 2] << 8 | data[at + 3])
                elif length == EIGHT_BYTES:
                    data[at + 9]  # or the header is not whole
                    at += 10 + int.from_bytes(data[at + 2 : at + 10], "big")
                else:
                    break  # masked: no server's
                if at >= size:
                    first = data[begins]
                    self._left = at - size if first != CLOSE else NEVER
                    if not first & CONTROL:
                        self._has_more = first < FINAL
                    return
        except IndexError:
            self._left, self._split = 0, data[at:]
        else:
            self._left = NEVER


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a server's close frame; of ``reason`` only what fits into a control frame."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes([CLOSE, len(payload)]) + payload
