"""A yamux session without I/O: bytes and times in; events, bytes and deadlines out.

The owner (``seance.mux``) has the carrier and the timer, and passes the events to the owners of the streams.
The session never calls back, so it is not re-entrant.

Tasks of the owner:

* When bytes arrive: ``receive_data``. When the deadline is reached: ``handle_timeout``. For the application:
  the calls under "Streams" and "Session".
* After **each** of these: ``take_events``; then ``next_message`` until it is empty or the carrier is full;
  then ``take_events`` again if anything was sent; then set the timer to ``next_deadline``.
* When ``receive_data`` raised RemoteProtocolError: ``take_events``, then ``next_message`` until it is empty
  (this is the GoAway), then flush and close the carrier.

The session sends only what every known peer understands: SYN, ACK, FIN and RST each on a separate
window update; ACK once and before our first data; FIN once, followed only by credit; nothing after RST.
(yamux-js loses data that comes with a SYN; hashicorp/yamux ends the session over a second FIN.) It accepts
all of yamux and more: :mod:`seance.yamux.inbox`.

Receiving never waits for sending: two peers that each wait for the other to read would wait forever. Answers
to the peer are queued and counted instead, and too many of them are an error.
"""

from __future__ import annotations

from typing import Final

from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.yamux.constants import ACK, KIB, SYN, GoAwayCode, Role
from seance.yamux.events import Event, SessionTimedOut, StreamWritable
from seance.yamux.frames import Bytes, go_away_frame
from seance.yamux.half_states import SENDING, Receiving, Sending, Step
from seance.yamux.inbox import Inbox
from seance.yamux.keepalive import Verdict
from seance.yamux.limits import Limits
from seance.yamux.session_state import SessionState

__all__ = ["Session"]

_SENDING_OPEN: Final = Sending.OPEN
_DEFAULT_LIMITS: Final = Limits()


