"""Whose turn is it to send data? What has sent little lately first; of the rest, the oldest.

Called by :mod:`seance.yamux.outbox`, once per frame. It only orders streams; control frames do not come
here, they go before all data. The policy, its proof, and what was rejected: decision 15.

**Light** is a stream that has sent less than 16 KiB lately: a keystroke, a cursor, a request, the beginning
of everything. Light streams take turns, in frames of at most 8 KiB when there are several. Everything
else is **bulk**, and stands in the order in which it became bulk. The first has three turns of four, the
second the fourth, and every sixteenth goes round the whole line; who has no window is not in line and
costs nobody a turn. To share equally looks fair and is the worst there is for Yjs: eight browsers that
load one document over a slow uplink all end after their thirty seconds of patience, so none ever does
(yjs.md 0, fact 4). In order, they are done one after the other.

Nobody starves, and that is counted in bytes and turns, not in seconds. Bulk in line has a byte for four of
light data, and takes its turn when 64 KiB of those are not made up for; after it comes light data again. Of
16 n bulk turns, each of n streams in line has one; and a stream that was first for thirty seconds, the
patience of Yjs clients, goes to the back: nobody waits for it any more.

*Lately* is measured in bytes too: what a stream has sent counts half after every 64 KiB that the session
sends while the stream has nothing to send; while it has, all counts. So a slow path and a fast one are
judged alike, an idle session forgets nothing, and who wants no more than an eighth of the path, and gets
it, is light for ever.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import Final

from seance.yamux.constants import DATA_FRAME_BYTES, KIB
from seance.yamux.streams import Stream

__all__ = ["INTERACTIVE_BYTES", "INTERACTIVE_RUN_BYTES", "MAX_HEAD_SECONDS", "ROUND_ROBIN_TURNS", "Scheduler"]

INTERACTIVE_BYTES: Final = DATA_FRAME_BYTES
"""Who has sent less than this lately is light: one full frame, so that the first of a stream always is."""

_RECENT_SHIFT: Final = 16
"""What was sent counts half after each 2^16 bytes of the session: half a second at 1 Mbit/s."""

_SMALL_FRAME_BYTES: Final = 8 * KIB
"""The largest frame of a light stream while others wait for theirs: 66 ms at 1 Mbit/s."""

INTERACTIVE_RUN_BYTES: Final = 64 * KIB
"""When bulk has not had its fifth of so much light data and more, it has a turn. Where messages are large
that is a frame of 16 KiB after every 64; where they are small, what fits into one after four such."""

_INTERACTIVE_PER_BULK: Final = INTERACTIVE_RUN_BYTES // DATA_FRAME_BYTES
"""How much light data a byte of bulk makes up for."""

_SECOND_TURNS: Final = 4
_SECOND_TURN: Final = 3
"""Of so many bulk turns this one is the second's in line: the first takes a third longer at most."""

ROUND_ROBIN_TURNS: Final = 16
_ROUND_ROBIN_TURN: Final = 15
"""Of so many bulk turns this one goes round the whole line."""

MAX_HEAD_SECONDS: Final = 30.0
"""So long a stream may be first while others wait: y-websocket and Hocuspocus give up after 30 s without a
whole message."""


class Scheduler:
    """The streams that have both data and window, in their order.

    For each message ``update_time``; for each frame ``next``, write at most ``max_bytes``, ``wrote``.
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
        "max_bytes",
    )

    def __init__(self) -> None:
        self.max_bytes = DATA_FRAME_BYTES
        """The size of the largest frame that the stream whose turn it is may write."""
        self.interactive: OrderedDict[int, Stream] = OrderedDict()
        """Those that are light, in the order of their turns; others only look whether there are any."""
        # An OrderedDict, not a deque: whoever is cut leaves at once, wherever it stands. Not a dict: taking
        # the first key of one steps over every key that was taken before.
        self.bulk: list[Stream] = []
        """Those that are bulk, by place, oldest first."""
        self._last_rank = 0
        """The youngest place that was given."""
        self._round_rank = 0
        """The place whose turn it was last in going round; it goes from the youngest to the oldest, so that
        newcomers, who stand behind it, put off nobody."""
        self._bulk_turn = 0
        """Which of sixteen the next one is."""
        self._interactive_run_bytes = 0
        """Light data for which bulk has not had its share yet."""
        self._sent_bytes = 0
        self._now: float | None = None
        """When the line of bulk was last looked at; None when it was empty since."""

    def __len__(self) -> int:
        """Return how many streams wait."""
        return len(self.interactive) + len(self.bulk)

    def add(self, stream: Stream) -> None:
        """Put a stream that has data and window into line; one that stands there already keeps its place.

        A bulk stream that was away (its queue was empty or its window was used up) has its old place again,
        unless it has meanwhile sent so little that it is light.
        """
        if stream.is_scheduled:
            return
        stream.is_scheduled = True
        period = self._sent_bytes >> _RECENT_SHIFT
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
        """Take note of the time; once per message is often enough."""
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
        """Return the stream whose turn it is, None when nobody waits.

        It may write a frame of ``max_bytes``. Next: ``wrote``, or ``put_back`` if it did not.
        """
        interactive, bulk = self.interactive, self.bulk
        if interactive and (self._interactive_run_bytes < INTERACTIVE_RUN_BYTES or not bulk):
            self.max_bytes = _SMALL_FRAME_BYTES if len(interactive) > 1 else DATA_FRAME_BYTES
            return interactive.popitem(last=False)[1]
        if not bulk:
            return None
        self.max_bytes = DATA_FRAME_BYTES
        turn = self._bulk_turn
        if turn % _SECOND_TURNS != _SECOND_TURN or len(bulk) == 1:
            return bulk[0]
        if turn != _ROUND_ROBIN_TURN:
            return bulk[1]
        # The next older one than the last; behind the oldest comes the youngest.
        return bulk[bisect_left(bulk, self._round_rank, key=_bulk_rank_of) - 1]

    def put_back(self, stream: Stream) -> None:
        """Take note that the turn of the stream that ``next`` returned did not happen."""
        if not stream.bulk_rank:
            self.interactive[stream.stream_id] = stream
            self.interactive.move_to_end(stream.stream_id, last=False)

    def record_turn(self, stream: Stream, count: int, has_more: bool) -> None:
        """Note that a stream has taken its turn.

        Args:
            stream: What ``next`` returned last.
            count: How many bytes of data it has written.
            has_more: Whether it still has both data and window, and so stays in line.
        """
        sent_bytes = self._sent_bytes = self._sent_bytes + count
        recent_bytes = stream.recent_bytes = stream.recent_bytes + count
        if not has_more:
            stream.is_scheduled = False
            stream.recent_period = sent_bytes >> _RECENT_SHIFT
        if stream.bulk_rank:
            turn = self._bulk_turn
            if turn == _ROUND_ROBIN_TURN:
                self._round_rank = stream.bulk_rank
                turn = -1
            self._bulk_turn = turn + 1
            run_bytes = self._interactive_run_bytes
            if run_bytes:
                # In bytes: where messages are small, a turn is what fits into the rest of one. And however
                # little it was, the next turn is not bulk's: a keystroke waits for one in each message.
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
        """Take a stream out of line, wherever it stands, if it does."""
        if not stream.is_scheduled:
            return
        stream.is_scheduled = False
        if stream.bulk_rank:
            self._leave_bulk(stream)
        else:
            del self.interactive[stream.stream_id]

    def clear(self) -> None:
        """Forget everybody."""
        self.interactive.clear()
        self.bulk.clear()

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
