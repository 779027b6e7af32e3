"""The state that sending and receiving share: streams, queues, events; and all the ways to end a stream.

Used by :mod:`seance.yamux.session` for the calls of our side and by :mod:`seance.yamux.inbox` for received
frames. Both can end streams and the session. The code that does so is here, once, so that no table is
forgotten (a stream that stays in a table after its end is the most common leak in yamux implementations).
"""

from __future__ import annotations

from seance.errors import RemoteProtocolError
from seance.yamux.constants import RST, SYN, Role
from seance.yamux.events import EndSent, Event, StreamAborted, StreamClosed
from seance.yamux.frames import ping_frame
from seance.yamux.half_states import Receiving, Sending
from seance.yamux.keepalive import Keepalive
from seance.yamux.limits import Limits
from seance.yamux.outbox import Outbox
from seance.yamux.streams import Stream, StreamTable

__all__ = ["SessionState"]


class SessionState:
    """The state of one session."""

    __slots__ = (
        "_budget",
        "events",
        "is_closed",
        "is_going_away",
        "keepalive",
        "limits",
        "outbox",
        "peer_is_going_away",
        "stray_allowance_bytes",
        "table",
    )

    def __init__(self, role: Role, limits: Limits) -> None:
        self.limits = limits
        self.table = StreamTable(role, limits.id_gaps)
        self.outbox = Outbox()
        self._budget = limits.window_budget
        self.events: list[Event] = []
        self.keepalive = Keepalive()
        self.stray_allowance_bytes = limits.stray_bytes
        """Data for streams that are gone that is still tolerated."""
        self.is_going_away = False
        self.peer_is_going_away = False
        self.is_closed = False

    def forget(self, stream: Stream) -> None:
        """Remove a stream from all tables, for every kind of end."""
        self.release_budget(stream)
        self.table.forget(stream)
        self.outbox.forget(stream)

    def reset(self, stream: Stream) -> None:
        """Reset a stream, and send RST unless both sides have already ended it."""
        if _has_ended(stream):
            self.forget(stream)
            return
        # Until the RST arrives, the peer may use up the window.
        self.stray_allowance_bytes += stream.receive_window.remaining_bytes
        self.forget(stream)
        self.outbox.add_flag(stream.stream_id, RST)

    def reset_by_peer(self, stream: Stream) -> None:
        """End both halves of a stream after the peer's RST; nothing more is sent on it.

        The stream stays in the table, charged to the window budget, until the application has consumed or
        dropped the data that arrived before the RST.
        """
        if not stream.receive_window.held_bytes:
            self.forget(stream)
            return
        self.outbox.forget(stream)
        stream.drop_queue()
        if not stream.is_acknowledged:
            self.table.acknowledge(stream)
        stream.sending, stream.receiving = Sending.ENDED, Receiving.ENDED
        stream.is_reset = True
        self.release_consumed(stream)

    def abort(self, stream: Stream, code: str) -> None:
        """Reset a stream and report it to the application as ``StreamAborted``."""
        self.reset(stream)
        self.events.append(StreamAborted(stream.stream_id, code))

    def end_sending(self, stream: Stream) -> None:
        """Report that our FIN is queued after all data."""
        self.events.append(EndSent(stream.stream_id))
        self.close_if_ended(stream)

    def close_if_ended(self, stream: Stream) -> None:
        """Drop a stream when both halves have ended and it is not charged to the budget any more."""
        # The charge covers data that the application still holds; see release_consumed.
        if not _has_ended(stream) or stream.receive_window.charged_bytes:
            return
        if not stream.is_reset:
            self.forget(stream)
            self.events.append(StreamClosed(stream.stream_id))
        elif not stream.receive_window.held_bytes:
            self.forget(stream)

    def close_session(self, last_frame: bytes = b"") -> None:
        """End the session: only ``last_frame`` is still sent."""
        self.is_closed = True
        for stream in self.table.live.values():
            self.release_budget(stream)
        self.table.clear()
        self.outbox.clear()
        self.outbox.set_last_frame(last_frame)

    def schedule_credit(self, stream: Stream) -> None:
        """Schedule a window update, after the window was resized if necessary."""
        if self.outbox.owes_credit(stream):
            return
        window, keepalive = stream.receive_window, self.keepalive
        max_bytes = self.limits.receive_window_max_bytes
        if window.charged_bytes or window.uncharged_bytes or window.size_bytes < max_bytes:
            keepalive.wants_round_trip = True
            now, round_trip_seconds = keepalive.received_at or 0.0, keepalive.min_round_trip_seconds or 0.0
            window.tune(now, round_trip_seconds, max_bytes, self._budget)
        if window.taken_bytes:
            self.outbox.add_credit(stream)

    def recharge_window(self, stream: Stream, now: float) -> bool:
        """Recharge an uncharged window that holds too much. On failure, reset the stream and return False."""
        if stream.receive_window.recharge(self._budget, now):
            return True
        self.abort(stream, "window_budget")
        return False

    def release_consumed(self, stream: Stream) -> None:
        """After the peer's end of data: return to the budget what the application has consumed."""
        stream.receive_window.release_consumed(self._budget)
        self.close_if_ended(stream)

    def release_budget(self, stream: Stream) -> None:
        """Return all of a stream's charge to the budget: the stream is gone."""
        stream.receive_window.release_all(self._budget)

    def queue_ping(self, now: float) -> None:
        """Send a ping."""
        self.outbox.add_control(ping_frame(SYN, self.keepalive.ping(now)))

    def check_control_queue(self) -> None:
        """Raise RemoteProtocolError ("control_flood") if the peer does not read our answers."""
        if len(self.outbox.control) > self.limits.control_frames + 3 * self.limits.streams:
            msg = "The peer causes answers and does not read them."
            raise RemoteProtocolError(msg, code="control_flood")

    def check(self) -> None:
        """Assert the invariants."""
        self.table.check()
        assert self.stray_allowance_bytes >= 0, "excess stray data is rejected at its header"


def _has_ended(stream: Stream) -> bool:
    return stream.receiving is Receiving.ENDED and stream.sending is Sending.ENDED
