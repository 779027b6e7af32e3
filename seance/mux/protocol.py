"""The Twisted ``Protocol`` that speaks yamux over whatever transport carries it.

It drives a ``seance.yamux.Session``: bytes in, events out to ``StreamTransport``s, messages out.
It knows no WebSocket; the carrier is any ``ITransport``, and each ``write`` it gets is
whole frames of at most 64 KiB, because yamux-js cannot put a split frame together again
(yamux.md 1.2, row 36).

Two rules keep a link alive under load. *Reading is never gated on writing*: the carrier is never
paused, not for a slow stream and not because our own answers cannot leave; a session that cannot
write bounds its control frames instead (rust-yamux's write deadlock, yamux.md 2). *Writing is
pulled*: while the carrier says "full", frames stay in the session, where the scheduler still can
let a small one pass a big one; everything that one reactor turn has produced leaves together at
its end, as one message where it fits (a 64-byte frame of its own costs ten times as much).
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

MESSAGE_BYTES = 64 * 1024

REFUSALS = ("refused", "open_timeout")
RESETS_OF_THE_PEER = ("reset", "refused")
"""Codes of ``StreamAborted``."""


class Ending(enum.Enum):
    """Why a session failed while its carrier was open."""

    PEER_BROKE_RULES = "peer_broke_rules"
    PEER_IS_SILENT = "peer_is_silent"
    PEER_ENDED = "peer_ended"


@implementer(IPushProducer)
class Mux(Protocol):
    """One yamux session over one carrier.

    Give it a transport (``connectionMade`` starts it), then ``open_stream`` or ``listen``.

    Args:
        reactor: Where time comes from.
        role: Who we are: the relay is the yamux server, the agent the client.
        limits: The bounds of the session.
        on_lost: Called once, with one sentence, when the session is over.
        close_carrier: Closes the carrier after a failed session, given the cause and a reason for the peer.
            The GoAway is written by then. None calls ``loseConnection``.
        linger_seconds: How long a stream that we closed waits for the peer's end before it is
            reset; hashicorp/yamux waits five minutes, half a minute is enough for a carrier. A reset
            waits as long for the data before it.

    Attributes:
        session: The pure session, for its figures. Only ``seance.mux`` changes it.
        link: What the carrier's address is, for people; empty before there is one.
        on_peer_leaving: Called when the peer has said that it opens nothing more, nor takes it.
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
        """Streams that a protocol holds or that still wait for the peer's end."""
        return len(self._streams)

    @property
    def queued_bytes(self) -> int:
        """What waits to leave on all streams together; looks at each."""
        return sum(map(self.session.queued_bytes, self._streams))

    def open_stream(self, protocol: IProtocol) -> StreamTransport:
        """Open a stream for ``protocol``, whose ``connectionMade`` is called at once.

        There is no wait for the peer's acknowledgement, which would cost a round trip: a peer
        that does not want the stream resets it, and ``connectionLost`` tells.

        Raises:
            LocalProtocolError: The session takes no further stream now; ``code`` says why.
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
        """Give streams that the peer opens to ``factory``; None resets them."""
        self._factory = factory

    @property
    def is_over(self) -> bool:
        """Whether the session has ended; nothing brings it back."""
        return self._is_over

    @property
    def is_listening(self) -> bool:
        """Whether the peer's streams are taken."""
        return self._factory is not None

    def go_away(self) -> None:
        """Tell the peer to open nothing more; streams that are open go on."""
        self.session.go_away(GoAwayCode.NORMAL)
        self.flush_soon()

    def leave(self) -> None:
        """Say GoAway as the last word; then close the carrier. What cannot leave now is lost."""
        if self._is_over or self.transport is None:
            return
        self._flush()
        self.session.go_away(GoAwayCode.NORMAL)
        self._say_last()
        self._carrier_is_full = True

    def end(self, sentence: str) -> None:
        """Take the session for over, and its streams with it. The carrier is the caller's to close."""
        self._finish(sentence)

    def ping(self) -> None:
        """Measure the path anew, for ``session.round_trip_seconds``; not while the carrier is away."""
        if not self._is_over and self._clock_paused_at is None and self.session.ping(self._now()):
            self._rearm()
            self.flush_soon()

    @property
    def is_clock_paused(self) -> bool:
        """Whether the carrier below is away."""
        return self._clock_paused_at is not None

    def pause_clock(self) -> None:
        """Let no time pass for the session: the carrier below is away, and nobody can answer."""
        if self._clock_paused_at is None and not self._is_over:
            self._clock_paused_at = self._reactor.seconds()
            if self._timeout_call is not None:
                self._timeout_call.cancel()
                self._timeout_call = None

    def resume_clock(self) -> None:
        """The carrier is back: deadlines go on with what was left of them."""
        if self._clock_paused_at is not None:
            self._paused_seconds += self._reactor.seconds() - self._clock_paused_at
            self._clock_paused_at = None
            self._rearm()

    def _now(self) -> float:
        """The time of the session, which stands still while its carrier is away."""
        now = self._reactor.seconds() if self._clock_paused_at is None else self._clock_paused_at
        return now - self._paused_seconds

    def describe(self) -> str:
        """One line for a debugger or a log at DEBUG."""
        return f"<Mux over {self.link or 'nothing'}: {len(self._streams)} streams, {self.session!r}>"

    # -- the carrier calls us --------------------------------------------------------------

    def connectionMade(self) -> None:
        """Start: register as the carrier's producer and arm the keepalive."""
        transport = self.transport
        assert transport is not None, "Twisted sets the transport before connectionMade"
        self.link = str(transport.getPeer())
        cast(IConsumer, transport).registerProducer(self, True)
        self.session.handle_timeout(self._now())
        self._rearm()
        self.flush_soon()

    def dataReceived(self, data: bytes) -> None:
        """Take bytes of the carrier, cut anywhere."""
        if self._is_over:
            return
        try:
            self.session.receive_data(data, self._now())
        except RemoteProtocolError as error:
            self._dispatch()
            sentence = f"The peer broke the yamux protocol: {error}"
            self._fail(sentence, Ending.PEER_BROKE_RULES, f"{error.code}: {error}")
            return
        self._dispatch()
        if self.session.wants_to_send:
            self.flush_soon()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The carrier is gone, and with it every stream."""
        self._finish(f"The connection below ended: {reason.getErrorMessage()}")

    def pauseProducing(self) -> None:
        """The carrier is full: what comes next stays in the session."""
        self._carrier_is_full = True
        self._message_sizer.filled(self._reactor.seconds())

    def resumeProducing(self) -> None:
        """The carrier takes more."""
        self._carrier_is_full = False
        self._message_sizer.drained(self._reactor.seconds())
        self.flush_soon()

    def stopProducing(self) -> None:
        """The carrier is closing; ``connectionLost`` follows."""
        self._carrier_is_full = True

    # -- sending ---------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Let everything that this reactor turn produces leave together at its end."""
        if self._flush_call is None and not self._is_over:
            self._flush_call = self.call_later(0, self._flush)

    def _flush(self) -> None:
        self._flush_call = None
        transport = self.transport
        if self._is_over or transport is None:
            return
        next_message, pace = self.session.next_message, self._message_sizer
        while not self._carrier_is_full:
            pieces = next_message(pace.message_bytes)
            if not pieces:
                break
            message = b"".join(pieces)
            pace.sent(len(message))
            transport.write(message)
            if not self.session.wants_to_send:
                break
        self._dispatch()

    # -- inside ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        streams = self._streams
        # A loop, because what a stream does with an event may bring further events at once.
        while events := self.session.take_events():
            if len(events) == 1 and isinstance(event := events[0], DataReceived):
                # Nearly always it is this; below is the same, and everything else.
                if (stream := streams.get(event.stream_id)) is not None:
                    data = event.data
                    stream.data_arrived(data if isinstance(data, bytes) else bytes(data))
                continue
            # What came together for one stream is delivered together: each piece would be a write to a
            # socket. Whatever else happens to a stream comes after its data, as it did on the wire.
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
                        self._tell_stream(stream, event)
                elif isinstance(event, SessionTimedOut):
                    seconds = self.session.limits.dead_after_seconds
                    reason = f"no answer to a yamux ping within {seconds:g} s"
                    self._fail(f"The peer is silent: {reason}", Ending.PEER_IS_SILENT, reason)
                elif isinstance(event, GoAwayReceived):
                    self._peer_leaves(event.code)
            if pieces:
                self._deliver(pieces)

    def _peer_leaves(self, code: int) -> None:
        if code != GoAwayCode.NORMAL:
            sentence = f"The peer ended the session with GoAway {code}"
            self._fail(sentence, Ending.PEER_ENDED, f"your GoAway {code} has ended the session")
        elif self.on_peer_leaving is not None:
            self.on_peer_leaving()

    def _deliver(self, pieces: dict[int, list[Bytes]]) -> None:
        streams = self._streams
        for stream_id, data in pieces.items():
            if (stream := streams.get(stream_id)) is not None:
                only = data[0] if len(data) == 1 else None
                stream.data_arrived(only if isinstance(only, bytes) else b"".join(data))
        pieces.clear()

    def _tell_stream(
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
            sentence, is_refused = f"The stream was reset ({event.code})", event.code in REFUSALS
            if event.code in RESETS_OF_THE_PEER:
                stream.reset_arrived(sentence, is_refused=is_refused)
            else:
                stream.cut(sentence, is_refused=is_refused)  # ours, to free memory: nothing waits

    def _opened(self, stream_id: int) -> None:
        protocol = None
        if self._factory is not None:
            try:
                protocol = self._factory.buildProtocol(StreamAddress(self.link, stream_id))
            except Exception:  # noqa: BLE001  # the factory's fault costs this stream, not the link
                self._log.failure("A factory failed; its stream is refused", event="stream.factory_failed")
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
        """Drop a stream from the table; for ``StreamTransport`` alone."""
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]

    def _rearm(self) -> None:
        # A timer that fires too early only looks and is set again, so a deadline that moves
        # away (every inbound byte moves the keepalive's) costs nothing.
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

    def _fail(self, sentence: str, ending: Ending, reason: str) -> None:
        """End the session for a fault of the peer: write the GoAway, then close the carrier with a reason."""
        if self.transport is not None:
            self._say_last()
            if self._close_carrier is None:
                self.transport.loseConnection()
            else:
                self._close_carrier(self.transport, ending, reason)
        self._finish(sentence)

    def _say_last(self) -> None:
        # One message, and also into a full carrier: the GoAway is at its end.
        transport = self.transport
        assert transport is not None, "who says something has a carrier"
        pieces = self.session.next_message(MESSAGE_BYTES)
        if pieces:
            transport.write(b"".join(pieces))
        cast(IConsumer, transport).unregisterProducer()

    def _finish(self, sentence: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        for call in (self._flush_call, self._timeout_call):
            if call is not None and call.active():
                call.cancel()
        self._flush_call = self._timeout_call = None
        for stream in list(self._streams.values()):
            stream.cut(sentence)
        self._streams.clear()
        self.session.close()
        if self._on_lost is not None:
            on_lost, self._on_lost = self._on_lost, None
            on_lost(sentence)
