"""One client on the relay: from a checked upgrade request to a splice.

The relay never terminates the client's WebSocket. It opens a stream to the agent, writes the
rebuilt request on it, and lets nothing of the client pass before the local server has answered
with a 101 that fits the client's key; whatever the client sends earlier waits here, bounded
(research: CVE-2018-1002105, where a proxy spliced before it was sure). Any other answer passes
through and closes both sides. From the 101 on it is two transports and a ``Splice``.

A client that loses its agent, or its relay, is *seen off* (``close_gracefully``): the splice hands its
connection back, and it gets all that was written to it, a close frame where one may stand, and the end.
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

from seance.core.flow_gate import Pace
from seance.core.interfaces import ClientReport, Observer
from seance.core.lingering_close import LingeringClose, ResetAfterFlush
from seance.core.observers import NullObserver, room_hash
from seance.core.settings import RelaySettings
from seance.core.splice import Splice, SpliceReport
from seance.errors import Refusal
from seance.heads import LocalAnswer, PublicForm, refusal_response
from seance.heads.frames import SERVICE_RESTART, FrameWalk, close_frame
from seance.mux import StreamRefused
from seance.net import Leg, ProtocolSwitch, is_orderly, round_trip_seconds, switch_protocol, unsent_bytes
from seance.relay.drain import Departures
from seance.relay.edge.abandoned_upgrade import ORDERLY_SECONDS, AbandonedUpgrade
from seance.relay.edge.connection_slots import Place
from seance.relay.rooms.agent_link import RETRY_AFTER, AgentLink
from seance.relay.rooms.sync_limiter import Sync

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.mux import StreamTransport

__all__ = ["ClientConnection"]

END_OF_HEAD = b"\r\n\r\n"

COME_AGAIN = "The agent of this room, or the relay, is restarting; try again."

GRACEFUL_CLOSE_SECONDS = 5.0
"""How long a client that is seen off may take for what is left; y-websocket closes within one round trip."""


class ClientConnection:
    """Carries one upgrade through. Make it, then ``begin``.

    Args:
        reactor: Where time comes from.
        settings: The relay's.
        link: The agent's link.
        door: The client's connection, still in the front's hands.
        key: The client's ``Sec-WebSocket-Key``.
        departures: Who decides when it is seen off.
        select_protocol: The subprotocol to choose if the local server chooses none.
        form: How the client addressed the room, for addresses and cookies in the answer.
        sync: Who is told when it has come in and when it is gone.
        place: The connection's. From the 101 on the door is out of it, and the leg gives its place back.
        bytes_per_second: What this client may move, both directions together, besides what its room
            may; None for no bound of its own.
        address: Whose connection it is, for operators.
        observer: Who is told what becomes of it.
        on_end: Called once when the client is gone, or never came to be one.

    Attributes:
        number: Which of this process's clients it is, from 1.
        address: See above.
        began_seconds: When its stream was opened.
        upgrade_seconds: From then to the 101; None before.
    """

    __slots__ = (
        "_answer",
        "_asking",
        "_departures",
        "_door",
        "_is_closing_gracefully",
        "_link",
        "_observer",
        "_on_end",
        "_pace",
        "_place",
        "_reactor",
        "_settings",
        "_splice",
        "_stream",
        "_sync",
        "_timer",
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
        link: AgentLink,
        door: ProtocolSwitch,
        key: bytes,
        *,
        departures: Departures,
        sync: Sync,
        place: Place,
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
        self._link = link
        self._door = door
        self._answer = LocalAnswer(key, settings.head_bytes, select_protocol, form)
        self._waiting_client = _WaitingClient(settings.early_bytes, self)
        self._asking = _Asking(self)
        self._stream: StreamTransport | None = None
        self._timer: IDelayedCall | None = None
        self._splice: Splice | None = None
        self._departures = departures
        self._sync = sync
        self._is_closing_gracefully = False
        self._pace = link.pace
        if bytes_per_second:
            self._pace = Pace(reactor, bytes_per_second, within=link.pace)
        self._place = place
        self._on_end = on_end
        self.began_seconds = reactor.seconds()
        self.upgrade_seconds: float | None = None

    @property
    def room(self) -> str:
        """Its room."""
        return self._link.room

    @property
    def received_bytes(self) -> int:
        """What it has sent since the 101."""
        return 0 if self._splice is None else self._splice.near.received_bytes

    @property
    def sent_bytes(self) -> int:
        """What was written to it since the 101."""
        return 0 if self._splice is None else self._splice.far.received_bytes

    @property
    def is_behind(self) -> bool:
        """Whether it takes less than there is for it."""
        splice = self._splice
        return splice is not None and not splice.near.is_lost and unsent_bytes(splice.near.leg) > 0

    @property
    def is_in_message(self) -> bool:
        """Whether the local server has begun a message that has not arrived here in full."""
        walk = None if self._splice is None else self._splice.far.watch
        return isinstance(walk, FrameWalk) and walk.is_in_message

    @property
    def round_trip_seconds(self) -> float:
        """Round trip of the client's connection, as the kernel knows it; 0.0 where it does not."""
        return 0.0 if self._splice is None else round_trip_seconds(self._splice.near.leg)

    def begin(self, head: bytes, early: bytes) -> None:
        """Ask the local server.

        Args:
            head: The rebuilt request.
            early: What the client sent behind its head.

        Raises:
            Refusal: The agent takes no further client; nothing has happened yet.
        """
        self._stream = self._link.open_stream(self._asking)
        self._departures.add(self, self._link)
        self._observer.client_began(self)
        self._stream.write(head)
        self._timer = self._reactor.callLater(self._link.upgrade_seconds, self._too_late)
        self._door.hand_over(self._waiting_client)
        self._client.registerProducer(self._asking, True)
        if early:
            self._waiting_client.dataReceived(early)

    def end(self, sentence: str) -> None:
        """Send the client away: its token is no longer good, or somebody said so."""
        if self._splice is not None:
            self._splice.abort("sent_away")
        elif self._timer is not None and self._answer.has_begun:
            self._cut()
        elif self._timer is not None:
            self._refuse(Refusal(401, sentence, code="sent_away"))

    def close_gracefully(self) -> None:
        """Send the client away so that it comes again: its agent is gone for good, or the relay stops."""
        splice = self._splice
        if splice is None:
            if self._timer is not None and not self._answer.has_begun:
                sentence = "This relay is stopping; try again."
                self._refuse(Refusal(503, sentence, code="relay_stopping", headers=(RETRY_AFTER,)))
            return
        near = splice.near
        if near.is_lost:
            return
        walk = splice.far.watch
        last = b""
        if (not isinstance(walk, FrameWalk) or walk.is_between_frames) and not splice.far.has_ended:
            last = close_frame(SERVICE_RESTART, COME_AGAIN)
        self._is_closing_gracefully = True
        splice.release_near("seen_off")
        lingering_close = LingeringClose(
            self._reactor, last, seconds=GRACEFUL_CLOSE_SECONDS, on_end=self._closed_gracefully
        )
        # Which reads a client's end again, if there was one.
        switch_protocol(near.leg, lingering_close)

    def cut(self) -> None:
        """End the connection now, whatever it is doing: the time to leave in order is over."""
        if self._splice is not None:
            self._splice.abort("near_gone")
        else:
            self._client.abortConnection()

    # -- from the stream, before the 101 ---------------------------------------------------

    def answer_arrived(self, data: bytes) -> None:
        """The local server answers."""
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
        self._look_at_answer()

    def answer_ended(self) -> None:
        """The local server will say no more."""
        try:
            passed_on = self._answer.receive_end()
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if passed_on:
            self._client.write(passed_on)
        self._look_at_answer()

    def stream_lost(self, *, is_refused: bool) -> None:
        """The stream was cut before the 101.

        Args:
            is_refused: Whether the agent never accepted it, so that the local server knows nothing of it.
        """
        self._stream = None
        if self._answer.has_begun:
            self._cut()
        elif self._link.is_attached and is_refused:
            sentence = "The agent of this room did not take the connection; try again."
            self._refuse(Refusal(502, sentence, code="agent_refused"))
        elif self._link.is_attached:
            sentence = "The agent of this room gave the connection up before the local server answered."
            self._refuse(Refusal(502, sentence, code="local_server_gone"))
        else:
            sentence = "The agent of this room has just gone; try again."
            self._refuse(Refusal(503, sentence, code="agent_gone", headers=(RETRY_AFTER,)))

    # -- from the client, before the 101 ---------------------------------------------------

    def client_lost(self, reason: Failure) -> None:
        """The client did not wait."""
        # The timer may be due in this turn.
        due_at = 0.0 if self._timer is None else self._timer.getTime()
        seconds = max(0.0, due_at - self._reactor.seconds())
        self._stop()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._asking.leg = None
            early = bytes(self._waiting_client.held)
            is_reset = not self._waiting_client.has_ended and not is_orderly(reason)
            upgrade = AbandonedUpgrade(self._reactor, self._answer, early, is_reset=is_reset, seconds=seconds)
            upgrade.begin(stream)
        self._tell_end("left_early")
        self._leave()

    # -- from the splice -------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """The first has come behind the 101; from now on the walk alone looks at what passes."""
        walk = cast(Splice, self._splice).far.watch = FrameWalk()
        self._observer.client_answered(self, self._reactor.seconds() - self.began_seconds)
        walk.receive(data)

    def far_cut(self) -> bool:
        """The stream is gone without an end."""
        if self._link.is_alive:
            return False  # only this stream: the local server has reset it, and gone is gone
        splice = cast(Splice, self._splice)
        splice.near.leg.pauseProducing()  # what it says meanwhile would be for nobody
        self._departures.lost_agent(self)
        return True

    def closes_far_in_order(self) -> bool:
        """Return False: a splice begins with the 101, and a reset of the client is passed on as one."""
        return False

    def near_lost(self) -> None:
        """The client is gone."""
        self._place.give_back()

    def splice_ended(self, report: SpliceReport) -> None:
        """Both are gone."""
        if report.reason == "stalled":
            self._observer.limit_hit("stalled")
        self._tell_end(report.reason)
        if not self._is_closing_gracefully:
            self._leave()

    # -- inside ----------------------------------------------------------------------------

    @property
    def _client(self) -> Leg:
        return cast(Leg, self._door.transport) if self._splice is None else self._splice.near.leg

    def _join(self, first: bytes) -> None:
        self._stop()
        stream = self._stream
        assert stream is not None, "an answer comes over the stream"
        early = self._waiting_client
        early.leg = self._asking.leg = None
        client = self._client
        splice = self._splice = Splice(
            self._reactor,
            self,
            half_close_seconds=self._settings.half_close_seconds,
            stalled_seconds=self._settings.stalled_seconds or None,
            pace=self._pace,
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
        # From here on both sides have their leg, so whatever fails cuts them.
        if glued:
            splice.far.received_bytes = len(glued)
            self.receive(glued)
        splice.start()
        self._observer.client_joined(self, self.upgrade_seconds)
        self._sync.joined(self)
        if early.held:
            held, early.held = bytes(early.held), bytearray()
            splice.near.dataReceived(held)
        if early.has_ended:
            splice.near.readConnectionLost()
        # We live on, and they are 4 KB.
        del self._answer, self._waiting_client, self._asking, self._door, self._stream

    def _look_at_answer(self) -> None:
        if self._answer.is_finished:
            self._stop()
            self._drop_stream()
            self._close_gracefully(b"", "answered")
        elif self._answer.is_broken:
            self._cut()

    def _too_late(self) -> None:
        self._timer = None
        if self._answer.has_begun:
            self._cut()
        elif not self._link.is_attached:
            sentence = "The agent of this room is not there at the moment; try again."
            self._refuse(Refusal(503, sentence, code="agent_away", headers=(RETRY_AFTER,)))
        else:
            seconds = self._link.upgrade_seconds
            sentence = f"The local server behind this room did not answer within {seconds:g} s."
            self._refuse(Refusal(502, sentence, code="local_server_silent"))

    def _refuse(self, refusal: Refusal) -> None:
        self._stop()
        self._drop_stream()
        self._observer.refused(refusal.code)
        self._close_gracefully(refusal_response(refusal), "refused")

    def _cut(self) -> None:
        # A body that breaks off must not look whole to the client, so its connection is reset behind it.
        self._stop()
        self._drop_stream()
        self._waiting_client.leg = None
        self._tell_end("broken")
        self._door.hand_over(ResetAfterFlush(self._reactor, on_end=self._leave))

    def _close_gracefully(self, answer: bytes, reason: str) -> None:
        self._waiting_client.leg = None
        self._tell_end(reason)
        if self._waiting_client.is_paused:
            self._client.resumeProducing()  # unread data would turn the close into a reset
        self._door.hand_over(LingeringClose(self._reactor, answer, on_end=self._leave))

    def _closed_gracefully(self) -> None:
        self._place.give_back()
        self._leave()

    def _leave(self) -> None:
        self._departures.remove(self, self._link)

    def _drop_stream(self) -> None:
        # In order, whatever the answer was: a reset ends a Node server without an ``error`` listener.
        self._asking.leg = None
        if self._stream is not None:
            self._stream.linger_seconds = ORDERLY_SECONDS
            self._stream.loseConnection()
            self._stream = None

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell_end(self, reason: str) -> None:
        if self._on_end is not None:
            self._on_end()
        self._sync.left()
        seconds = self._reactor.seconds() - self.began_seconds
        report = ClientReport(reason, seconds, self.received_bytes, self.sent_bytes)
        self._observer.client_ended(self, report)
        # Who never got in is only counted: a crowd that redials would decide how long the log is.
        if self.upgrade_seconds is None:
            return
        self._log.info(
            "A client of room {room_hash} left after {seconds:.1f} s: "
            "{received_bytes} bytes from it, {sent_bytes} to it ({reason})",
            event="client.ended",
            room_hash=room_hash(self.room),
            seconds=report.seconds,
            received_bytes=report.received_bytes,
            sent_bytes=report.sent_bytes,
            reason=reason,
        )


@implementer(IHalfCloseableProtocol)
class _WaitingClient(Protocol):
    """The client's side until the 101: holds what it sends, up to a bound."""

    def __init__(self, limit_bytes: int, leg: ClientConnection) -> None:
        self._limit_bytes = limit_bytes
        self.leg: ClientConnection | None = leg
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
        if self.leg is not None:
            self.leg.client_lost(reason)


@implementer(IHalfCloseableProtocol, IPushProducer)
class _Asking(Protocol):
    """The stream's side until the 101, and the producer of what the client is answered."""

    def __init__(self, leg: ClientConnection) -> None:
        self.leg: ClientConnection | None = leg

    def dataReceived(self, data: bytes) -> None:
        if self.leg is not None:
            self.leg.answer_arrived(data)

    def readConnectionLost(self) -> None:
        if self.leg is not None:
            self.leg.answer_ended()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.leg is not None:
            self.leg.stream_lost(is_refused=reason.check(StreamRefused) is not None)

    def pauseProducing(self) -> None:
        cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        cast(IPushProducer, self.transport).resumeProducing()

    def stopProducing(self) -> None:
        pass  # the client is gone; what becomes of the stream then is the leg's to say
