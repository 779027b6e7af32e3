"""Apply received frames to the streams of a session.

Called only by :meth:`seance.yamux.session.Session.receive_data`. It accepts everything that some
implementation sends, with any combination of flags on data frames and window updates. Within one frame the
order is: SYN, RST, the ACK that every frame implies, data or delta, FIN.

Errors that end the session raise RemoteProtocolError: broken framing, ids that the peer may not open or has
used before, data beyond a window, windows beyond 32 bits, and answers that the peer causes and does not read.
Data after FIN and an open beyond our limits reset the stream. Everything else is ignored: a second FIN, an
unexpected ACK, unknown flags, and frames for a stream that is gone. The latter are not answered with RST,
because it would hit frames that are still in flight (libp2p/rust-yamux issue 110). Only data for such streams
is limited.
"""

from __future__ import annotations

from typing import Final

from seance.errors import RemoteProtocolError
from seance.yamux.bulk_limit import BULK_PING_VALUE
from seance.yamux.constants import (
    ACK,
    DATA,
    FIN,
    INITIAL_WINDOW_BYTES,
    PING,
    RST,
    SESSION_ID,
    SYN,
    WINDOW_UPDATE,
    GoAwayCode,
)
from seance.yamux.events import (
    DataReceived,
    GoAwayReceived,
    PingAnswered,
    StreamAborted,
    StreamAcknowledged,
    StreamEnded,
    StreamOpened,
)
from seance.yamux.frames import Bytes, FrameDecoder
from seance.yamux.half_states import RECEIVING, Receiving, Step
from seance.yamux.session_state import SessionState
from seance.yamux.streams import Stream

__all__ = ["Inbox"]

_OPEN: Final = Receiving.OPEN


