"""A yamux stream that passes for a TCP transport.

Not the protocol: which frame is legal when is ``seance.yamux``'s business, and the bytes leave
through ``seance.mux.protocol``. This file turns the events of one stream into the calls that a
Twisted protocol expects of a socket, in the same order and equally often; the contract is
``tests/contract.py``, which real TCP passes too.

Flow control is decided in two places here. *Inbound*, credit goes back to the peer when the
protocol has taken the bytes, that is when ``dataReceived`` was called with them; while the
protocol has paused us they wait in ``_incoming``, uncredited, so a protocol that does not read
costs at most the window and stops nobody else. *Outbound*, the producer is paused while more
than ``send_high_water_bytes`` are queued in the session and resumed when it has drained to the
low-water mark, whether it was the peer's window or the carrier that held them.

Bytes that were read before an end are delivered before it (docs/protocol.md, "Ends"): ``resetConnection``
lets what is queued leave before the reset, and a reset of the peer waits until a paused protocol has taken
what came before it. Both waits are bounded by ``Mux.linger_seconds``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from seance.errors import LocalProtocolError
from seance.mux.address import StreamAddress
from seance.mux.refused import StreamRefused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.mux.owner import StreamOwner

__all__ = ["StreamTransport"]

_NOTHING: Final[deque[bytes]] = deque()
"""What has arrived and waits, of every stream where nothing does: an empty one of its own would be 760
bytes."""


class StreamTransport:
    """What a protocol at one end of a stream has as ``self.transport``.

    Made by ``Mux`` alone: from ``Mux.open_stream`` or for a stream that the peer opened.
    Everything may be called from inside ``dataReceived``, and any number of times.

    Attributes:
        stream_id: The yamux stream id.
        protocol: Who gets ``dataReceived`` and the rest; may be replaced at any time.
        linger_seconds: How long the peer's end may take once ours has left after ``loseConnection``; may be
            changed until then.
    """

    _log = Logger()

    __slots__ = (
        "_got_end",
        "_got_reset",
        "_incoming",
        "_is_aborting",
        "_is_closing",
        "_is_ending",
        "_is_lost",
        "_is_paused",
        "_linger",
        "_mux",
        "_producer",
        "_producer_is_paused",
        "_producer_is_streaming",
        "_sent_end",
        "_told_end",
        "_undelivered",
        "linger_seconds",
        "protocol",
        "stream_id",
    )

    def __init__(self, mux: StreamOwner, stream_id: int, protocol: IProtocol) -> None:
        self._mux = mux
        self.stream_id = stream_id
        self.protocol: IProtocol | None = protocol
        self._incoming = _NOTHING
        self._is_paused = False
        self._got_end = False  # the peer's FIN has arrived
        self._got_reset = ""  # why the stream is gone, as soon as the protocol has taken what came before
        self._told_end = False  # and the protocol knows
        self._is_ending = False  # our FIN is asked for: nothing more may be written
        self._sent_end = False  # our FIN has left, after everything before it
        self._is_closing = False
        self._is_aborting = False
        self._is_lost = False
        self._producer: IProducer | None = None
        self._producer_is_streaming = True
        self._producer_is_paused = False
        self._linger: IDelayedCall | None = None
        self._undelivered = b""
        self.linger_seconds = mux.linger_seconds

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether it is closing: in no interface, but Twisted's ``LineReceiver`` asks for it."""
        return self._is_closing

    def write(self, data: bytes) -> None:
        """Send ``data``; after the end, or once the stream is gone, it is dropped quietly.

        More than ``Limits.send_queue_bytes`` in the queue cuts the stream, as nothing may be left out.
        """
        if type(data) is not bytes:
            msg = f"a transport takes bytes, not {type(data).__name__}"
            raise TypeError(msg)
        if self._is_ending or self._is_lost or self._is_aborting or not data:
            return
        mux = self._mux
        try:
            queued = mux.session.send_data(self.stream_id, data)
        except LocalProtocolError as error:
            self._break(Failure(ConnectionLost(error.sentence)))
            return
        mux.flush_soon()
        if self._producer is not None and not self._producer_is_paused:
            if queued > mux.high_water_bytes:
                self._hold_producer()
            elif not self._producer_is_streaming:
                self._hold_producer()
                mux.call_later(0, self._ask_for_more)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send the concatenation of ``iovec``."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Close both directions once everything written has left and no producer is registered.

        What still arrives is for nobody and is dropped. It is credited all the same, so that the
        peer gets to its own end; a reset instead would cut off what we have said last.
        """
        if self._is_closing or self._is_lost or self._is_aborting:
            return
        self._is_closing = True
        self._drop_incoming()
        if self._got_reset:
            self._mux.call_later(0, self._lose_after_reset)
        elif self._producer is None:
            self._end()

    def loseWriteConnection(self) -> None:
        """Say "end of data"; the stream still receives."""
        if not self._is_lost and not self._is_aborting:
            self._end()

    def readConnectionLost(self, reason: Failure) -> None:
        """Take the peer's end of data; for ``IHalfCloseableDescriptor``, where reactors call it."""
        self.end_arrived()

    def writeConnectionLost(self, reason: Failure) -> None:
        """Take note that our end has left; for ``IHalfCloseableDescriptor``, as above."""
        self.end_sent()

    def abortConnection(self) -> None:
        """Cut the stream: the peer sees a reset, and ``connectionLost`` follows in the next turn."""
        if self._linger is not None:
            self._linger.cancel()
            self._stop_lingering()
        if not self._is_lost and not self._is_aborting:
            self._break(Failure(ConnectionAborted()))

    def resetConnection(self) -> None:  # noqa: N802  # named as its neighbours are
        """Cut the stream once everything written has left, or after ``Mux.linger_seconds``.

        What still arrives is dropped and credited, as after ``loseConnection``: a peer that reads only after
        it has written everything would otherwise never read what is queued here.
        """
        if self._is_lost or self._is_aborting or self._got_reset:
            self.abortConnection()
            return
        self._is_closing = self._is_ending = True
        self._producer = None
        self._drop_incoming()
        if self._linger is None:
            if self._mux.session.reset_when_sent(self.stream_id):
                self._break(Failure(ConnectionAborted()))
            else:
                self._linger = self._mux.call_later(self._mux.linger_seconds, self._stop_waiting)

    def getPeer(self) -> IAddress:
        """Where the other end is: the link's peer and the stream id."""
        return StreamAddress(self._mux.link, self.stream_id)

    def getHost(self) -> IAddress:
        """The same address: a stream has no place of its own."""
        return self.getPeer()

    def take_undelivered(self) -> bytes:
        """Return, once, what had arrived when the stream was cut and a paused protocol did not get."""
        undelivered, self._undelivered = self._undelivered, b""
        return undelivered

    # -- IConsumer -------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause and resume ``producer`` as the peer and the carrier take what is written.

        Raises:
            RuntimeError: Another producer is registered.
        """
        if self._producer is not None:
            msg = f"cannot register {producer!r}: {self._producer!r} is registered already"
            raise RuntimeError(msg)
        if self._is_lost:
            producer.stopProducing()
            return
        self._producer = producer
        self._producer_is_streaming = streaming
        self._producer_is_paused = False
        if self._mux.session.queued_bytes(self.stream_id) > self._mux.high_water_bytes:
            self._hold_producer()
        elif not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer; a close that waited for it goes on."""
        self._producer = None
        if self._is_closing and not self._is_lost:
            self._end()

    def _hold_producer(self) -> None:
        # A pull producer is not told: it waits to be asked.
        self._producer_is_paused = True
        if self._producer_is_streaming:
            cast(IPushProducer, self._producer).pauseProducing()

    def _ask_for_more(self) -> None:
        if self._mux.session.queued_bytes(self.stream_id) <= self._mux.high_water_bytes:
            self.writable()

    def _stop_producer(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            self._call(producer.stopProducing)

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing until ``resumeProducing``; the peer may send up to its window."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Deliver what has waited, from the next turn on, then whatever arrives."""
        if self._is_paused:
            self._is_paused = False
            if self._incoming or self._got_end:
                self._mux.call_later(0, self._deliver_waiting)

    def stopProducing(self) -> None:
        """Whoever consumed us is gone: close, as TCP transports do."""
        self.loseConnection()

    # -- from the mux ----------------------------------------------------------------------

    def start(self) -> None:
        """The stream is open, as far as we know: the protocol gets this transport."""
        self._call(cast(IProtocol, self.protocol).makeConnection, self)

    def data_arrived(self, data: bytes) -> None:
        """Take the body of a data frame."""
        if self._is_closing or self._is_lost:
            self._mux.session.data_taken(self.stream_id, len(data))
        elif self._is_aborting:
            pass
        elif self._is_paused or self._incoming:
            if self._incoming is _NOTHING:
                self._incoming = deque()
            self._incoming.append(data)
            self._deliver()
        else:  # As _deliver does, but nearly all data comes by here.
            try:
                self._mux.session.data_taken(self.stream_id, len(data))
                self.protocol.dataReceived(data)  # type: ignore[union-attr]  # it is not lost
            except Exception:  # noqa: BLE001  # as in _deliver
                self._blame_protocol()

    def end_arrived(self) -> None:
        """Take the peer's FIN."""
        self._got_end = True
        if self._is_closing or self._is_lost:
            self._settle()
        else:
            self._deliver()

    def end_sent(self) -> None:
        """Our FIN has left, and everything before it."""
        self._sent_end = True
        if not self._is_closing and not self._is_lost and not self._is_aborting:
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                self._call(half.writeConnectionLost)
        self._settle()

    def writable(self) -> None:
        """The session's queue has drained to the low-water mark."""
        if self._producer is not None and self._producer_is_paused and not self._is_aborting:
            self._producer_is_paused = False
            self._call(cast(IPushProducer, self._producer).resumeProducing)

    def reset_arrived(self, sentence: str, *, is_refused: bool = False) -> None:
        """Take the peer's reset; the protocol gets it after the data that came before.

        Args:
            sentence: Why.
            is_refused: Whether the peer never accepted the stream: the protocol gets ``StreamRefused``.
        """
        if self._got_end and not self._told_end and not self._incoming:
            self._tell_end()  # a pause holds back data only
        if not self._incoming or self._is_closing or self._is_lost or self._is_aborting:
            self.cut(sentence, is_refused=is_refused)
            return
        self._got_reset = sentence
        self._is_ending = True  # what is written from now on is dropped
        self._linger = self._mux.call_later(self._mux.linger_seconds, self._stop_waiting)
        self.writable()  # nothing is queued any more; a paused producer may be what lets the protocol read

    def reset_sent(self) -> None:
        """The reset of ``resetConnection`` has left, and everything before it."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._is_aborting = True
        self._lose(Failure(ConnectionAborted()))

    def cut(self, sentence: str, *, is_refused: bool = False) -> None:
        """End the stream without an end of data, now: it was reset, or the whole session is over.

        Args:
            sentence: Why.
            is_refused: As for ``reset_arrived``.
        """
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not self._is_aborting:
            self._undelivered = b"".join(self._incoming)
            self._lose(Failure(StreamRefused(sentence) if is_refused else ConnectionLost(sentence)))
            self._undelivered = b""
        self._mux.forget(self)

    # -- inside ----------------------------------------------------------------------------

    def _deliver_waiting(self) -> None:
        self._deliver()
        if self._mux.session.wants_to_send:
            self._mux.flush_soon()

    def _deliver(self) -> None:
        # Never entered a second time from inside dataReceived: what a protocol does there, resume
        # included, calls nobody back before the next turn.
        incoming = self._incoming
        data_taken = self._mux.session.data_taken
        try:
            while incoming and not self._is_paused:
                data = incoming.popleft()
                data_taken(self.stream_id, len(data))
                cast(IProtocol, self.protocol).dataReceived(data)
        except Exception:  # noqa: BLE001  # whatever the application's protocol raises
            self._blame_protocol()
        if not incoming:
            self._incoming = _NOTHING
        if self._got_end and not incoming and not self._is_paused and not self._told_end:
            self._tell_end()
        if self._got_reset and not incoming and not self._is_paused:
            self._lose_after_reset()

    def _tell_end(self) -> None:
        if self._is_closing or self._is_lost or self._is_aborting:
            return
        self._told_end = True
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is None:
            # The whole connection is over, and nobody waits for a producer any more.
            self._is_closing = True
            self._stop_producer()
            self._end()
        else:
            self._call(half.readConnectionLost)
            self._settle()

    def _end(self) -> None:
        if not self._is_ending and not self._is_aborting:
            self._is_ending = True
            self._mux.session.end_stream(self.stream_id)
            self._mux.flush_soon()
        self._settle()

    def _settle(self) -> None:
        if not self._sent_end or self._is_aborting:
            return
        if self._got_end and self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._told_end or self._is_closing:
            if not self._got_end and self._linger is None:
                self._linger = self._mux.call_later(self.linger_seconds, self._stop_lingering)
            self._lose(Failure(ConnectionDone()))

    def _stop_lingering(self) -> None:
        # We closed, the peer never said its end: a reset frees the stream on both sides.
        self._linger = None
        self._mux.session.reset_stream(self.stream_id)
        self._mux.flush_soon()
        self._mux.forget(self)

    def _stop_waiting(self) -> None:
        # For the peer to take what is queued, or for the protocol to take what came before the peer's reset.
        self._linger = None
        if self._mux.is_clock_paused:
            # Nothing can leave or arrive, and the link bounds how long: the time begins anew.
            self._linger = self._mux.call_later(self._mux.linger_seconds, self._stop_waiting)
        elif self._got_reset:
            self._incoming.clear()
            self._lose_after_reset()
        else:
            self._break(Failure(ConnectionAborted()))

    def _lose_after_reset(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._mux.session.reset_stream(self.stream_id)
        if not self._is_aborting:
            self._lose(Failure(ConnectionLost(self._got_reset)))
        self._mux.forget(self)

    def _drop_incoming(self) -> None:
        self._mux.session.data_taken(self.stream_id, sum(map(len, self._incoming)))
        self._incoming.clear()
        self._mux.flush_soon()

    def _break(self, reason: Failure) -> None:
        # Told in the next turn: whoever writes or aborts does not expect connectionLost meanwhile.
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._is_aborting = True
        self._incoming.clear()
        self._mux.session.reset_stream(self.stream_id)
        self._mux.flush_soon()
        self._mux.call_later(0, self._lose, reason)

    def _lose(self, reason: Failure) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._incoming.clear()
            self._stop_producer()
            protocol, self.protocol = cast(IProtocol, self.protocol), None
            self._call(protocol.connectionLost, reason)
        if self._is_aborting or (self._sent_end and self._got_end):
            self._mux.forget(self)

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001  # as in _deliver
            self._blame_protocol()

    def _blame_protocol(self) -> None:
        self._log.failure("A protocol failed; its stream is cut", event="stream.protocol_failed")
        if not self._is_lost and not self._is_aborting:
            self._break(Failure())


# Not by the decorator: what has one stays interpreted in the compiled form (decision 20).
classImplements(StreamTransport, ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor)