class Session:
    """One end of a yamux session.

    Args:
        role: CLIENT for the agent, SERVER for the relay; the peer has to be the other.
        limits: See :class:`~seance.yamux.limits.Limits`.
    """

    __slots__ = ("_inbox", "_outbox", "_session_state", "_streams", "role")

    def __init__(self, role: Role, *, limits: Limits = _DEFAULT_LIMITS) -> None:
        self.role = role
        self._session_state = SessionState(role, limits)
        self._inbox = Inbox(self._session_state)
        self._outbox = self._session_state.outbox
        self._streams = self._session_state.table.live

    # Properties.

    @property
    def limits(self) -> Limits:
        """The limits. They may be replaced at any time: open streams are not reset and keep their windows."""
        return self._session_state.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._session_state.limits = limits

    @property
    def stream_count(self) -> int:
        """Open streams, in both directions together."""
        return len(self._streams)

    @property
    def is_closed(self) -> bool:
        """Whether the session is over. A GoAway may still be in ``next_message``."""
        return self._session_state.is_closed

    @property
    def is_going_away(self) -> bool:
        """Whether our side has called ``go_away``."""
        return self._session_state.is_going_away

    @property
    def peer_is_going_away(self) -> bool:
        """Whether the peer has sent a GoAway."""
        return self._session_state.peer_is_going_away

    @property
    def wants_to_send(self) -> bool:
        """Whether ``next_message`` has anything to return."""
        return self._outbox.wants_to_send

    @property
    def round_trip_seconds(self) -> float | None:
        """Round trip of the latest answered ping, including our send queue; None before the first."""
        return self._session_state.keepalive.round_trip_seconds

    def __repr__(self) -> str:
        session_state = self._session_state
        state = "closed" if session_state.is_closed else "leaving" if session_state.is_going_away else "open"
        leaving = ", peer leaving" if session_state.peer_is_going_away else ""
        return (
            f"<Session {self.role.name.lower()} {state}{leaving}: {len(self._streams)} streams, "
            f"{len(session_state.table.deadlines)} unacknowledged, "
            f"{session_state.table.unaccepted_count} unaccepted, "
            f"{self._outbox.scheduled_count} with data to send, "
            f"{len(self._outbox.control) + self._outbox.pong_count} control frames queued>"
        )

    def queued_bytes(self, stream_id: int) -> int:
        """Return the bytes in the send queue of a stream; 0 for a stream that is gone."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.queued_bytes

    def describe(self) -> str:
        """Describe the session, and each stream on a separate line; for a debugger."""
        return "\n".join([repr(self), *(f"  {stream!r}" for stream in self._streams.values())])

    def check(self) -> None:
        """Assert the invariants; tests call it after every step."""
        self._session_state.check()

    # Receive.

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Process bytes from the carrier. Next: ``take_events``, then ``next_message``.

        Args:
            data: Any number of bytes; they need not start or end at a frame boundary.
            now: Seconds, monotonic.

        Raises:
            RemoteProtocolError: The peer broke the protocol. The session is over, and a GoAway is queued. The
                events of what came before can still be taken.
            LocalProtocolError: The session was over before ("session_closed").
        """
        session_state = self._session_state
        if session_state.is_closed:
            msg = "The yamux session is over and cannot receive more data."
            raise LocalProtocolError(msg, code="session_closed")
        if not data:
            return
        keepalive = session_state.keepalive
        keepalive.bytes_received(now)
        if keepalive.wants_round_trip and keepalive.is_measuring_due(now):
            session_state.queue_ping(now)
        try:
            self._inbox.receive(bytes(data), now)
        except RemoteProtocolError as error:
            session_state.close_session(go_away_frame(error.goaway))
            raise

    def take_events(self) -> list[Event]:
        """Return the events since the last call, in order."""
        session_state = self._session_state
        events, session_state.events = session_state.events, []
        return events

    # Streams.

    def open_stream(self, now: float) -> int:
        """Open a stream. Data may be sent immediately. Next: ``StreamAcknowledged`` or ``StreamAborted``.

        Args:
            now: Seconds, monotonic; the peer has ``limits.open_timeout_seconds`` to answer.

        Returns:
            The id of the stream.

        Raises:
            LocalProtocolError: "session_closed"; "going_away" (on either side); "too_many_streams";
                "too_many_unacknowledged"; "stream_ids_exhausted" (dial again). The session continues.
        """
        session_state = self._session_state
        limits, table = session_state.limits, session_state.table
        if session_state.is_closed:
            raise LocalProtocolError("The yamux session is over.", code="session_closed")
        if session_state.is_going_away or session_state.peer_is_going_away:
            msg = "The yamux session is going away; no more streams can be opened."
            raise LocalProtocolError(msg, code="going_away")
        if len(table.live) >= limits.streams:
            msg = f"All {limits.streams} streams of the yamux session are in use."
            raise LocalProtocolError(msg, code="too_many_streams")
        if len(table.deadlines) >= limits.unacknowledged:
            msg = f"{limits.unacknowledged} streams wait for the peer's answer; no more can be opened."
            raise LocalProtocolError(msg, code="too_many_unacknowledged")
        stream = table.open(now + limits.open_timeout_seconds)
        if stream is None:
            raise LocalProtocolError("The yamux session has no stream ids left.", code="stream_ids_exhausted")
        delta_bytes = stream.receive_window.widen(limits.receive_window_bytes)
        self._outbox.add_flag(stream.stream_id, SYN, delta_bytes)
        return stream.stream_id

    def accept_stream(self, stream_id: int) -> None:
        """Accept a stream that the peer opened. Idempotent; does nothing if the stream is gone.

        Sending on the stream, ending it or consuming much of its data accepts it too. ``reset_stream``
        rejects it.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_outbound or stream.is_acknowledged:
            return
        self._session_state.table.acknowledge(stream)
        delta_bytes = stream.receive_window.widen(self.limits.receive_window_bytes)
        self._outbox.add_flag(stream_id, ACK, delta_bytes)

    def send_data(self, stream_id: int, data: Bytes) -> int:
        """Queue data; ``next_message`` returns it as the peer's window and the scheduler allow.

        Args:
            stream_id: A stream that was neither ended by us nor reset.
            data: Any number of bytes, or a view of bytes; the object is kept until it was sent.

        Returns:
            Bytes in the send queue of this stream. Above ``limits.send_high_water_bytes`` stop writing until
            ``StreamWritable``.

        Raises:
            LocalProtocolError: "stream_closed"; or "send_queue_full", and the stream was reset, because a
                stream must never lose bytes in the middle.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.sending is not _SENDING_OPEN:
            raise LocalProtocolError(f"Stream {stream_id} is closed for sending.", code="stream_closed")
        if not stream.is_acknowledged:
            self.accept_stream(stream_id)
        if not data:
            return stream.queued_bytes
        queued_bytes = stream.queue(data)
        limits = self._session_state.limits
        if queued_bytes > limits.send_high_water_bytes:
            stream.is_congested = True
            if queued_bytes > limits.send_queue_bytes:
                self.reset_stream(stream_id)
                msg = f"Stream {stream_id} was reset: it has queued over {limits.send_queue_bytes} bytes."
                raise LocalProtocolError(msg, code="send_queue_full")
        if not stream.is_scheduled:
            self._outbox.add_data(stream)
        return queued_bytes

    def end_stream(self, stream_id: int) -> None:
        """End our half: FIN is sent after all queued data. Idempotent; receiving continues.

        Next: ``EndSent``, and ``StreamClosed`` when the peer has ended its half too.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self.accept_stream(stream_id)
        stream.sending = SENDING[stream.sending, Step.END]
        if stream.sending is Sending.ENDING and not stream.queued_bytes:
            self._outbox.add_fin(stream)
            self._session_state.end_sending(stream)

    def reset_stream(self, stream_id: int) -> None:
        """Reset a stream, both halves, without an event. Idempotent; queued data is dropped.

        Its events that are already in ``take_events`` are still returned.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._session_state.reset(stream)

    def reset_when_sent(self, stream_id: int) -> bool:
        """Reset a stream, both halves, after all queued data was sent. Idempotent.

        Returns:
            Whether this has happened: nothing was queued, or the stream is gone. Otherwise the next event is
            ``StreamAborted`` with the code "sent". The wait has no timeout here; ``reset_stream`` ends it.
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return True
        if not stream.queued_bytes:
            self._session_state.reset(stream)
            return True
        self.accept_stream(stream_id)
        stream.sending = SENDING[stream.sending, Step.END]
        stream.resets_when_sent = True
        return False

    def data_taken(self, stream_id: int, count: int) -> None:
        """Report that the application has consumed ``count`` bytes. Next: ``next_message``.

        Only this gives credit to the peer, so a slow consumer slows down its own stream and no other. Ignored
        for a stream that is gone.

        Raises:
            LocalProtocolError: The count exceeds what was delivered ("taken_too_much").
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        is_due = stream.receive_window.take(count)
        if stream.receiving is not Receiving.OPEN:
            # No more data comes, so the peer needs no credit, and nim-libp2p rejects it.
            if stream.receive_window.charged_bytes or stream.is_reset:
                self._session_state.release_consumed(stream)
        elif is_due:
            self.accept_stream(stream_id)
            self._session_state.schedule_credit(stream)

    # Session.

    def ping(self, now: float) -> bool:
        """Send a ping. Next: ``PingAnswered``; or ``SessionTimedOut`` if no byte arrives.

        Returns:
            False if a ping is already in flight or the session is over.
        """
        if self._session_state.is_closed or self._session_state.keepalive.is_ping_in_flight:
            return False
        self._session_state.queue_ping(now)
        return True

    def restart_bulk_limit(self) -> None:
        """Forget the measured path: the next message is sent over another carrier."""
        self._outbox.bulk_limit.restart()

    def go_away(self, code: GoAwayCode = GoAwayCode.NORMAL) -> None:
        """Announce that our side is going away. Idempotent.

        NORMAL ends nothing: open streams continue, and streams that the peer opens from now on are reset. The
        frame is sent at the end of its message, because some peers (libp2p) close when they receive it; to
        drain, wait until ``stream_count`` is 0 before. Any other code ends the session, and only the frame is
        still sent.
        """
        session_state = self._session_state
        if session_state.is_closed:
            return
        if code != GoAwayCode.NORMAL:
            session_state.close_session(go_away_frame(code))
        elif not session_state.is_going_away:
            self._outbox.set_last_frame(go_away_frame(code))
        session_state.is_going_away = True

    def close(self) -> None:
        """Record that the carrier is gone. Idempotent; no events for the streams.

        Always call it for a session that is dropped: it returns the session's share of the window budget.
        """
        if not self._session_state.is_closed:
            self._session_state.close_session()

    # Send.

    def next_message(self, limit: int = 64 * KIB, now: float | None = None) -> list[Bytes]:
        """Remove and return the next whole frames, as pieces to join.

        Next: send them in one carrier message (yamux-js cannot parse a frame that is split over two), then
        ``take_events`` for ``StreamWritable``, ``EndSent`` and ``StreamClosed``. The order is that of
        :mod:`seance.yamux.outbox`.

        Args:
            limit: Maximum number of bytes; at least 13 so that everything can be sent. Default 64 KiB, where
                Twisted's transports start to push back.
            now: Seconds, monotonic. With None the delay of the path is not measured, and bulk data is not
                limited by it.

        Returns:
            Headers and bodies in order; empty if nothing can be sent now.
        """
        session_state = self._session_state
        low_water_bytes = session_state.limits.send_low_water_bytes
        pieces = self._outbox.next_message(limit, low_water_bytes, now)
        for stream in self._outbox.take_drained():
            if stream.resets_when_sent:
                session_state.abort(stream, "sent")
            elif stream.sending is Sending.ENDED:
                session_state.end_sending(stream)
            else:
                session_state.events.append(StreamWritable(stream.stream_id))
        return pieces

    # Time.

    def next_deadline(self) -> float | None:
        """Return when to call ``handle_timeout``: a time, possibly in the past, or None for never.

        Until the session has received a time it is 0.0: immediately.
        """
        session_state = self._session_state
        if session_state.is_closed:
            return None
        limits = session_state.limits
        keepalive = session_state.keepalive.deadline(limits.ping_after_seconds, limits.dead_after_seconds)
        dues = (keepalive, session_state.table.next_deadline(), self._outbox.bulk_limit.deadline())
        deadlines = [due for due in dues if due is not None]
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due at ``now``, if anything. Next: ``take_events``, ``next_message``."""
        session_state = self._session_state
        if session_state.is_closed:
            return
        limits = session_state.limits
        verdict = session_state.keepalive.verdict(now, limits.ping_after_seconds, limits.dead_after_seconds)
        if verdict is Verdict.DEAD:
            session_state.close_session(go_away_frame(GoAwayCode.PROTOCOL_ERROR))
            session_state.events.append(SessionTimedOut())
            return
        if verdict is Verdict.PING:
            session_state.queue_ping(now)
        self._outbox.bulk_limit.handle_timeout(now)
        for stream in session_state.table.overdue(now):
            session_state.abort(stream, "open_timeout")