class Inbox:
    """Decodes the peer's bytes and applies them to a ``SessionState``."""

    __slots__ = ("_decoder", "_session_state")

    def __init__(self, session_state: SessionState) -> None:
        self._session_state = session_state
        self._decoder = FrameDecoder()

    def receive(self, data: bytes, now: float) -> None:
        """Apply received bytes, cut anywhere. After an error the session cannot receive any more.

        Raises:
            RemoteProtocolError: The peer broke the protocol; the module docstring lists the cases.
        """
        session_state = self._session_state
        if session_state.outbox.control:
            session_state.check_control_queue()
        streams = session_state.table.live
        emit = session_state.events.append
        for kind, flags, stream_id, length, body in self._decoder.decode(data):
            if kind == DATA:
                stream = streams.get(stream_id)
                # The common case first. _receive_data does the same and handles all other cases.
                if stream is None or flags or not stream.is_acknowledged or stream.receiving is not _OPEN:
                    self._receive_data(flags, stream_id, length, body, now)
                    continue
                window = stream.receive_window
                if length > window.remaining_bytes:
                    raise _beyond_window(stream_id, length, window.remaining_bytes)
                if body:
                    count = len(body)  # inlined window.receive(count)
                    window.remaining_bytes -= count
                    window.held_bytes += count
                    if window.uncharged_bytes and not session_state.recharge_window(stream, now):
                        continue
                    emit(DataReceived(stream_id, body))
            elif kind == WINDOW_UPDATE:
                self._receive_window_update(flags, stream_id, length)
            elif kind == PING:
                self._receive_ping(flags, length, now)
            else:
                self._receive_go_away(length)
                if session_state.is_closed:
                    return

    def _receive_data(self, flags: int, stream_id: int, announced: int, body: Bytes, now: float) -> None:
        """Handle a data frame or a part of one: ``body`` is the first part of the ``announced`` bytes."""
        if stream_id == SESSION_ID and not flags & SYN:
            msg = "The peer sent data on stream 0, which is reserved for the session."
            raise RemoteProtocolError(msg, code="data_on_session")
        session_state = self._session_state
        stream = self._stream_for(stream_id, flags)
        if stream is not None and announced:
            window = stream.receive_window
            if announced > window.remaining_bytes:
                raise _beyond_window(stream_id, announced, window.remaining_bytes)
            if (stream.receiving, Step.DATA) not in RECEIVING:
                session_state.abort(stream, "data_after_end")
                stream = None
            elif body:
                window.receive(len(body))
                if window.uncharged_bytes and not session_state.recharge_window(stream, now):
                    return
                session_state.events.append(DataReceived(stream_id, body))
        if stream is None:
            if announced > session_state.stray_allowance_bytes:
                msg = "The peer sent too much data for streams that are closed."
                raise RemoteProtocolError(msg, code="stray_data")
            session_state.stray_allowance_bytes -= len(body)
        elif flags & FIN:
            self._receive_fin(stream)

    def _receive_window_update(self, flags: int, stream_id: int, delta_bytes: int) -> None:
        stream = self._stream_for(stream_id, flags)
        if stream is None:
            return
        if not stream.send_window.grow(delta_bytes):
            msg = f"The peer's window updates for stream {stream_id} add up to more than 2^32-1 bytes."
            raise RemoteProtocolError(msg, code="window_overflow")
        self._session_state.outbox.add_data(stream)
        if flags & FIN:
            self._receive_fin(stream)

    def _stream_for(self, stream_id: int, flags: int) -> Stream | None:
        """Apply SYN, RST and the ACK that every frame implies; return the stream, or None if it is gone."""
        session_state = self._session_state
        stream = (
            self._receive_syn(stream_id, flags) if flags & SYN else session_state.table.live.get(stream_id)
        )
        if stream is None or stream.is_reset:
            return None
        is_unanswered = stream.is_outbound and not stream.is_acknowledged
        if flags & RST:
            session_state.reset_by_peer(stream)
            session_state.events.append(StreamAborted(stream_id, "refused" if is_unanswered else "reset"))
            return None
        if is_unanswered:
            session_state.table.acknowledge(stream)
            session_state.events.append(StreamAcknowledged(stream_id))
        return stream

    def _receive_syn(self, stream_id: int, flags: int) -> Stream | None:
        session_state = self._session_state
        table, limits = session_state.table, session_state.limits
        if not table.peer_ids.is_valid(stream_id):
            code = "stream_id_zero" if stream_id == SESSION_ID else "stream_id_parity"
            msg = f"The peer opened stream {stream_id}, an id that it may not use."
            raise RemoteProtocolError(msg, code=code)
        if not table.peer_ids.use(stream_id):
            code = "stream_id_in_use" if stream_id in table.live else "stream_id_reused"
            raise RemoteProtocolError(f"The peer opened stream {stream_id} a second time.", code=code)
        if flags & RST:
            return None  # opened and reset in one frame
        if (
            session_state.is_going_away
            or len(table.live) >= limits.streams
            or table.unaccepted_count >= limits.accept_backlog
        ):
            # The peer may legally send a full window before it receives the RST.
            session_state.stray_allowance_bytes += INITIAL_WINDOW_BYTES
            session_state.outbox.add_flag(stream_id, RST)
            session_state.check_control_queue()
            return None
        session_state.events.append(StreamOpened(stream_id))
        return table.admit(stream_id)

    def _receive_fin(self, stream: Stream) -> None:
        is_first = stream.receiving is _OPEN
        stream.receiving = RECEIVING[stream.receiving, Step.FIN]
        if is_first:
            session_state = self._session_state
            session_state.outbox.cancel_credit(stream.stream_id)
            session_state.events.append(StreamEnded(stream.stream_id))
            session_state.release_consumed(stream)

    def _receive_ping(self, flags: int, value: int, now: float) -> None:
        session_state = self._session_state
        if flags & SYN:
            if session_state.outbox.pong_count < session_state.limits.pongs:
                session_state.outbox.add_pong(value)
        elif flags & ACK:
            if value >= BULK_PING_VALUE:
                session_state.outbox.bulk_limit.pong_received(value, now)
                return
            round_trip_seconds = session_state.keepalive.pong_received(value, now)
            if round_trip_seconds is not None:
                session_state.events.append(PingAnswered(round_trip_seconds))

    def _receive_go_away(self, code: int) -> None:
        session_state = self._session_state
        if code != GoAwayCode.NORMAL:
            session_state.close_session()
        elif session_state.peer_is_going_away:
            return
        session_state.peer_is_going_away = True
        session_state.events.append(GoAwayReceived(code))


def _beyond_window(stream_id: int, announced: int, remaining: int) -> RemoteProtocolError:
    msg = f"The peer announced {announced} bytes on stream {stream_id}, but its window has {remaining} left."
    return RemoteProtocolError(msg, code="window_exceeded")
