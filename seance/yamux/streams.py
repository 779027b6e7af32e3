"""What a session keeps about its streams: one record each, the table, and the ids that were used.

Passive: nothing here decides what the peer is told; :mod:`seance.yamux.session` does. A stream
holds no received bytes (they leave as events at once), only what waits to be sent.
"""

from __future__ import annotations

from bisect import bisect
from collections import deque
from typing import Final

from seance.yamux.constants import LAST_STREAM_ID, Role
from seance.yamux.frames import Bytes, part_of
from seance.yamux.half_states import Receiving, Sending
from seance.yamux.windows import ReceiveWindow, SendWindow

__all__ = ["PeerIds", "Stream", "StreamTable"]

_NOTHING: Final[deque[Bytes]] = deque()
"""The queue of every stream that has none: an empty one of its own would be 760 bytes, for thousands that
are idle."""


class Stream:
    """One stream: two halves, two windows, and the queue of what the application wants to send."""

    __slots__ = (
        "_first_sent_bytes",
        "_queue",
        "bulk_rank",
        "head_seconds",
        "is_acknowledged",
        "is_congested",
        "is_outbound",
        "is_reset",
        "is_scheduled",
        "queued_bytes",
        "receive_window",
        "receiving",
        "recent_bytes",
        "recent_period",
        "resets_when_sent",
        "send_window",
        "sending",
        "stream_id",
    )

    def __init__(self, stream_id: int, *, is_outbound: bool) -> None:
        self.stream_id = stream_id
        self.is_outbound = is_outbound
        """Whether we opened it."""
        self.is_acknowledged = False
        """Whether the side that did not open it has answered: the peer's ACK, or our own."""
        self.sending = Sending.OPEN
        self.receiving = Receiving.OPEN
        self.is_reset = False
        """Whether the peer has reset it; it stays in the table until the application has taken its data."""
        self.resets_when_sent = False
        """Whether a RST, not a FIN, follows what is queued."""
        self.send_window = SendWindow()
        self.receive_window = ReceiveWindow()
        self.queued_bytes = 0
        """What waits to be sent."""
        self.is_congested = False
        """Whether the queue rose above its high water and has not fallen to its low water since."""
        # What the scheduler knows of a stream, and nobody else changes.
        self.is_scheduled = False
        """Whether it stands in line."""
        self.bulk_rank = 0
        """Where a bulk stream stands in line, oldest lowest; 0 for a light one."""
        self.recent_bytes = 0
        """What was sent lately ..."""
        self.recent_period = 0
        """... as of when it was last in line."""
        self.head_seconds = 0.0
        """For how long it was the first of the bulk streams."""
        # Chunks stay as they came and are dropped as they leave: joining them would copy everything
        # once more, and one growing buffer never gives its memory back (hashicorp/yamux issue 43).
        self._queue = _NOTHING
        self._first_sent_bytes = 0
        """How much of the first chunk has already left."""

    def queue(self, data: Bytes) -> int:
        """Add data to what waits; returns what waits now."""
        queue = self._queue
        if queue is _NOTHING:
            queue = self._queue = deque()
        queue.append(data)
        self.queued_bytes += len(data)
        return self.queued_bytes

    def drop_queue(self) -> None:
        """Drop what waits to be sent."""
        self._queue = _NOTHING
        self._first_sent_bytes = 0
        self.queued_bytes = 0

    def write(self, count: int, pieces: list[Bytes]) -> None:
        """Move ``count`` queued bytes, at most what is queued and granted, into the body of a data frame."""
        self.send_window.available_bytes -= count
        self.queued_bytes -= count
        queue = self._queue
        sent = self._first_sent_bytes
        if not sent and len(queue[0]) == count:
            pieces.append(queue.popleft())
            if not queue:
                self._queue = _NOTHING
            return
        while count:
            chunk = queue[0]
            there = len(chunk) - sent
            if there <= count:
                pieces.append(part_of(chunk, sent, sent + there) if sent else chunk)
                queue.popleft()
                count -= there
                sent = 0
            else:
                pieces.append(part_of(chunk, sent, sent + count))
                sent += count
                break
        self._first_sent_bytes = sent
        if not queue:
            self._queue = _NOTHING

    def check(self) -> None:
        """Assert what always holds."""
        self.send_window.check()
        self.receive_window.check()
        there = sum(map(len, self._queue)) - self._first_sent_bytes
        assert self.queued_bytes == there, "the queue is counted"
        assert self.sending is not Sending.ENDED or not self.queued_bytes, "our FIN follows all data"

    def __repr__(self) -> str:
        return (
            f"<Stream {self.stream_id} {'outbound' if self.is_outbound else 'inbound'}"
            f"{'' if self.is_acknowledged else ' unacknowledged'}"
            f" sending={self.sending.value} receiving={self.receiving.value} queued={self.queued_bytes}"
            f" {self.send_window!r} {self.receive_window!r}>"
        )


