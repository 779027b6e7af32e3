"""The records of a session about its streams: one per stream, the table, and the ids that were used.

Passive: :mod:`seance.yamux.session` decides what is sent. A stream holds only data to send. Received data is
passed on immediately, as events.
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
"""The shared queue of all streams without queued data: an empty deque takes 760 bytes, and thousands of
streams are idle."""


class Stream:
    """One stream: two halves, two windows, and the send queue."""

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
        """Whether the side that did not open it has answered, with the peer's ACK or ours."""
        self.sending = Sending.OPEN
        self.receiving = Receiving.OPEN
        self.is_reset = False
        """Whether the peer has reset it. It stays in the table until the application has consumed its
        data."""
        self.resets_when_sent = False
        """Whether a RST, not a FIN, follows the queued data."""
        self.send_window = SendWindow()
        self.receive_window = ReceiveWindow()
        self.queued_bytes = 0
        """Bytes in the send queue."""
        self.is_congested = False
        """Whether the queue rose above the high-water mark and has not fallen to the low-water mark since."""
        # Only the scheduler changes the following.
        self.is_scheduled = False
        """Whether it waits to send."""
        self.bulk_rank = 0
        """Position among the bulk streams, oldest lowest; 0 for an interactive stream."""
        self.recent_bytes = 0
        """Bytes sent recently, as of ``recent_period``."""
        self.recent_period = 0
        """Period of the session in which ``recent_bytes`` was updated."""
        self.head_seconds = 0.0
        """How long it was the first of the bulk streams."""
        # Chunks are kept as they are and dropped when sent: joining them would copy all data once more, and a
        # growing buffer never returns its memory (hashicorp/yamux issue 43).
        self._queue = _NOTHING
        self._first_sent_bytes = 0
        """Bytes of the first chunk that were already sent."""

    def queue(self, data: Bytes) -> int:
        """Append data to the send queue; return the bytes in it."""
        queue = self._queue
        if queue is _NOTHING:
            queue = self._queue = deque()
        queue.append(data)
        self.queued_bytes += len(data)
        return self.queued_bytes

    def drop_queue(self) -> None:
        """Drop the send queue."""
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
            size = len(chunk) - sent
            if size <= count:
                pieces.append(part_of(chunk, sent, sent + size) if sent else chunk)
                queue.popleft()
                count -= size
                sent = 0
            else:
                pieces.append(part_of(chunk, sent, sent + count))
                sent += count
                break
        self._first_sent_bytes = sent
        if not queue:
            self._queue = _NOTHING

    def check(self) -> None:
        """Assert the invariants."""
        self.send_window.check()
        self.receive_window.check()
        size = sum(map(len, self._queue)) - self._first_sent_bytes
        assert self.queued_bytes == size, "the queue is counted"
        assert self.sending is not Sending.ENDED or not self.queued_bytes, "our FIN follows all data"

    def __repr__(self) -> str:
        return (
            f"<Stream {self.stream_id} {'outbound' if self.is_outbound else 'inbound'}"
            f"{'' if self.is_acknowledged else ' unacknowledged'}"
            f" sending={self.sending.name.lower()} receiving={self.receiving.name.lower()}"
            f" queued={self.queued_bytes}"
            f" {self.send_window!r} {self.receive_window!r}>"
        )


class StreamTable:
    """The open streams of one session, and which of them wait for an answer.

    ``live`` is public and read for every frame. Only this class changes it.
    """

    __slots__ = ("_next_stream_id", "deadlines", "live", "peer_ids", "unaccepted_count")

    def __init__(self, role: Role, gap_limit: int) -> None:
        self.live: dict[int, Stream] = {}
        self.deadlines: dict[int, float] = {}
        """When the peer has to answer each of the streams that it has not answered, oldest first."""
        self.unaccepted_count = 0
        """Streams of the peer that our application has not answered."""
        self.peer_ids = PeerIds(role.peer, gap_limit)
        self._next_stream_id = role.first_stream_id

    def open(self, deadline: float) -> Stream | None:
        """Add a stream of ours; return None if no ids are left."""
        stream_id = self._next_stream_id
        if stream_id > LAST_STREAM_ID:
            return None
        self._next_stream_id += 2
        stream = self.live[stream_id] = Stream(stream_id, is_outbound=True)
        self.deadlines[stream_id] = deadline
        return stream

    def admit(self, stream_id: int) -> Stream:
        """Add a stream of the peer; its id is already marked as used."""
        stream = self.live[stream_id] = Stream(stream_id, is_outbound=False)
        self.unaccepted_count += 1
        return stream

    def acknowledge(self, stream: Stream) -> None:
        """Record the first answer to a stream."""
        stream.is_acknowledged = True
        self._remove_pending(stream)

    def forget(self, stream: Stream) -> None:
        """Remove a stream, for every kind of end."""
        del self.live[stream.stream_id]
        if not stream.is_acknowledged:
            self._remove_pending(stream)

    def clear(self) -> None:
        """Remove all streams."""
        self.live.clear()
        self.deadlines.clear()
        self.unaccepted_count = 0

    def next_deadline(self) -> float | None:
        """Return when the oldest unanswered open times out."""
        return next(iter(self.deadlines.values()), None)

    def overdue(self, now: float) -> list[Stream]:
        """Return the streams that the peer should have answered by now."""
        return [self.live[stream_id] for stream_id, deadline in self.deadlines.items() if deadline <= now]

    def check(self) -> None:
        """Assert the invariants."""
        for stream in self.live.values():
            stream.check()
        pending = [stream for stream in self.live.values() if not stream.is_acknowledged]
        outbound = [stream.stream_id for stream in pending if stream.is_outbound]
        assert list(self.deadlines) == outbound, "an unanswered stream has a deadline"
        assert self.unaccepted_count == len(pending) - len(outbound), "unaccepted streams are counted"

    def _remove_pending(self, stream: Stream) -> None:
        if stream.is_outbound:
            del self.deadlines[stream.stream_id]
        else:
            self.unaccepted_count -= 1


class PeerIds:
    """The ids that the peer has used, so that none is used twice, in bounded memory and time.

    Ids grow, but they arrive out of order: hashicorp/yamux assigns the number first and sends the SYN later,
    from concurrent goroutines. So it keeps the highest id and the gaps below it as ranges. A large jump costs
    one range.
    """

    __slots__ = ("_gap_limit", "_gaps", "_highest", "_parity")

    def __init__(self, peer: Role, gap_limit: int) -> None:
        self._parity = peer.first_stream_id % 2
        self._highest = peer.first_stream_id - 2
        self._gaps: list[tuple[int, int]] = []
        """First and last id of each gap, ascending."""
        self._gap_limit = gap_limit

    def is_valid(self, stream_id: int) -> bool:
        """Return whether the peer may open this id at all."""
        return stream_id > 0 and stream_id % 2 == self._parity

    def use(self, stream_id: int) -> bool:
        """Mark an id as used. Return False if it was used, or if its gap has been dropped."""
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
