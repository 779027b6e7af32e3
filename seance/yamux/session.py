"""A yamux session that cannot do I/O: bytes and times in; events, bytes and deadlines out.

Not a connection: whoever owns the carrier (``seance.mux``) moves the bytes, keeps the timer and gives
the events to the owners of the streams. The session never calls back, so it cannot be re-entered.

The owner's part, by occasion:

* bytes came: ``receive_data``; a deadline came: ``handle_timeout``; the application wants something: the
  calls under "streams" and "session";
* after **any** of these: ``take_events``, then ``next_message`` until it is empty or the carrier is full,
  then ``take_events`` again if anything left, then set the timer to ``next_deadline``;
* when ``receive_data`` raised RemoteProtocolError: ``take_events``, then ``next_message`` until it is empty
  (that is the GoAway), then close the carrier and let it flush.

What we send is the part of yamux that every known peer understands: SYN, ACK, FIN and RST each alone on a
window update of its own, ACK once and before our first data, FIN once, after it nothing but credit, and after
RST nothing. (Yamux-js loses the data that rides on a SYN; hashicorp ends the session over a second FIN.)
What we accept is all of yamux and more: :mod:`seance.yamux.inbox`.

Reading never waits for writing: two peers that each wait for the other to read would wait for ever. What the
peer makes us answer is queued and counted instead, and too much of it is an error.
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
        limits: Every bound, see :class:`~seance.yamux.limits.Limits`.
    """

    __slots__ = ("_inbox", "_outbox", "_session_state", "_streams", "role")

    def __init__(self, role: Role, *, limits: Limits = _DEFAULT_LIMITS) -> None:
        self.role = role
        self._session_state = SessionState(role, limits)
        self._inbox = Inbox(self._session_state)
        self._outbox = self._session_state.outbox
        self._streams = self._session_state.table.live

    # Facts.

    @property
    def limits(self) -> Limits:
        """Every bound. New ones may be set at any time: nothing is cut, open streams keep their windows."""
        return self._session_state.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._session_state.limits = limits

    @property
    def stream_count(self) -> int:
        """How many streams are alive, in both directions together."""
        return len(self._streams)

    @property
    def is_closed(self) -> bool:
        """Whether the session is over. A farewell may still wait in ``next_message``."""
        return self._session_state.is_closed

    @property
    def is_going_away(self) -> bool:
        """Whether we have said that we are leaving."""
        return self._session_state.is_going_away

    @property
    def peer_is_going_away(self) -> bool:
        """Whether the peer has said that it is leaving."""
        return self._session_state.peer_is_going_away

    @property
    def wants_to_send(self) -> bool:
        """Whether ``next_message`` has something to return."""
        return self._outbox.wants_to_send

    @property
    def round_trip_seconds(self) -> float | None:
        """How long the latest answered ping took, our own queue included; None before the first."""
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
        """Return how many bytes wait to be sent on a stream; 0 for one that is gone."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.queued_bytes

    def describe(self) -> str:
        """Describe the session, and each stream on a line of its own; for a debugger."""
        return "\n".join([repr(self), *(f"  {stream!r}" for stream in self._streams.values())])

    def check(self) -> None:
        """Assert what always holds; for tests, which call it after every step of theirs."""
        self._session_state.check()

    # Receive.

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take bytes from the carrier. Next: ``take_events``, then ``next_message``.

        Args:
            data: Any number of bytes; they need not begin or end where a frame does.
            now: Seconds, monotonic.

        Raises:
            RemoteProtocolError: The peer broke the session, which is over; the GoAway that says so is queued.
                The events of what came before the mistake can still be taken.
            LocalProtocolError: The session was over before ("session_closed").
        """
        session_state = self._session_state
        if session_state.is_closed:
            msg = "The yamux session is over and takes no more bytes."
            raise LocalProtocolError(msg, code="session_closed")
        if not data:
            return
        keepalive = session_state.keepalive
        keepalive.heard(now)
        if keepalive.wants_round_trip and keepalive.is_measuring_due(now):
            session_state.queue_ping(now)
        try:
            self._inbox.receive(bytes(data), now)
        except RemoteProtocolError as error:
            session_state.close_session(go_away_frame(error.goaway))
            raise

    def take_events(self) -> list[Event]:
        """Return what happened since the last call, in order."""
        session_state = self._session_state
        events, session_state.events = session_state.events, []
        return events

    # Streams.

    def open_stream(self, now: float) -> int:
        """Open a stream; data may be sent at once. Next: ``StreamAcknowledged`` or ``StreamAborted``.

        Args:
            now: Seconds, monotonic; the peer has ``limits.open_timeout_seconds`` to answer.

        Returns:
            The id of the stream.

        Raises:
            LocalProtocolError: "session_closed"; "going_away" (either side is leaving); "too_many_streams";
                "too_many_unacknowledged"; "stream_ids_exhausted" (dial again). The session goes on.
        """
        session_state = self._session_state
        limits, table = session_state.limits, session_state.table
        if session_state.is_closed:
            raise LocalProtocolError("The yamux session is over.", code="session_closed")
        if session_state.is_going_away or session_state.peer_is_going_away:
            msg = "The yamux session is ending and opens no more streams."
            raise LocalProtocolError(msg, code="going_away")
        if len(table.live) >= limits.streams:
            msg = f"All {limits.streams} streams of the yamux session are in use."
            raise LocalProtocolError(msg, code="too_many_streams")
        if len(table.deadlines) >= limits.unacknowledged:
            msg = f"{limits.unacknowledged} streams wait for the peer to answer; no more are opened."
            raise LocalProtocolError(msg, code="too_many_unacknowledged")
        stream = table.open(now + limits.open_timeout_seconds)
        if stream is None:
            raise LocalProtocolError("The yamux session has no stream ids left.", code="stream_ids_exhausted")
        delta_bytes = stream.receive_window.widen(limits.receive_window_bytes)
        self._outbox.add_flag(stream.stream_id, SYN, delta_bytes)
        return stream.stream_id

    def accept_stream(self, stream_id: int) -> None:
        """Answer a ``StreamOpened`` with yes. Idempotent, and nothing if the stream is gone by now.

        Sending on a stream of the peer's, ending it or taking much of its data accepts it too;
        ``reset_stream`` refuses it.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_outbound or stream.is_acknowledged:
            return
        self._session_state.table.acknowledge(stream)
        delta_bytes = stream.receive_window.widen(self.limits.receive_window_bytes)
        self._outbox.add_flag(stream_id, ACK, delta_bytes)

    def send_data(self, stream_id: int, data: Bytes) -> int:
        """Queue data, which leaves through ``next_message`` as the peer's window and other streams allow.

        Args:
            stream_id: A stream that was neither ended by us nor reset by anybody.
            data: Any number of bytes, or a view of bytes; the object is kept until it has left.

        Returns:
            How many bytes now wait on this stream. Above ``limits.send_high_water_bytes`` stop writing until
            ``StreamWritable``.

        Raises:
            LocalProtocolError: "stream_closed"; or "send_queue_full", and then the stream was reset: to
                lose bytes out of the middle of a stream is the one thing that must not happen.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.sending is not _SENDING_OPEN:
            raise LocalProtocolError(f"Stream {stream_id} takes no more data.", code="stream_closed")
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
                msg = f"Stream {stream_id} was reset: more than {limits.send_queue_bytes} bytes waited on it."
                raise LocalProtocolError(msg, code="send_queue_full")
        if not stream.is_scheduled:
            self._outbox.add_data(stream)
        return queued_bytes

    def end_stream(self, stream_id: int) -> None:
        """End our half: FIN leaves after everything that is queued. Idempotent; reading goes on.

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
        """Cut a stream, both halves, without an event. Idempotent; what is queued on it is dropped.

        Events of it that wait in ``take_events`` still come.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._session_state.reset(stream)

    def reset_when_sent(self, stream_id: int) -> bool:
        """Cut a stream, both halves, once everything that is queued on it has left. Idempotent.

        Returns:
            Whether that has happened: nothing was queued, or the stream is gone. Otherwise the next event is
            ``StreamAborted`` with the code "sent"; ``reset_stream`` ends the wait, which has no bound here.
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
        """Say that ``count`` bytes of ``DataReceived`` have gone where they should. Next: ``next_message``.

        This alone gives the peer credit, so a slow consumer slows its own stream and nothing else. Ignored
        for a stream that is gone.

        Raises:
            LocalProtocolError: More was taken than was delivered ("taken_too_much").
        """
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        is_due = stream.receive_window.take(count)
        if stream.receiving is not Receiving.OPEN:
            # Nobody wants credit any more, and nim-libp2p objects to it.
            if stream.receive_window.charged_bytes or stream.is_reset:
                self._session_state.settle(stream)
        elif is_due:
            self.accept_stream(stream_id)
            self._session_state.schedule_credit(stream)

    # Session.

    def ping(self, now: float) -> bool:
        """Ask for a sign of life. Next: ``PingAnswered``; or ``SessionTimedOut`` if nothing at all comes.

        Returns:
            False if a ping is already in flight (its answer is as good) or the session is over.
        """
        if self._session_state.is_closed or self._session_state.keepalive.is_ping_in_flight:
            return False
        self._session_state.queue_ping(now)
        return True

    def go_away(self, code: GoAwayCode = GoAwayCode.NORMAL) -> None:
        """Say that we are leaving. Idempotent.

        NORMAL ends nothing: open streams go on, and what the peer opens from now on is reset. The frame
        leaves as the last of its message, because some peers (libp2p) close over it: to drain, wait until
        ``stream_count`` is 0 before. Any other code ends the session, and the frame is all that still leaves.
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
        """Take note that the carrier is gone. Idempotent, and without an event for each stream.

        Whoever drops a session calls this, or what its windows have of the process's budget is lost.
        """
        if not self._session_state.is_closed:
            self._session_state.close_session()

    # Send.

    def next_message(self, limit: int = 64 * KIB) -> list[Bytes]:
        """Return the next frames that may leave, whole, as pieces that only need to be joined.

        Next: send them in one carrier message (yamux-js cannot put a frame together from two), then
        ``take_events`` for ``StreamWritable``, ``EndSent`` and ``StreamClosed``. The order is that of
        :mod:`seance.yamux.outbox`.

        Args:
            limit: Bytes, at most; 13 is the least with which everything moves. 64 KiB is where Twisted's
                transports begin to push back.

        Returns:
            Headers and bodies in order; empty when nothing can leave now.
        """
        session_state = self._session_state
        low_water_bytes = session_state.limits.send_low_water_bytes
        pieces = self._outbox.next_message(limit, low_water_bytes, session_state.keepalive.heard_at)
        for stream in self._outbox.take_drained():
            if stream.resets_when_sent:
                session_state.cut(stream, "sent")
            elif stream.sending is Sending.ENDED:
                session_state.end_sending(stream)
            else:
                session_state.events.append(StreamWritable(stream.stream_id))
        return pieces

    # Time.

    def next_deadline(self) -> float | None:
        """Return when ``handle_timeout`` has to be called: a time that may be past, or None for never.

        Until the session has been told the time it is 0.0: at once.
        """
        session_state = self._session_state
        if session_state.is_closed:
            return None
        limits = session_state.limits
        keepalive = session_state.keepalive.deadline(limits.ping_after_seconds, limits.dead_after_seconds)
        deadlines = [due for due in (keepalive, session_state.table.next_deadline()) if due is not None]
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due at ``now``; harmless when nothing is. Next: ``take_events``, ``next_message``."""
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
        for stream in session_state.table.overdue(now):
            session_state.cut(stream, "open_timeout")
