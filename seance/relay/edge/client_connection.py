"""One client on the relay: from a checked upgrade request to a splice.

The relay never terminates the client's WebSocket. It opens a stream to the agent, writes the rebuilt request
on it, and passes nothing from the client on before the local server has answered with a 101 that fits the
client's key. Data that the client sends earlier waits here, within a bound (CVE-2018-1002105 was a proxy that
spliced too early). Any other answer is passed through and ends both sides. After the 101 there are two
transports and a ``Splice``.

A client that loses its agent or its relay is closed gracefully: the splice hands its connection back, and the
client gets all data written to it, a close frame if one may stand there, and the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.core.events import ClientAnswered, ClientBegan, ClientEnded, ClientJoined, LimitHit, Refused
from seance.core.flow_gate import RateLimit
from seance.core.interfaces import Observer
from seance.core.lingering_close import LingeringClose, ResetAfterFlush
from seance.core.observers import NullObserver, room_hash
from seance.core.settings import RelaySettings
from seance.core.splice import Splice
from seance.errors import Refusal
from seance.heads import LocalResponse, PublicForm, refusal_response
from seance.heads.frame_tracker import SERVICE_RESTART, FrameTracker, close_frame
from seance.mux import StreamRefused
from seance.net import Leg, ProtocolSwitch, is_orderly, round_trip_seconds, switch_protocol, unsent_bytes
from seance.relay.drain import Departures
from seance.relay.edge.abandoned_upgrade import ORDERLY_SECONDS, AbandonedUpgrade
from seance.relay.refusals import refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.mux import StreamTransport
    from seance.relay.edge.connection_slots import ConnectionSlot
    from seance.relay.rooms.sync_limiter import Sync
    from seance.relay.rooms.upstream import Upstream

__all__ = ["ClientConnection"]

END_OF_HEAD = b"\r\n\r\n"

RESTARTING = "The agent of this room or the relay is restarting; try again."

GRACEFUL_CLOSE_SECONDS = 5.0
"""Bound of a graceful close; y-websocket closes within one round trip."""


class ClientConnection:
    """One client. Make it, then call ``begin``.

    Args:
        reactor: Twisted's reactor or a ``Clock``.
        settings: The settings of the relay.
        upstream: The way to the server of the room.
        switch: The client's connection, held by ``Frontend`` until now.
        key: The client's ``Sec-WebSocket-Key``.
        departures: Decides when the client is closed during a drain.
        select_protocol: The subprotocol to select if the local server selects none.
        form: How the client addressed the room, for addresses and cookies in the answer.
        sync: Its ``Sync`` of the limiter of initial syncs.
        slot: The slot of the connection. From the 101 on this object releases it.
        bytes_per_second: Rate limit of this client, both directions together, in addition to that of its
            room; None for no limit.
        address: The client's address, for operators.
        observer: Receives its events.
        on_end: Called once when the client is gone or was refused.

    Attributes:
        number: The number of the client in this process, from 1.
        address: See above.
        began_seconds: When its stream was opened.
        upgrade_seconds: From then to the 101; None before.
    """

    __slots__ = (
        "_answer",
        "_departures",
        "_is_closing_gracefully",
        "_observer",
        "_on_end",
        "_pending_stream",
        "_rate_limit",
        "_reactor",
        "_settings",
        "_slot",
        "_splice",
        "_stream",
        "_switch",
        "_sync",
        "_timer",
        "_upstream",
        "_waiting_client",
        "address",
        "began_seconds",
        "number",
        "upgrade_seconds",
    )

    _log = Logger()
    _numbers = itertools.count(1)

    def __init__(
        self,
        reactor: IReactorTime,
        settings: RelaySettings,
        upstream: Upstream,
        switch: ProtocolSwitch,
        key: bytes,
        *,
        departures: Departures,
        sync: Sync,
        slot: ConnectionSlot,
        select_protocol: bytes | None = None,
        form: PublicForm | None = None,
        bytes_per_second: int | None = None,
        address: str = "",
        observer: Observer | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.number = next(ClientConnection._numbers)
        self.address = address
        self._observer = observer or NullObserver()
        self._reactor = reactor
        self._settings = settings
        self._upstream = upstream
        self._switch = switch
        self._answer = LocalResponse(key, settings.head_bytes, select_protocol, form)
        self._waiting_client = _ClientUntilSwitch(settings.early_bytes, self)
        self._pending_stream = _StreamUntilSwitch(self)
        self._stream: StreamTransport | None = None
        self._timer: IDelayedCall | None = None
        self._splice: Splice | None = None
        self._departures = departures
        self._sync = sync
        self._is_closing_gracefully = False
        self._rate_limit = upstream.rate_limit
        if bytes_per_second:
            self._rate_limit = RateLimit(reactor, bytes_per_second, within=upstream.rate_limit)
        self._slot = slot
        self._on_end = on_end
        self.began_seconds = reactor.seconds()
        self.upgrade_seconds: float | None = None

    @property
    def room(self) -> str:
        """The room."""
        return self._upstream.room

    @property
    def received_bytes(self) -> int:
        """Bytes received from the client since the 101."""
        return 0 if self._splice is None else self._splice.near.received_bytes

    @property
    def sent_bytes(self) -> int:
        """Bytes written to the client since the 101."""
        return 0 if self._splice is None else self._splice.far.received_bytes

    @property
    def is_behind(self) -> bool:
        """Whether data for the client waits in its transport."""
        splice = self._splice
        return splice is not None and not splice.near.is_lost and unsent_bytes(splice.near.leg) > 0

    @property
    def is_in_message(self) -> bool:
        """Whether a message of the local server has arrived only in part."""
        tracker = None if self._splice is None else self._splice.far.watch
        return isinstance(tracker, FrameTracker) and tracker.is_in_message

    @property
    def round_trip_seconds(self) -> float:
        """Round trip of the client's connection as measured by the kernel; 0.0 if unknown."""
        return 0.0 if self._splice is None else round_trip_seconds(self._splice.near.leg)

    def begin(self, head: bytes, early: bytes) -> None:
        """Open a stream and send the request to the local server.

        Args:
            head: The rebuilt request.
            early: Bytes that the client sent after its head.

        Raises:
            Refusal: The room accepts no further client; nothing has happened yet.
        """
        self._stream = self._upstream.open_stream(self._pending_stream)
        self._departures.add(self, self._upstream)
        self._observer.notify(ClientBegan(self))
        self._stream.write(head)
        self._timer = self._reactor.callLater(self._upstream.upgrade_seconds, self._timed_out)
        self._switch.hand_over(self._waiting_client)
        self._client.registerProducer(self._pending_stream, True)
        if early:
            self._waiting_client.dataReceived(early)

    def end(self, reason: str) -> None:
        """Disconnect the client: its token has expired or was revoked, or an operator asked for it."""
        if self._splice is not None:
            self._splice.abort("sent_away")
        elif self._timer is not None and self._answer.has_begun:
            self._cut()
        elif self._timer is not None:
            self._refuse(refusal("sent_away", reason=reason))

    def close_gracefully(self) -> None:
        """Close so that the client reconnects: its agent is gone, or the relay stops."""
        splice = self._splice
        if splice is None:
            if self._timer is not None and not self._answer.has_begun:
                self._refuse(refusal("relay_stopping"))
            return
        near = splice.near
        if near.is_lost:
            return
        tracker = splice.far.watch
        last = b""
        if (not isinstance(tracker, FrameTracker) or tracker.is_between_frames) and not splice.far.has_ended:
            last = close_frame(SERVICE_RESTART, RESTARTING)
        self._is_closing_gracefully = True
        splice.release_near("seen_off")
        lingering_close = LingeringClose(
            self._reactor, last, seconds=GRACEFUL_CLOSE_SECONDS, on_end=self._closed_gracefully
        )
        # The protocol reads the client's end of data again, if there was one.
        switch_protocol(near.leg, lingering_close)

    def cut(self) -> None:
        """Cut the connection: the time of the drain is over."""
        if self._splice is not None:
            self._splice.abort("near_gone")
        else:
            self._client.abortConnection()

    # -- from the stream, before the 101 ---------------------------------------------------

    def answer_arrived(self, data: bytes) -> None:
        """Pass on data of the local server's answer."""
        client = self._client
        try:
            passed_on = self._answer.receive(data)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if self._answer.is_switched:
            self._join(passed_on)
            return
        if passed_on:
            client.write(passed_on)
        self._check_answer()

    def answer_ended(self) -> None:
        """The local server has ended its side."""
        try:
            passed_on = self._answer.receive_end()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if passed_on:
            self._client.write(passed_on)
        self._check_answer()

    def stream_lost(self, *, is_refused: bool) -> None:
        """Refuse the client, because the stream was cut before the 101.

        Args:
            is_refused: Whether the agent did not accept the stream, so that it never reached the local
                server.
        """
        self._stream = None
        if self._answer.has_begun:
            self._cut()
        elif self._upstream.is_attached and is_refused:
            self._refuse(refusal("agent_refused"))
        elif self._upstream.is_attached:
            self._refuse(refusal("local_server_gone"))
        else:
            self._refuse(refusal("agent_gone"))

    # -- from the client, before the 101 ---------------------------------------------------

    def client_lost(self, reason: Failure) -> None:
        """The client disconnected before the 101."""
        # The timer may be due in this turn.
        due_at = 0.0 if self._timer is None else self._timer.getTime()
        seconds = max(0.0, due_at - self._reactor.seconds())
        self._stop()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._pending_stream.owner = None
            early = bytes(self._waiting_client.held)
            is_reset = not self._waiting_client.has_ended and not is_orderly(reason)
            upgrade = AbandonedUpgrade(self._reactor, self._answer, early, is_reset=is_reset, seconds=seconds)
            upgrade.begin(stream)
        self._report_end("left_early")
        self._leave()

    # -- from the splice -------------------------------------------------------------------

    def receive(self, data: bytes | memoryview) -> None:
        """Note the first data after the 101; from then on only the frame tracker reads the data."""
        tracker = cast(Splice, self._splice).far.watch = FrameTracker()
        self._observer.notify(ClientAnswered(self, self._reactor.seconds() - self.began_seconds))
        tracker.receive(data)

    def far_cut(self) -> bool:
        """The stream was cut; return True if the client is closed gracefully."""
        if self._upstream.is_alive:
            return False  # the local server has reset this stream, so the client is reset too
        splice = cast(Splice, self._splice)
        splice.near.leg.pauseProducing()  # its data could not be delivered
        self._departures.lost_agent(self)
        return True

    def closes_far_in_order(self) -> bool:
        """Return False: after the 101 a reset of the client is passed on as a reset."""
        return False

    def near_lost(self) -> None:
        """The client's connection is gone."""
        self._slot.release()

    def splice_ended(self, reason: str) -> None:
        """Both sides are gone."""
        if reason == "stalled":
            self._observer.notify(LimitHit("stalled"))
        self._report_end(reason)
        if not self._is_closing_gracefully:
            self._leave()

    # -- inside ----------------------------------------------------------------------------

    @property
    def _client(self) -> Leg:
        return cast(Leg, self._switch.transport) if self._splice is None else self._splice.near.leg

    def _join(self, first: bytes) -> None:
        self._stop()
        stream = self._stream
        assert stream is not None, "an answer comes over the stream"
        early = self._waiting_client
        early.owner = self._pending_stream.owner = None
        client = self._client
        splice = self._splice = Splice(
            self._reactor,
            self,
            half_close_seconds=self._settings.half_close_seconds,
            stalled_seconds=self._settings.stalled_seconds or None,
            rate_limit=self._rate_limit,
            watch=self,
        )
        self.upgrade_seconds = self._reactor.seconds() - self.began_seconds
        glued = first[first.index(END_OF_HEAD) + len(END_OF_HEAD) :]
        client.unregisterProducer()
        client.write(first)
        if early.is_paused:
            client.resumeProducing()
        stream.resumeProducing()
        switch_protocol(stream, splice.far)
        switch_protocol(client, splice.near)
        # From here on both sides have their leg, so any failure cuts them.
        if glued:
            splice.far.received_bytes = len(glued)
            self.receive(glued)
        splice.start()
        self._observer.notify(ClientJoined(self, self.upgrade_seconds))
        self._sync.joined(self)
        if early.held:
            held, early.held = bytes(early.held), bytearray()
            splice.near.dataReceived(held)
        if early.has_ended:
            splice.near.readConnectionLost()
        # Free these now: this object outlives the handshake and they hold 4 KB.
        del self._answer, self._waiting_client, self._pending_stream, self._switch, self._stream

    def _check_answer(self) -> None:
        if self._answer.is_finished:
            self._stop()
            self._drop_stream()
            self._close_gracefully(b"", "answered")
        elif self._answer.is_broken:
            self._cut()

    def _timed_out(self) -> None:
        self._timer = None
        if self._answer.has_begun:
            self._cut()
        elif not self._upstream.is_attached:
            self._refuse(refusal("agent_away"))
        else:
            self._refuse(refusal("local_server_silent", seconds=self._upstream.upgrade_seconds))

    def _refuse(self, refusal: Refusal) -> None:
        self._stop()
        self._drop_stream()
        self._observer.notify(Refused(refusal.code))
        self._close_gracefully(refusal_response(refusal), "refused")

    def _cut(self) -> None:
        # A truncated body must not look complete to the client, so its connection is reset after it.
        self._stop()
        self._drop_stream()
        self._waiting_client.owner = None
        self._report_end("broken")
        self._switch.hand_over(ResetAfterFlush(self._reactor, on_end=self._leave))

    def _close_gracefully(self, answer: bytes, reason: str) -> None:
        self._waiting_client.owner = None
        self._report_end(reason)
        if self._waiting_client.is_paused:
            self._client.resumeProducing()  # unread data would turn the close into a reset
        self._switch.hand_over(LingeringClose(self._reactor, answer, on_end=self._leave))

    def _closed_gracefully(self) -> None:
        self._slot.release()
        self._leave()

    def _leave(self) -> None:
        self._departures.remove(self, self._upstream)

    def _drop_stream(self) -> None:
        # In order after any answer: a reset ends a Node server without an ``error`` listener.
        self._pending_stream.owner = None
        if self._stream is not None:
            self._stream.linger_seconds = ORDERLY_SECONDS
            self._stream.loseConnection()
            self._stream = None

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report_end(self, reason: str) -> None:
        if self._on_end is not None:
            self._on_end()
        self._sync.left()
        seconds = self._reactor.seconds() - self.began_seconds
        self._observer.notify(ClientEnded(self, reason, seconds))
        # Clients without a 101 are only counted: otherwise a reconnecting crowd would fill the log.
        if self.upgrade_seconds is None:
            return
        self._log.info(
            "A client of room {room_hash} left after {seconds:.1f} s: "
            "{received_bytes} bytes from it, {sent_bytes} to it ({reason})",
            event="client.ended",
            room_hash=room_hash(self.room),
            seconds=seconds,
            received_bytes=self.received_bytes,
            sent_bytes=self.sent_bytes,
            reason=reason,
        )


