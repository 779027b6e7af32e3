"""A yamux stream that behaves like a TCP transport.

``seance.yamux`` implements the protocol, and ``seance.mux.protocol`` sends the bytes. This file turns the
events of one stream into the calls that a Twisted protocol expects from a socket, in the same order and
number. The tests in ``tests/contract.py`` define this behaviour; real TCP passes them too.

Two decisions about flow control are made here. *Inbound*: credit is returned to the peer when the protocol
has consumed the bytes, that is, after ``dataReceived`` was called with them. While the protocol has paused
the stream, they stay in ``_incoming`` without credit. So a protocol that does not read costs at most one
window and stops no other stream. *Outbound*: the producer is paused while more than ``send_high_water_bytes``
are queued in the session, and resumed at the low-water mark, whether the peer's window or the carrier caused
the queue.

Bytes that were read before an end are delivered before it (docs/protocol.md, "Ends"). ``resetConnection``
sends the queued data before the reset, and a reset of the peer waits until a paused protocol has consumed the
data before it. Both waits are limited to ``Mux.linger_seconds``.
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
from seance.mux.stream_states import LIFECYCLE, READ, WRITE, Lifecycle, ReadState, StreamStep, WriteState

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.mux.owner import StreamOwner
    from seance.yamux import Bytes

__all__ = ["StreamTransport"]

# Names of the module, because an attribute of an enum costs a function call in Python 3.11.
_OPEN: Final = Lifecycle.OPEN
_CLOSING: Final = Lifecycle.CLOSING
_ABORTING: Final = Lifecycle.ABORTING
_LOST: Final = Lifecycle.LOST
_READ_OPEN: Final = ReadState.OPEN
_READ_END_PENDING: Final = ReadState.END_PENDING
_READ_ENDED: Final = ReadState.ENDED
_WRITE_OPEN: Final = WriteState.OPEN
_WRITE_ENDED: Final = WriteState.ENDED
_FIN: Final = StreamStep.FIN
_REPORT: Final = StreamStep.REPORT
_END: Final = StreamStep.END
_RESET: Final = StreamStep.RESET
_CLOSE: Final = StreamStep.CLOSE
_ABORT: Final = StreamStep.ABORT
_LOSE: Final = StreamStep.LOSE

MIN_PIECE_BYTES: Final = 4096
"""Average length of pieces from which they are not joined; then they are few enough for ``sendmsg`` too."""

_NOTHING: Final[deque[bytes]] = deque()
"""The shared queue of all streams without waiting data: an empty deque takes 760 bytes."""


class StreamTransport:
    """The transport of a protocol at one end of a stream.

    Created by ``Mux``, in ``Mux.open_stream`` or for a stream that the peer opened. Every method may be
    called from inside ``dataReceived``, and any number of times.

    Attributes:
        stream_id: The yamux stream id.
        protocol: The protocol that receives the data; may be replaced at any time.
        linger_seconds: How long to wait for the peer's end after ours was sent, following ``loseConnection``;
            may be changed until then.
    """

    _log = Logger()

    __slots__ = (
        "_incoming",
        "_is_paused",
        "_lifecycle",
        "_linger",
        "_mux",
        "_producer",
        "_producer_is_paused",
        "_producer_is_streaming",
        "_read_state",
        "_reset_reason",
        "_undelivered",
        "_write_state",
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
        self._read_state = _READ_OPEN
        self._write_state = _WRITE_OPEN
        self._lifecycle = _OPEN
        self._reset_reason = ""  # of the peer's reset, while data that came before it is not delivered
        self._producer: IProducer | None = None
        self._producer_is_streaming = True
        self._producer_is_paused = False
        self._linger: IDelayedCall | None = None
        self._undelivered = b""
        self.linger_seconds = mux.linger_seconds

    # -- ITransport ------------------------------------------------------------------------

    @property
    def disconnecting(self) -> bool:
        """Whether the stream is closing or closed; not in an interface, but ``LineReceiver`` reads it."""
        return self._lifecycle is not _OPEN

    def write(self, data: bytes) -> None:
        """Send ``data``. After the end of the stream it is silently dropped.

        More than ``Limits.send_queue_bytes`` in the queue resets the stream, because no data may be left out.
        """
        if type(data) is not bytes:
            msg = f"a transport takes bytes, not {type(data).__name__}"
            raise TypeError(msg)
        if self._write_state is not _WRITE_OPEN or not data:
            return
        mux = self._mux
        try:
            queued = mux.session.send_data(self.stream_id, data)
        except LocalProtocolError as error:
            self._break(Failure(ConnectionLost(error.message)))
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
        """Close both directions after everything written was sent and no producer is registered.

        Data that still arrives is dropped. It is credited, so that the peer reaches its own end; a reset
        would cut off our last data.
        """
        if self._lifecycle is not _OPEN:
            return
        self._lifecycle = LIFECYCLE[_OPEN, _CLOSE]
        self._drop_incoming()
        if self._reset_reason:
            self._mux.call_later(0, self._lose_after_reset)
        elif self._producer is None:
            self._end()

    def loseWriteConnection(self) -> None:
        """Send the end of data; the stream still receives."""
        if not self._is_cut:
            self._end()

    def readConnectionLost(self, reason: Failure) -> None:
        """Handle the peer's end of data; called by reactors (``IHalfCloseableDescriptor``)."""
        self.end_arrived()

    def writeConnectionLost(self, reason: Failure) -> None:
        """Handle the end of our half; called by reactors (``IHalfCloseableDescriptor``)."""
        self.end_sent()

    def abortConnection(self) -> None:
        """Reset the stream; ``connectionLost`` follows in the next turn."""
        if self._linger is not None:
            self._linger.cancel()
            self._stop_lingering()
        if not self._is_cut:
            self._break(Failure(ConnectionAborted()))

    def resetConnection(self) -> None:  # noqa: N802  # named like its neighbours
        """Reset the stream after everything written was sent, or after ``Mux.linger_seconds``.

        Data that still arrives is dropped and credited, as after ``loseConnection``: a peer that reads only
        after it has written everything would otherwise never read the data queued here.
        """
        if self._is_cut or self._reset_reason:
            self.abortConnection()
            return
        self._lifecycle = LIFECYCLE[self._lifecycle, _CLOSE]
        self._write_state = WRITE[self._write_state, _END]
        self._producer = None
        self._drop_incoming()
        if self._linger is None:
            if self._mux.session.reset_when_sent(self.stream_id):
                self._break(Failure(ConnectionAborted()))
            else:
                self._linger = self._mux.call_later(self._mux.linger_seconds, self._linger_timed_out)

    def getPeer(self) -> IAddress:
        """Return the address of the link and the stream id."""
        return StreamAddress(self._mux.link, self.stream_id)

    def getHost(self) -> IAddress:
        """Return the same address: a stream has only one."""
        return self.getPeer()

    def take_undelivered(self) -> bytes:
        """Return, once, the data that a paused protocol had not received when the stream was cut."""
        undelivered, self._undelivered = self._undelivered, b""
        return undelivered

    # -- IConsumer -------------------------------------------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Pause and resume ``producer`` as the send queue fills and drains.

        Raises:
            RuntimeError: Another producer is registered.
        """
        if self._producer is not None:
            msg = f"cannot register {producer!r}: {self._producer!r} is registered already"
            raise RuntimeError(msg)
        if self._lifecycle is _LOST:
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
        """Remove the producer; a close that waited for it continues."""
        self._producer = None
        if self._lifecycle is _CLOSING:
            self._end()

    def _hold_producer(self) -> None:
        # A pull producer waits until it is asked.
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
        """Deliver the waiting data, from the next turn on, and then new data."""
        if self._is_paused:
            self._is_paused = False
            if self._incoming or self._read_state is _READ_END_PENDING:
                self._mux.call_later(0, self._deliver_waiting)

    def stopProducing(self) -> None:
        """Close the stream, as TCP transports do: the consumer of its data is gone."""
        self.loseConnection()

    # -- from the mux ----------------------------------------------------------------------

    def start(self) -> None:
        """Give the transport to the protocol: the stream is open."""
        self._call(cast(IProtocol, self.protocol).makeConnection, self)

    def data_arrived(self, data: bytes) -> None:
        """Handle the body of a data frame."""
        if self._lifecycle is not _OPEN:
            self._mux.session.data_taken(self.stream_id, len(data))
        elif self._is_paused or self._incoming:
            if self._incoming is _NOTHING:
                self._incoming = deque()
            self._incoming.append(data)
            self._deliver()
        else:  # as in _deliver; this is the common case
            try:
                self._mux.session.data_taken(self.stream_id, len(data))
                self.protocol.dataReceived(data)  # type: ignore[union-attr]  # it is not lost
            except Exception:  # noqa: BLE001  # as in _deliver
                self._blame_protocol()

    def pieces_arrived(self, pieces: list[Bytes]) -> None:
        """Handle the bodies of several data frames, or of one that is a view.

        A protocol gets them joined, as ``bytes``. One that has ``pieces_received``, as a splice has, gets
        large ones as they are; that saves a copy of all bulk data.
        """
        count = sum(map(len, pieces))
        receive: Callable[[list[Bytes], int], object] | None = None
        if (
            count >= len(pieces) * MIN_PIECE_BYTES
            and self._lifecycle is _OPEN
            and not self._is_paused
            and not self._incoming
        ):
            receive = getattr(self.protocol, "pieces_received", None)
        if receive is None:
            self.data_arrived(b"".join(pieces))
            return
        try:
            self._mux.session.data_taken(self.stream_id, count)
            receive(pieces, count)
        except Exception:  # noqa: BLE001  # as in _deliver
            self._blame_protocol()

    def end_arrived(self) -> None:
        """Handle the peer's FIN."""
        self._read_state = READ[self._read_state, _FIN]
        if self._lifecycle is _OPEN:
            self._deliver()
        else:
            self._settle()

    def end_sent(self) -> None:
        """Our FIN was sent, after all data."""
        self._write_state = WRITE[self._write_state, _FIN]
        if self._lifecycle is _OPEN:
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                self._call(half.writeConnectionLost)
        self._settle()

    def writable(self) -> None:
        """The session's queue has drained to the low-water mark."""
        if self._producer is not None and self._producer_is_paused and not self._is_cut:
            self._producer_is_paused = False
            self._call(cast(IPushProducer, self._producer).resumeProducing)

    def reset_arrived(self, reason: str, *, is_refused: bool = False) -> None:
        """Handle the peer's reset; the protocol gets it after the data that came before.

        Args:
            reason: The reason as text.
            is_refused: Whether the peer never accepted the stream; the protocol then gets ``StreamRefused``.
        """
        if self._read_state is _READ_END_PENDING and not self._incoming:
            self._report_end()  # a pause delays only data
        if not self._incoming or self._lifecycle is not _OPEN:
            self.cut(reason, is_refused=is_refused)
            return
        self._reset_reason = reason
        self._write_state = WRITE[self._write_state, _RESET]
        self._linger = self._mux.call_later(self._mux.linger_seconds, self._linger_timed_out)
        self.writable()  # the queue is empty; the protocol may resume reading when its producer is resumed

    def reset_sent(self) -> None:
        """The reset of ``resetConnection`` was sent, after all data."""
        self._cancel_linger()
        self._lifecycle = LIFECYCLE[self._lifecycle, _ABORT]
        self._lose(Failure(ConnectionAborted()))

    def cut(self, reason: str, *, is_refused: bool = False) -> None:
        """End the stream immediately, without an end of data: it was reset, or the session is over.

        Args:
            reason: The reason as text.
            is_refused: As for ``reset_arrived``.
        """
        self._cancel_linger()
        if self._lifecycle is not _ABORTING:
            self._undelivered = b"".join(self._incoming)
            self._lose(Failure(StreamRefused(reason) if is_refused else ConnectionLost(reason)))
            self._undelivered = b""
        self._mux.forget(self)

    # -- inside ----------------------------------------------------------------------------

    def _deliver_waiting(self) -> None:
        self._deliver()
        if self._mux.session.wants_to_send:
            self._mux.flush_soon()

    def _deliver(self) -> None:
        # Not re-entrant: ``resumeProducing`` in ``dataReceived`` delivers in the next turn.
        incoming = self._incoming
        data_taken = self._mux.session.data_taken
        try:
            while incoming and not self._is_paused:
                data = incoming.popleft()
                data_taken(self.stream_id, len(data))
                cast(IProtocol, self.protocol).dataReceived(data)
        except Exception:  # noqa: BLE001  # anything that the application's protocol raises
            self._blame_protocol()
        if not incoming:
            self._incoming = _NOTHING
        if self._read_state is _READ_END_PENDING and not incoming and not self._is_paused:
            self._report_end()
        if self._reset_reason and not incoming and not self._is_paused:
            self._lose_after_reset()

    def _report_end(self) -> None:
        if self._lifecycle is not _OPEN:
            return
        self._read_state = READ[self._read_state, _REPORT]
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is None:
            # The whole connection is over, so do not wait for the producer.
            self._lifecycle = LIFECYCLE[_OPEN, _CLOSE]
            self._stop_producer()
            self._end()
        else:
            self._call(half.readConnectionLost)
            self._settle()

    def _end(self) -> None:
        if self._write_state is _WRITE_OPEN:
            self._write_state = WRITE[_WRITE_OPEN, _END]
            self._mux.session.end_stream(self.stream_id)
            self._mux.flush_soon()
        self._settle()

    def _settle(self) -> None:
        if self._write_state is not _WRITE_ENDED or self._lifecycle is _ABORTING:
            return
        has_fin = self._read_state is not _READ_OPEN
        if has_fin:
            self._cancel_linger()
        if self._read_state is _READ_ENDED or self._lifecycle is not _OPEN:
            if not has_fin and self._linger is None:
                self._linger = self._mux.call_later(self.linger_seconds, self._stop_lingering)
            self._lose(Failure(ConnectionDone()))

    def _stop_lingering(self) -> None:
        # The peer has not sent its FIN in time. An RST frees the stream on both sides.
        self._linger = None
        self._mux.session.reset_stream(self.stream_id)
        self._mux.flush_soon()
        self._mux.forget(self)

    def _linger_timed_out(self) -> None:
        # The peer has not accepted the queued data, or the protocol has not read the data before the peer's
        # reset.
        self._linger = None
        if self._mux.is_clock_paused:
            # Nothing can be sent or received, and the link limits how long. Start the timeout again.
            self._linger = self._mux.call_later(self._mux.linger_seconds, self._linger_timed_out)
        elif self._reset_reason:
            self._incoming.clear()
            self._lose_after_reset()
        else:
            self._break(Failure(ConnectionAborted()))

    def _lose_after_reset(self) -> None:
        self._cancel_linger()
        self._mux.session.reset_stream(self.stream_id)
        if self._lifecycle is not _ABORTING:
            self._lose(Failure(ConnectionLost(self._reset_reason)))
        self._mux.forget(self)

    def _drop_incoming(self) -> None:
        self._mux.session.data_taken(self.stream_id, sum(map(len, self._incoming)))
        self._incoming.clear()
        self._mux.flush_soon()

    def _break(self, reason: Failure) -> None:
        # In the next turn, because callers of write and abort do not expect connectionLost during the call.
        self._cancel_linger()
        self._lifecycle = LIFECYCLE[self._lifecycle, _ABORT]
        self._write_state = WRITE[self._write_state, _RESET]
        self._incoming.clear()
        self._mux.session.reset_stream(self.stream_id)
        self._mux.flush_soon()
        self._mux.call_later(0, self._lose, reason)

    def _lose(self, reason: Failure) -> None:
        is_done = self._lifecycle is _ABORTING or (
            self._write_state is _WRITE_ENDED and self._read_state is not _READ_OPEN
        )
        if self._lifecycle is not _LOST:
            self._lifecycle = LIFECYCLE[self._lifecycle, _LOSE]
            self._write_state = WRITE[self._write_state, _RESET]
            self._incoming.clear()
            self._stop_producer()
            protocol, self.protocol = cast(IProtocol, self.protocol), None
            self._call(protocol.connectionLost, reason)
        if is_done:
            self._mux.forget(self)

    @property
    def _is_cut(self) -> bool:
        return self._lifecycle is _ABORTING or self._lifecycle is _LOST

    def _cancel_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001  # as in _deliver
            self._blame_protocol()

    def _blame_protocol(self) -> None:
        self._log.failure("A protocol failed; its stream was reset", event="stream.protocol_failed")
        if not self._is_cut:
            self._break(Failure())


# Not with the decorator: mypyc does not compile decorated classes (decision 20).
classImplements(StreamTransport, ITransport, IConsumer, IPushProducer, IHalfCloseableDescriptor)
