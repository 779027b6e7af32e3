"""Whose turn is it to send data? Round robin, one frame of at most 16 KiB a turn.

Called by :mod:`seance.yamux.session`. It only orders streams; what a turn writes is not its business, so
that a cleverer order (small first, few bulk streams at a time) can replace this file and nothing else.

Control frames do not come here: they go before all data.

The line is an ``OrderedDict`` rather than a deque so that a stream which is cut leaves at once, wherever it
stands, and rather than a dict because taking the first key of a plain dict has to step over every key
that was taken before.
"""

from __future__ import annotations

from collections import OrderedDict

from seance.yamux.constants import DATA_FRAME_BYTES
from seance.yamux.streams import Stream

__all__ = ["Turns"]


class Turns:
    """The line of streams that have both data and window."""

    __slots__ = ("_line",)

    quantum_bytes = DATA_FRAME_BYTES
    """What one turn may send: a small frame waits for at most one such frame of each other stream."""

    def __init__(self) -> None:
        self._line: OrderedDict[int, Stream] = OrderedDict()

    def __len__(self) -> int:
        """Return how many streams wait."""
        return len(self._line)

    def add(self, stream: Stream) -> None:
        """Put a stream at the end of the line; one that stands there already keeps its place."""
        self._line.setdefault(stream.stream_id, stream)

    def take(self) -> Stream | None:
        """Take the first stream out of the line; ``add`` it again if it has more."""
        return self._line.popitem(last=False)[1] if self._line else None

    def put_back(self, stream: Stream) -> None:
        """Return the stream just taken to the front: its turn did not happen."""
        self._line[stream.stream_id] = stream
        self._line.move_to_end(stream.stream_id, last=False)

    def remove(self, stream_id: int) -> None:
        """Take a stream out of the line, wherever it stands, if it does."""
        self._line.pop(stream_id, None)

    def clear(self) -> None:
        """Forget everybody."""
        self._line.clear()