@implementer(IHalfCloseableProtocol)
class _ClientUntilSwitch(Protocol):
    """The client's side until the 101: buffers what it sends, up to a limit."""

    def __init__(self, limit_bytes: int, owner: ClientConnection) -> None:
        self._limit_bytes = limit_bytes
        self.owner: ClientConnection | None = owner
        self.held = bytearray()
        self.is_paused = False
        self.has_ended = False

    def dataReceived(self, data: bytes) -> None:
        self.held += data
        if len(self.held) >= self._limit_bytes and not self.is_paused:
            self.is_paused = True
            cast(IPushProducer, self.transport).pauseProducing()

    def readConnectionLost(self) -> None:
        self.has_ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.owner is not None:
            self.owner.client_lost(reason)


@implementer(IHalfCloseableProtocol, IPushProducer)
class _StreamUntilSwitch(Protocol):
    """The stream's side until the 101, and the producer of the client's answer."""

    def __init__(self, owner: ClientConnection) -> None:
        self.owner: ClientConnection | None = owner

    def dataReceived(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.answer_arrived(data)

    def readConnectionLost(self) -> None:
        if self.owner is not None:
            self.owner.answer_ended()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.owner is not None:
            self.owner.stream_lost(is_refused=reason.check(StreamRefused) is not None)

    def pauseProducing(self) -> None:
        cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        cast(IPushProducer, self.transport).resumeProducing()

    def stopProducing(self) -> None:
        pass  # the client is gone; ``client_lost`` ends the stream
