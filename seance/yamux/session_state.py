"""What both directions of a session share: who is alive, what waits to leave, what is to be told.

Used by :mod:`seance.yamux.session`, which does what our side asks for, and :mod:`seance.yamux.inbox`, which
does what the peer says. Both end streams, and both may end the session; so the ways to end are here,
once, and no table can be forgotten in one of them (a stream that stays in a table after its end is the
commonest leak among yamux implementations).
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
    """The state of one session, and the ways in which streams and sessions end."""

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
        """How much data for streams that are gone is still taken for a late arrival."""
        self.is_going_away = False
        self.peer_is_going_away = False
        self.is_closed = False

    def forget(self, stream: Stream) -> None:
        """Take a stream out of everything: the one way out, for all ends."""
        self.give_back(stream)
        self.table.forget(stream)
        self.outbox.forget(stream)

    def reset(self, stream: Stream) -> None:
        """Cut a stream and tell the peer, unless that has said and heard its end already."""
        if _has_ended(stream):
            self.forget(stream)
            return
        # Until the RST gets there the peer may use up the window; that much is no abuse.
        self.stray_allowance_bytes += stream.receive_window.remaining_bytes
        self.forget(stream)
        self.outbox.add_flag(stream.stream_id, RST)

    def reset_by_peer(self, stream: Stream) -> None:
        """End both halves of a stream for the peer's RST; nothing of ours leaves on it any more.

        The stream counts, with what it claims of the window budget, until the application has taken or
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
        self.settle(stream)

    def cut(self, stream: Stream, code: str) -> None:
        """Cut a stream for what the peer did or failed to do, and tell both sides."""
        self.reset(stream)
        self.events.append(StreamAborted(stream.stream_id, code))

    def end_sending(self, stream: Stream) -> None:
        """Note that our FIN is queued, after everything else."""
        self.events.append(EndSent(stream.stream_id))
        self.close_if_ended(stream)

    def close_if_ended(self, stream: Stream) -> None:
        """Forget a stream both of whose halves have ended, and of which no more is held than is free."""
        # What is claimed by then is held, and counted until it is taken; see settle.
        if not _has_ended(stream) or stream.receive_window.charged_bytes:
            return
        if not stream.is_reset:
            self.forget(stream)
            self.events.append(StreamClosed(stream.stream_id))
        elif not stream.receive_window.held_bytes:
            self.forget(stream)

    def close_session(self, lingering_close: bytes = b"") -> None:
        """End the session: nothing is left of it but what we still have to say."""
        self.is_closed = True
        for stream in self.table.live.values():
            self.give_back(stream)
        self.table.clear()
        self.outbox.clear()
        self.outbox.set_last_frame(lingering_close)

    def schedule_credit(self, stream: Stream) -> None:
        """Note that a grant is due; how large the window is from now on is decided here."""
        if self.outbox.owes_credit(stream):
            return
        window, keepalive = stream.receive_window, self.keepalive
        max_bytes = self.limits.receive_window_max_bytes
        if window.charged_bytes or window.uncharged_bytes or window.size_bytes < max_bytes:
            keepalive.wants_round_trip = True
            now, round_trip_seconds = keepalive.heard_at or 0.0, keepalive.min_round_trip_seconds or 0.0
            window.tune(now, round_trip_seconds, max_bytes, self._budget)
        if window.taken_bytes:
            self.outbox.add_credit(stream)

    def recharge_window(self, stream: Stream, now: float) -> bool:
        """Whether what a stream with a window on trust holds is within the budget; if not, it is cut."""
        if stream.receive_window.recharge(self._budget, now):
            return True
        self.cut(stream, "window_budget")
        return False

    def settle(self, stream: Stream) -> None:
        """After the peer's end of data: leave to the budget of the process what the application has taken."""
        stream.receive_window.settle(self._budget)
        self.close_if_ended(stream)

    def give_back(self, stream: Stream) -> None:
        """Take a window's growth out of the budget of the process: the stream is gone."""
        stream.receive_window.give_back(self._budget)

    def queue_ping(self, now: float) -> None:
        """Ask the peer for a sign of life."""
        self.outbox.add_control(ping_frame(SYN, self.keepalive.ping(now)))

    def check_control_queue(self) -> None:
        """Raise RemoteProtocolError ("control_flood") if the peer does not read what it makes us say."""
        if len(self.outbox.control) > self.limits.control_frames + 3 * self.limits.streams:
            msg = "The peer keeps asking for answers and does not read them."
            raise RemoteProtocolError(msg, code="control_flood")

    def check(self) -> None:
        """Assert what always holds."""
        self.table.check()
        assert self.stray_allowance_bytes >= 0, "stray data is refused at its header"


def _has_ended(stream: Stream) -> bool:
    return stream.receiving is Receiving.ENDED and stream.sending is Sending.ENDED
