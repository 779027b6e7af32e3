"""The Twisted ``Protocol`` that speaks yamux over any transport.

It drives a ``seance.yamux.Session``: it passes received bytes in, events to ``StreamTransport``s, and
messages out. It does not depend on WebSocket: the carrier is any ``ITransport``. Each ``write`` to it has
whole frames, because yamux-js drops a frame that is split over two messages. It has at most 64 KiB, or
``max_message_bytes`` of a carrier that has this attribute.

Two rules keep a link working under load. *Reading never waits for writing*: the carrier is never paused,
neither for a slow stream nor because our answers cannot be sent. (Otherwise two peers with full buffers block
each other, as in rust-yamux.) A session that cannot write limits its control frames instead. *Writing is
pulled*: while the carrier is full, frames stay in the session, where the scheduler can still send a small one
before a large one. Everything that one turn of the reactor produces is sent at its end, as one message if it
fits; a separate message for each 64-byte frame costs ten times as much.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.mux.address import StreamAddress
from seance.mux.stream import StreamTransport
from seance.yamux import (
    MESSAGE_BYTES,
    Bytes,
    DataReceived,
    EndSent,
    GoAwayCode,
    GoAwayReceived,
    Limits,
    MessageSizer,
    Role,
    Session,
    SessionTimedOut,
    StreamAborted,
    StreamEnded,
    StreamOpened,
    StreamWritable,
)

__all__ = ["Ending", "Mux"]

REFUSALS = ("refused", "open_timeout")
RESETS_OF_THE_PEER = ("reset", "refused")
"""Codes of ``StreamAborted``."""


class Ending(enum.Enum):
    """Why a session failed while its carrier was connected."""

    PEER_BROKE_RULES = "peer_broke_rules"
    PEER_IS_SILENT = "peer_is_silent"
    PEER_ENDED = "peer_ended"


@implementer(IPushProducer)
class Mux(Protocol):
    """One yamux session over one carrier.

    Connect it to a transport (``connectionMade`` starts it), then call ``open_stream`` or ``listen``.

    Args:
        reactor: The reactor, for time.
        role: The relay is the yamux server, the agent the client.
        limits: The limits of the session.
        on_lost: Called once, with the reason as text, when the session is over.
        close_carrier: Closes the carrier after a failed session. Called with the carrier, the cause, and a
            reason for the peer, after the GoAway was written. None: call ``loseConnection``.
        linger_seconds: How long a stream that we closed waits for the peer's end before it is reset.
            hashicorp/yamux waits five minutes; 30 s is enough for a carrier. A reset waits as long for the
            data before it.

    Attributes:
        session: The session, for its figures. Only ``seance.mux`` changes it.
        link: The carrier's address, for display; empty before there is one.
        on_peer_leaving: Called when the peer has announced that it neither opens nor accepts further streams.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        role: Role,
        *,
        limits: Limits | None = None,
        on_lost: Callable[[str], None] | None = None,
        close_carrier: Callable[[ITransport, Ending, str], None] | None = None,
        linger_seconds: float = 30.0,
    ) -> None:
        self._reactor = reactor
        self.session = Session(role, limits=limits or Limits())
        self.high_water_bytes = self.session.limits.send_high_water_bytes
        self.linger_seconds = linger_seconds
        self.call_later = reactor.callLater
        self._on_lost = on_lost
        self._close_carrier = close_carrier
        self._factory: IProtocolFactory | None = None
        self._streams: dict[int, StreamTransport] = {}
        self._flush_call: IDelayedCall | None = None
        self._timeout_call: IDelayedCall | None = None
        self._carrier_is_full = False
        self._message_sizer = MessageSizer()
        self._is_over = False
        self._paused_seconds = 0.0
        self._clock_paused_at: float | None = None
        self.link = ""
        self.on_peer_leaving: Callable[[], None] | None = None

    # -- streams ---------------------------------------------------------------------------

    @property
    def stream_count(self) -> int:
        """Streams that a protocol uses or that wait for the peer's end."""
        return len(self._streams)

    @property
    def queued_bytes(self) -> int:
        """Bytes in the send queues of all streams; visits each of them."""
        return sum(map(self.session.queued_bytes, self._streams))

    def open_stream(self, protocol: IProtocol) -> StreamTransport:
        """Open a stream for ``protocol`` and call its ``connectionMade``.

        It does not wait for the peer's acknowledgement, which would cost a round trip: a peer that rejects
        the stream resets it, and the protocol gets ``connectionLost``.

        Raises:
            LocalProtocolError: The session cannot open a stream now; ``code`` has the reason.
        """
        if self._is_over:
            raise LocalProtocolError("The connection below has ended.", code="session_closed")
        stream_id = self.session.open_stream(self._now())
        stream = StreamTransport(self, stream_id, protocol)
        self._rearm()
        self.flush_soon()
        self._start(stream)
        return stream

    def listen(self, factory: IProtocolFactory | None) -> None:
        """Give streams that the peer opens to ``factory``. None resets them."""
        self._factory = factory

    @property
    def is_over(self) -> bool:
        """Whether the session has ended; this is final."""
        return self._is_over

    @property
    def is_listening(self) -> bool:
        """Whether the peer's streams are accepted."""
        return self._factory is not None

    def go_away(self) -> None:
        """Announce that no further streams are accepted; open streams continue."""
        self.session.go_away(GoAwayCode.NORMAL)
        self.flush_soon()

    def leave(self) -> None:
        """Send a GoAway as the last frame. Next: close the carrier. Data that cannot be sent now is lost."""
        if self._is_over or self.transport is None:
            return
        self._flush()
        self.session.go_away(GoAwayCode.NORMAL)
        self._write_last_message()
        self._carrier_is_full = True

    def end(self, reason: str) -> None:
        """End the session and its streams; the caller closes the carrier. ``reason`` is for ``on_lost``."""
        self._finish(reason)

    def ping(self) -> None:
        """Measure ``session.round_trip_seconds`` again; does nothing while the clock is paused."""
        if not self._is_over and self._clock_paused_at is None and self.session.ping(self._now()):
            self._rearm()
            self.flush_soon()

    @property
    def is_clock_paused(self) -> bool:
        """Whether the clock of the session is paused because its carrier is disconnected."""
        return self._clock_paused_at is not None

    def pause_clock(self) -> None:
        """Pause the clock of the session: its carrier is disconnected, so the peer cannot answer."""
        if self._clock_paused_at is None and not self._is_over:
            self._clock_paused_at = self._reactor.seconds()
            if self._timeout_call is not None:
                self._timeout_call.cancel()
                self._timeout_call = None

    def resume_clock(self) -> None:
        """Continue after ``pause_clock``: deadlines continue with their remaining time."""
        if self._clock_paused_at is not None:
            self._paused_seconds += self._reactor.seconds() - self._clock_paused_at
            self._clock_paused_at = None
            self.session.restart_bulk_limit()
            self._rearm()

    def _now(self) -> float:
        """Return the time of the session, without the time for which its clock was paused."""
        now = self._reactor.seconds() if self._clock_paused_at is None else self._clock_paused_at
        return now - self._paused_seconds

    def describe(self) -> str:
        """Describe the multiplexer in one line, for a debugger or a log at DEBUG."""
        return f"<Mux over {self.link or 'nothing'}: {len(self._streams)} streams, {self.session!r}>"

    # -- from the carrier ------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Register as the carrier's producer and start the keepalive."""
        transport = self.transport
        assert transport is not None, "Twisted sets the transport before connectionMade"
        self.link = str(transport.getPeer())
        self._message_sizer.max_bytes = getattr(transport, "max_message_bytes", MESSAGE_BYTES)
        cast(IConsumer, transport).registerProducer(self, True)
        self.session.handle_timeout(self._now())
        self._rearm()
        self.flush_soon()

    def dataReceived(self, data: bytes) -> None:
        """Process received bytes, cut anywhere."""
        if self._is_over:
            return
        try:
            self.session.receive_data(data, self._now())
        except RemoteProtocolError as error:
            self._dispatch()
            reason = f"The peer broke the yamux protocol: {error}"
            self._fail(reason, Ending.PEER_BROKE_RULES, f"{error.code}: {error}")
            return
        self._dispatch()
        if self.session.wants_to_send:
            self.flush_soon()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the session and all streams: the carrier is lost."""
        self._finish(f"The connection below ended: {reason.getErrorMessage()}")

    def pauseProducing(self) -> None:
        """Keep frames in the session: the carrier is full."""
        self._carrier_is_full = True
        self._message_sizer.filled(self._reactor.seconds())

    def resumeProducing(self) -> None:
        """Send again: the carrier has drained."""
        self._carrier_is_full = False
        self._message_sizer.drained(self._reactor.seconds())
        self.flush_soon()

    def stopProducing(self) -> None:
        """Stop sending: the carrier is closing, and ``connectionLost`` follows."""
        self._carrier_is_full = True

    # -- sending ---------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Send everything that this turn of the reactor produces, at its end."""
        if self._flush_call is None and not self._is_over:
            self._flush_call = self.call_later(0, self._flush)

    def _flush(self) -> None:
        self._flush_call = None
        transport = self.transport
        if self._is_over or transport is None:
            return
        next_message, sizer = self.session.next_message, self._message_sizer
        while not self._carrier_is_full:
            pieces = next_message(sizer.message_bytes, self._now())
            if not pieces:
                self._rearm()  # bulk data may be held, which has a deadline
                break
            message = b"".join(pieces)
            sizer.sent(len(message))
            transport.write(message)
            if not self.session.wants_to_send:
                break
        self._dispatch()

    # -- inside ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        streams = self._streams
        # A loop, because the reaction of a stream to an event may cause further events.
        while events := self.session.take_events():
            if len(events) == 1 and isinstance(event := events[0], DataReceived):
                # The most frequent case first; the code below handles it too.
                if (stream := streams.get(event.stream_id)) is not None:
                    data = event.data
                    if isinstance(data, bytes):
                        stream.data_arrived(data)
                    else:
                        stream.pieces_arrived([data])
                continue
            # Join the data of each stream, because each piece would be a write to a socket. Other events of a
            # stream come after its data, as on the wire.
            pieces: dict[int, list[Bytes]] = {}
            for event in events:
                if isinstance(event, DataReceived):
                    if event.stream_id in pieces:
                        pieces[event.stream_id].append(event.data)
                    else:
                        pieces[event.stream_id] = [event.data]
                    continue
                if pieces:
                    self._deliver(pieces)
                if isinstance(event, StreamOpened):
                    self._opened(event.stream_id)
                elif isinstance(event, (StreamWritable, StreamEnded, EndSent, StreamAborted)):
                    if (stream := streams.get(event.stream_id)) is not None:
                        self._dispatch_stream_event(stream, event)
                elif isinstance(event, SessionTimedOut):
                    seconds = self.session.limits.dead_after_seconds
                    reason = f"no answer to a yamux ping within {seconds:g} s"
                    self._fail(f"The peer is silent: {reason}", Ending.PEER_IS_SILENT, reason)
                elif isinstance(event, GoAwayReceived):
                    self._peer_goes_away(event.code)
            if pieces:
                self._deliver(pieces)

    def _peer_goes_away(self, code: int) -> None:
        if code != GoAwayCode.NORMAL:
            reason = f"The peer ended the session with GoAway {code}"
            self._fail(reason, Ending.PEER_ENDED, f"your GoAway {code} has ended the session")
        elif self.on_peer_leaving is not None:
            self.on_peer_leaving()

    def _deliver(self, pieces: dict[int, list[Bytes]]) -> None:
        streams = self._streams
        for stream_id, data in pieces.items():
            if (stream := streams.get(stream_id)) is not None:
                only = data[0] if len(data) == 1 else None
                if isinstance(only, bytes):
                    stream.data_arrived(only)
                else:
                    stream.pieces_arrived(data)
        pieces.clear()

    def _dispatch_stream_event(
        self, stream: StreamTransport, event: StreamWritable | StreamEnded | EndSent | StreamAborted
    ) -> None:
        if isinstance(event, StreamWritable):
            stream.writable()
        elif isinstance(event, StreamEnded):
            stream.end_arrived()
        elif isinstance(event, EndSent):
            stream.end_sent()
        elif event.code == "sent":
            stream.reset_sent()
        else:
            reason, is_refused = f"The stream was reset ({event.code})", event.code in REFUSALS
            if event.code in RESETS_OF_THE_PEER:
                stream.reset_arrived(reason, is_refused=is_refused)
            else:
                stream.cut(reason, is_refused=is_refused)  # our own reset, to free memory: do not wait

    def _opened(self, stream_id: int) -> None:
        protocol = None
        if self._factory is not None:
            try:
                protocol = self._factory.buildProtocol(StreamAddress(self.link, stream_id))
            except Exception:  # noqa: BLE001  # an error of the factory ends this stream, not the link
                self._log.failure("A factory failed; its stream was reset", event="stream.factory_failed")
        if protocol is None:
            self.session.reset_stream(stream_id)
        else:
            self.session.accept_stream(stream_id)
            self._start(StreamTransport(self, stream_id, protocol))
        self.flush_soon()

    def _start(self, stream: StreamTransport) -> None:
        self._streams[stream.stream_id] = stream
        stream.start()

    def forget(self, stream: StreamTransport) -> None:
        """Remove a stream from the table; only for ``StreamTransport``."""
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]

    def _rearm(self) -> None:
        # A timer that fires early is simply set again. So a deadline that moves later, as the keepalive's
        # does with each received byte, costs nothing.
        deadline = self.session.next_deadline()
        if deadline is None or self._is_over or self._clock_paused_at is not None:
            return
        deadline += self._paused_seconds
        now = self._reactor.seconds()
        if self._timeout_call is not None:
            if self._timeout_call.getTime() <= deadline:
                return
            self._timeout_call.cancel()
        self._timeout_call = self.call_later(max(0.0, deadline - now), self._timed_out)

    def _timed_out(self) -> None:
        self._timeout_call = None
        self.session.handle_timeout(self._now())
        self._dispatch()
        self.flush_soon()
        self._rearm()

    def _fail(self, message: str, ending: Ending, reason: str) -> None:
        """End the session after an error of the peer: write the GoAway and close the carrier.

        ``message`` is for ``on_lost``, ``reason`` for the peer.
        """
        if self.transport is not None:
            self._write_last_message()
            if self._close_carrier is None:
                self.transport.loseConnection()
            else:
                self._close_carrier(self.transport, ending, reason)
        self._finish(message)

    def _write_last_message(self) -> None:
        # One message, even if the carrier is full: the GoAway is at its end.
        transport = self.transport
        assert transport is not None, "only called with a carrier"
        pieces = self.session.next_message(MESSAGE_BYTES)
        if pieces:
            transport.write(b"".join(pieces))
        cast(IConsumer, transport).unregisterProducer()

    def _finish(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        for call in (self._flush_call, self._timeout_call):
            if call is not None and call.active():
                call.cancel()
        self._flush_call = self._timeout_call = None
        for stream in list(self._streams.values()):
            stream.cut(reason)
        self._streams.clear()
        self.session.close()
        if self._on_lost is not None:
            on_lost, self._on_lost = self._on_lost, None
            on_lost(reason)
