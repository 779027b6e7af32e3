"""Queue what a session has to send, and decide the order.

Called by :mod:`seance.yamux.session`, which decides *what* is sent. The order of precedence:

1. answers to pings, because a peer that waits too long for one may end the session;
2. control frames (SYN, ACK, FIN, RST, our pings) in the order in which they were queued;
3. credit: one window update per stream, for everything consumed until it is sent;
4. data, frame by frame, in the order of :mod:`seance.yamux.scheduler`; bulk data only as far as
   :mod:`seance.yamux.bulk_limit` permits, after a ping that measures the path if one is due;
5. the GoAway, at the end of its message.

So control frames always overtake data. That is correct for each of them: a SYN or ACK has to, a RST drops the
data, and a FIN, or a RST that waits for the data, is queued only after the data was sent.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from seance.yamux.bulk_limit import BulkLimit
from seance.yamux.constants import ACK, FIN, HEADER_BYTES, KIB, SYN
from seance.yamux.frames import Bytes, data_header, ping_frame, window_update_frame
from seance.yamux.half_states import SENDING, Sending, Step
from seance.yamux.message_sizer import MESSAGE_BYTES
from seance.yamux.scheduler import Scheduler
from seance.yamux.streams import Stream

__all__ = ["Outbox"]

_ENDING: Final = Sending.ENDING

_SMALLEST_PART_BYTES: Final = 1 * KIB
"""A data frame is not cut to less than this only because a message is nearly full."""


class Outbox:
    """Everything that one session has to send."""

    __slots__ = (
        "_credit",
        "_drained",
        "_has_backlog",
        "_last_frame",
        "_pongs",
        "_scheduler",
        "bulk_limit",
        "control",
    )

    def __init__(self) -> None:
        self._pongs: deque[bytes] = deque()
        self.control: deque[bytes] = deque()
        """Control frames; the session limits their number."""
        self._credit: dict[int, Stream] = {}
        self.bulk_limit = BulkLimit()
        self._scheduler = Scheduler()
        self._last_frame = b""
        self._drained: list[Stream] = []
        self._has_backlog = False
        """Whether the latest data left bulk data behind."""

    @property
    def wants_to_send(self) -> bool:
        """Whether anything can be sent now; data without window cannot."""
        scheduler = self._scheduler
        return bool(
            scheduler.interactive
            or scheduler.bulk
            or self.control
            or self._credit
            or self._pongs
            or self._last_frame
        )

    @property
    def pong_count(self) -> int:
        """Answers to pings in the queue; the session limits them."""
        return len(self._pongs)

    @property
    def scheduled_count(self) -> int:
        """Streams that wait to send data."""
        return len(self._scheduler)

    def add_pong(self, value: int) -> None:
        """Queue the answer to a ping."""
        self._pongs.append(ping_frame(ACK, value))

    def add_control(self, frame: bytes) -> None:
        """Queue a control frame."""
        self.control.append(frame)

    def add_flag(self, stream_id: int, flag: int, delta_bytes: int = 0) -> None:
        """Queue SYN, ACK, FIN or RST, each on a separate window update."""
        self.control.append(window_update_frame(stream_id, flag, delta_bytes))

    def add_fin(self, stream: Stream) -> None:
        """Queue the FIN of a stream after all its data; our half is then ENDED."""
        stream.sending = SENDING[stream.sending, Step.FIN]
        self.add_flag(stream.stream_id, FIN)

    def add_credit(self, stream: Stream) -> None:
        """Schedule a window update; its size is decided when it is sent."""
        self._credit[stream.stream_id] = stream

    def owes_credit(self, stream: Stream) -> bool:
        """Return whether a window update for a stream is scheduled."""
        return stream.stream_id in self._credit

    def add_data(self, stream: Stream) -> None:
        """Schedule a stream if it has data and window."""
        if stream.queued_bytes and stream.send_window.available_bytes:
            self._scheduler.add(stream)

    def set_last_frame(self, frame: bytes) -> None:
        """Set the frame that is sent last."""
        self._last_frame = frame

    def cancel_credit(self, stream_id: int) -> None:
        """Cancel the scheduled window update of a stream."""
        self._credit.pop(stream_id, None)

    def forget(self, stream: Stream) -> None:
        """Drop the data and the credit of a stream; its control frames are still sent."""
        self._scheduler.remove(stream)
        self._credit.pop(stream.stream_id, None)

    def clear(self) -> None:
        """Drop everything."""
        self._pongs.clear()
        self.control.clear()
        self._credit.clear()
        self._scheduler.clear()
        self._last_frame = b""

    def take_drained(self) -> list[Stream]:
        """Return the streams that are writable again, or ENDED, since the last call."""
        drained = self._drained
        if drained:
            self._drained = []
        return drained

    def next_message(self, limit: int, low_water_bytes: int, now: float | None) -> list[Bytes]:
        """Remove and return the next whole frames; see ``Session.next_message``. Next: ``take_drained``."""
        pieces: list[Bytes] = []
        if limit > MESSAGE_BYTES and self._scheduler.interactive:
            limit = MESSAGE_BYTES  # larger ones are for bulk data only, and the rest may wait behind them
        room = limit - len(self._last_frame)
        if self._pongs:
            room = _move_frames(self._pongs, pieces, room)
        if self.control:
            room = _move_frames(self.control, pieces, room)
        if self._credit:
            room = self._write_credit(pieces, room)
        if self._scheduler.interactive or self._scheduler.bulk:
            room = self._write_data(pieces, room, low_water_bytes, now)
            if self.control:
                room = _move_frames(self.control, pieces, room)  # the FINs of queues that are empty now
        if self._last_frame and room >= 0:
            pieces.append(self._last_frame)
            self._last_frame = b""
        self.bulk_limit.sent_bytes += limit - room
        return pieces

    def _write_credit(self, pieces: list[Bytes], room: int) -> int:
        for stream in list(islice(self._credit.values(), max(0, room) // HEADER_BYTES)):
            del self._credit[stream.stream_id]
            pieces.append(window_update_frame(stream.stream_id, 0, stream.receive_window.grant()))
            room -= HEADER_BYTES
        return room

    def _write_data(self, pieces: list[Bytes], room: int, low_water_bytes: int, now: float | None) -> int:
        scheduler, bulk_limit = self._scheduler, self.bulk_limit
        bulk_room = room
        if now is not None:
            if scheduler.bulk:
                scheduler.update_time(now)
            if self._has_backlog or bulk_limit.sent_bytes >= bulk_limit.ping_at_bytes:
                bulk_room = bulk_limit.room()
                if bulk_room > 0 and room > 2 * HEADER_BYTES and bulk_limit.is_ping_due(self._has_backlog):
                    pieces.append(ping_frame(SYN, bulk_limit.ping(now)))
                    room -= HEADER_BYTES
            else:
                bulk_room = bulk_limit.message_bytes  # without the calls: small messages nearly always
        scheduler.is_bulk_held = bulk_room <= 0
        next_stream, record_turn = scheduler.next_stream, scheduler.record_turn
        has_interactive = has_several_interactive = False
        last: Stream | None = None
        frame_bytes = header_at = 0
        while room > HEADER_BYTES and (stream := next_stream()) is not None:
            if has_interactive and stream.bulk_rank and (has_several_interactive or stream is not last):
                break  # a receiver that waits for whole messages would wait for the bulk data too
            window = stream.send_window
            # The minimum of three. min() would take twice as long, and this runs for every frame.
            count, max_bytes = stream.queued_bytes, scheduler.max_bytes
            if count > max_bytes:
                count = max_bytes
            if count > window.available_bytes:
                count = window.available_bytes
            if stream.bulk_rank and not scheduler.is_bulk_held:
                if count > bulk_room:
                    count = bulk_room
                bulk_room -= count
                scheduler.is_bulk_held = bulk_room <= 0
            if stream is not last:
                room -= HEADER_BYTES
            if count > room:
                count = room
                if pieces and count < _SMALLEST_PART_BYTES:
                    scheduler.put_back(stream)
                    break
            if stream is last:
                # Consecutive turns of one stream form one frame: the peer's cost is mostly per frame.
                frame_bytes += count
                pieces[header_at] = data_header(stream.stream_id, frame_bytes)
            else:
                last, frame_bytes, header_at = stream, count, len(pieces)
                has_several_interactive = has_interactive
                pieces.append(data_header(stream.stream_id, count))
            stream.write(count, pieces)
            room -= count
            queued_bytes = stream.queued_bytes
            if not stream.bulk_rank:
                has_interactive = True  # even if this turn makes it bulk
            record_turn(stream, count, queued_bytes > 0 and window.available_bytes > 0)
            if not queued_bytes and stream.sending is _ENDING:
                if not stream.resets_when_sent:
                    self.add_fin(stream)
                self._drained.append(stream)
            if stream.is_congested and queued_bytes <= low_water_bytes:
                stream.is_congested = False
                if stream.sending is Sending.OPEN:
                    self._drained.append(stream)
        self._has_backlog = bool(scheduler.bulk)
        if now is not None:
            scheduler.second = int(now)
        return room


def _move_frames(queue: deque[bytes], pieces: list[Bytes], room: int) -> int:
    """Move control frames into a message while there is room; return the remaining room."""
    while queue and room >= HEADER_BYTES:
        pieces.append(queue.popleft())
        room -= HEADER_BYTES
    return room