class StreamTable:
    """The streams of one session that are alive, and what each of them still owes or is owed.

    ``live`` is public and read on every frame; it is changed only here.
    """

    __slots__ = ("_next_stream_id", "deadlines", "live", "peer_ids", "unaccepted_count")

    def __init__(self, role: Role, gap_limit: int) -> None:
        self.live: dict[int, Stream] = {}
        self.deadlines: dict[int, float] = {}
        """By when the peer has to answer, of the streams that it has not answered, oldest first."""
        self.unaccepted_count = 0
        """How many of the peer's streams our application has not answered."""
        self.peer_ids = PeerIds(role.peer, gap_limit)
        self._next_stream_id = role.first_stream_id

    def open(self, deadline: float) -> Stream | None:
        """Add a stream of ours; None when there are no more ids."""
        stream_id = self._next_stream_id
        if stream_id > LAST_STREAM_ID:
            return None
        self._next_stream_id += 2
        stream = self.live[stream_id] = Stream(stream_id, is_outbound=True)
        self.deadlines[stream_id] = deadline
        return stream

    def admit(self, stream_id: int) -> Stream:
        """Add a stream of the peer's, whose id has been claimed."""
        stream = self.live[stream_id] = Stream(stream_id, is_outbound=False)
        self.unaccepted_count += 1
        return stream

    def acknowledge(self, stream: Stream) -> None:
        """Note that a stream was answered, for the first time."""
        stream.is_acknowledged = True
        self._settle_open(stream)

    def forget(self, stream: Stream) -> None:
        """Take a stream out: the one way out, for all ends."""
        del self.live[stream.stream_id]
        if not stream.is_acknowledged:
            self._settle_open(stream)

    def clear(self) -> None:
        """Take all streams out."""
        self.live.clear()
        self.deadlines.clear()
        self.unaccepted_count = 0

    def next_deadline(self) -> float | None:
        """Return when the oldest unanswered open runs out."""
        return next(iter(self.deadlines.values()), None)

    def overdue(self, now: float) -> list[Stream]:
        """Return the streams that the peer should have answered by now."""
        return [self.live[stream_id] for stream_id, deadline in self.deadlines.items() if deadline <= now]

    def check(self) -> None:
        """Assert what always holds."""
        for stream in self.live.values():
            stream.check()
        pending = [stream for stream in self.live.values() if not stream.is_acknowledged]
        outbound = [stream.stream_id for stream in pending if stream.is_outbound]
        assert list(self.deadlines) == outbound, "an unanswered stream has a deadline"
        assert self.unaccepted_count == len(pending) - len(outbound), "unaccepted streams are counted"

    def _settle_open(self, stream: Stream) -> None:
        if stream.is_outbound:
            del self.deadlines[stream.stream_id]
        else:
            self.unaccepted_count -= 1


class PeerIds:
    """Which ids the peer has opened, so that none is used twice, in bounded memory and time.

    Ids grow, but they do not arrive in order: hashicorp takes a number first and sends the SYN later, from
    concurrent goroutines. So what is kept is the highest id and, as ranges, the gaps below it: a peer
    that jumps far pays nothing for it, and neither do we.
    """

    __slots__ = ("_gap_limit", "_gaps", "_highest", "_parity")

    def __init__(self, peer: Role, gap_limit: int) -> None:
        self._parity = peer.first_stream_id % 2
        self._highest = peer.first_stream_id - 2
        self._gaps: list[tuple[int, int]] = []
        """First and last id of each gap, ascending."""
        self._gap_limit = gap_limit

    def are_of(self, stream_id: int) -> bool:
        """Whether the id is one that the peer may open at all."""
        return stream_id > 0 and stream_id % 2 == self._parity

    def use(self, stream_id: int) -> bool:
        """Use an id; False if it was used before, or was jumped over too many gaps ago to know."""
        gaps = self._gaps
        if stream_id > self._highest:
            if stream_id != self._highest + 2:
                gaps.append((self._highest + 2, stream_id - 2))
            self._highest = stream_id
        else:
            index = bisect(gaps, stream_id, key=_first_of) - 1
            if index < 0 or stream_id > gaps[index][1]:
                return False
            first, last = gaps[index]
            rest = [(first, stream_id - 2), (stream_id + 2, last)]
            gaps[index : index + 1] = [gap for gap in rest if gap[0] <= gap[1]]
        if len(gaps) > self._gap_limit:
            del gaps[0]
        return True


def _first_of(gap: tuple[int, int]) -> int:
    return gap[0]
