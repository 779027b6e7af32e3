"""Choose the stream that sends data next: interactive streams first, then bulk streams, the oldest first.

Called by :mod:`seance.yamux.outbox`, once per frame. It orders streams only; control frames precede all data.
The policy, its proof and the rejected alternatives: docs/decisions/0015-who-sends-next.md.

A stream is **interactive** if it has sent less than 16 KiB recently: a keystroke, a cursor, a request, the
start of every stream. Interactive streams take turns, in frames of at most 8 KiB if there are several. All
other streams are **bulk**, ordered by the time at which they became bulk. The first bulk stream has three
turns of four and the second one the fourth. Every sixteenth turn goes to the bulk streams in rotation. A
stream without window is not in the order and costs no turn.

Equal shares would be the worst choice for Yjs. If eight browsers load one document over a slow uplink, none
of them is done when their clients give up after 30 s, and all start again. In order, they finish one after
the other.

No stream starves. This is counted in bytes and turns, not in seconds. Bulk streams get one byte for four
bytes of interactive data: they have a turn when 64 KiB of interactive data exceed their share; then
interactive data has a turn again. Of 16 n bulk turns, each of n bulk streams has at least one. A stream that
was first for 30 s, the timeout of Yjs clients, moves to the end, because its client has given up.

The bytes that a stream has recently sent halve with every 64 KiB that the session sends, and every second,
while the stream has nothing to send. While it has data, nothing is deducted. So a stream that needs at most
an eighth of the path, and gets it, stays interactive. The seconds matter when others fill the path: then the
session sends little, and a stream of keystrokes would become bulk data.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import Final

from seance.yamux.constants import DATA_FRAME_BYTES, KIB
from seance.yamux.streams import Stream

__all__ = ["INTERACTIVE_BYTES", "INTERACTIVE_RUN_BYTES", "MAX_HEAD_SECONDS", "ROUND_ROBIN_TURNS", "Scheduler"]

INTERACTIVE_BYTES: Final = DATA_FRAME_BYTES
"""A stream that has sent less recently is interactive: one full frame, so the first frame of a stream always
is."""

_RECENT_SHIFT: Final = 16
"""Recently sent bytes halve with each 2^16 bytes of the session: half a second at 1 Mbit/s."""

_SMALL_FRAME_BYTES: Final = 8 * KIB
"""The largest frame of an interactive stream while others wait: 66 ms at 1 Mbit/s."""

INTERACTIVE_RUN_BYTES: Final = 64 * KIB
"""Interactive data beyond the share of bulk data after which bulk data has a turn. With large messages that
is a frame of 16 KiB after every 64 KiB; with small ones, the rest of a message after four of them."""

_INTERACTIVE_PER_BULK: Final = INTERACTIVE_RUN_BYTES // DATA_FRAME_BYTES
"""Bytes of interactive data for each byte of bulk data."""

_SECOND_TURNS: Final = 4
_SECOND_TURN: Final = 3
"""Of every four bulk turns, this one goes to the second stream: the first stream takes at most a third
longer."""

ROUND_ROBIN_TURNS: Final = 16
_ROUND_ROBIN_TURN: Final = 15
"""Of every 16 bulk turns, this one goes to all bulk streams in rotation."""

MAX_HEAD_SECONDS: Final = 30.0
"""How long a stream may be first while others wait: y-websocket and Hocuspocus give up after 30 s without a
whole message."""


class Scheduler:
    """The streams that have both data and window, in order.

    Call ``update_time`` for each message if there are bulk streams. For each frame call ``next_stream``,
    write at most ``max_bytes``, and call ``record_turn``.
    """

    __slots__ = (
        "_bulk_turn",
        "_interactive_run_bytes",
        "_last_rank",
        "_now",
        "_round_rank",
        "_sent_bytes",
        "bulk",
        "interactive",
        "is_bulk_held",
        "max_bytes",
        "second",
    )

    def __init__(self) -> None:
        self.max_bytes = DATA_FRAME_BYTES
        """The largest frame that the stream from ``next_stream`` may write."""
        self.interactive: OrderedDict[int, Stream] = OrderedDict()
        """Interactive streams in the order of their turns; callers only test whether it is empty."""
        # An OrderedDict, because a deque cannot remove a stream from the middle, and a dict takes longer and
        # longer to find its first key after many removals.
        self.bulk: list[Stream] = []
        """Bulk streams by rank, oldest first."""
        self.is_bulk_held = False
        """Whether bulk data waits for room on the path; then it has only the turns that its share of the
        data requires."""
        self._last_rank = 0
        """The highest rank assigned."""
        self._round_rank = 0
        """The rank that had the last rotating turn. The rotation goes from the youngest stream to the oldest,
        so new streams, which have higher ranks, delay no other."""
        self._bulk_turn = 0
        """The number of the next bulk turn, 0 to 15."""
        self._interactive_run_bytes = 0
        """Interactive data for which bulk streams have not had their share."""
        self._sent_bytes = 0
        self.second = 0
        """The time, in whole seconds; callers set it after each message."""
        self._now: float | None = None
        """The time of the last ``update_time``; None if there was no bulk stream since."""

    def __len__(self) -> int:
        """Return how many streams wait."""
        return len(self.interactive) + len(self.bulk)

    def add(self, stream: Stream) -> None:
        """Add a stream that has data and window. A stream that is already scheduled keeps its position.

        A bulk stream that was out of data or window gets its old rank, unless it has become interactive in
        the meantime.
        """
        if stream.is_scheduled:
            return
        stream.is_scheduled = True
        period = self._period()
        if stream.recent_period != period:
            stream.recent_bytes >>= period - stream.recent_period
        if stream.bulk_rank:
            if stream.recent_bytes >= INTERACTIVE_BYTES:
                self._join_bulk(stream)
                return
            stream.bulk_rank = 0
            stream.head_seconds = 0.0
        self.interactive[stream.stream_id] = stream

    def update_time(self, now: float) -> None:
        """Record the time; once per message is enough."""
        bulk = self.bulk
        if bulk and self._now is not None:
            first = bulk[0]
            first.head_seconds += now - self._now
            if first.head_seconds >= MAX_HEAD_SECONDS and len(bulk) > 1:
                del bulk[0]
                self._last_rank += 1
                first.bulk_rank = self._last_rank
                first.head_seconds = 0.0
                bulk.append(first)
        self._now = now

    def next_stream(self) -> Stream | None:
        """Return the stream that has the next turn, or None if none waits.

        It may write a frame of at most ``max_bytes``. Next: ``record_turn``, or ``put_back`` if it wrote
        nothing.
        """
        interactive, bulk = self.interactive, self.bulk
        if interactive and (self._interactive_run_bytes < INTERACTIVE_RUN_BYTES or not bulk):
            self.max_bytes = _SMALL_FRAME_BYTES if len(interactive) > 1 else DATA_FRAME_BYTES
            return interactive.popitem(last=False)[1]
        if not bulk or (self.is_bulk_held and not interactive):
            return None
        self.max_bytes = DATA_FRAME_BYTES
        turn = self._bulk_turn
        if turn % _SECOND_TURNS != _SECOND_TURN or len(bulk) == 1:
            return bulk[0]
        if turn != _ROUND_ROBIN_TURN:
            return bulk[1]
        # The next older stream than the last one; after the oldest comes the youngest.
        return bulk[bisect_left(bulk, self._round_rank, key=_bulk_rank_of) - 1]

    def put_back(self, stream: Stream) -> None:
        """Undo ``next_stream``: the stream wrote nothing."""
        if not stream.bulk_rank:
            self.interactive[stream.stream_id] = stream
            self.interactive.move_to_end(stream.stream_id, last=False)

    def record_turn(self, stream: Stream, count: int, has_more: bool) -> None:
        """Record that a stream has sent a frame.

        Args:
            stream: The result of ``next_stream``.
            count: Bytes of data sent.
            has_more: Whether it still has both data and window.
        """
        self._sent_bytes += count
        recent_bytes = stream.recent_bytes = stream.recent_bytes + count
        if not has_more:
            stream.is_scheduled = False
            stream.recent_period = self._period()
        if stream.bulk_rank:
            turn = self._bulk_turn
            if turn == _ROUND_ROBIN_TURN:
                self._round_rank = stream.bulk_rank
                turn = -1
            self._bulk_turn = turn + 1
            run_bytes = self._interactive_run_bytes
            if run_bytes:
                # Counted in bytes, because in a small message a turn is only the rest of the message. Even
                # then the next turn is not bulk, because a keystroke would wait for a bulk turn in each
                # message.
                run_bytes -= _INTERACTIVE_PER_BULK * count
                self._interactive_run_bytes = max(0, min(run_bytes, INTERACTIVE_RUN_BYTES - 1))
            if not has_more:
                self._leave_bulk(stream)
            return
        self._interactive_run_bytes += count
        if recent_bytes >= INTERACTIVE_BYTES:
            self._last_rank += 1
            stream.bulk_rank = self._last_rank
            if has_more:
                self._join_bulk(stream)
        elif has_more:
            self.interactive[stream.stream_id] = stream

    def remove(self, stream: Stream) -> None:
        """Remove a stream if it is scheduled."""
        if not stream.is_scheduled:
            return
        stream.is_scheduled = False
        if stream.bulk_rank:
            self._leave_bulk(stream)
        else:
            del self.interactive[stream.stream_id]

    def clear(self) -> None:
        """Remove all streams."""
        self.interactive.clear()
        self.bulk.clear()

    def _period(self) -> int:
        return (self._sent_bytes >> _RECENT_SHIFT) + self.second

    def _join_bulk(self, stream: Stream) -> None:
        bulk = self.bulk
        if not bulk:
            self._interactive_run_bytes = 0
            self._now = None
            bulk.append(stream)
        elif bulk[-1].bulk_rank < stream.bulk_rank:
            bulk.append(stream)
        else:
            bulk.insert(bisect_left(bulk, stream.bulk_rank, key=_bulk_rank_of), stream)

    def _leave_bulk(self, stream: Stream) -> None:
        bulk = self.bulk
        del bulk[0 if bulk[0] is stream else bisect_left(bulk, stream.bulk_rank, key=_bulk_rank_of)]


def _bulk_rank_of(stream: Stream) -> int:
    return stream.bulk_rank
