"""TCP transports that write to the socket immediately, and read more at a time while each read is full.

Twisted's transports put written data into a buffer and wait until a poll reports that the socket is writable.
The socket nearly always is, so each small message costs one more poll and two changes of the poll set. An
echo costs a relay or an agent four polls with Twisted's transports, and two with these. Data that the socket
does not accept takes Twisted's way, with all data behind it. TLS uses the same transports. Twisted reads 64
KiB at a time; a bulk transfer takes a quarter less time with larger reads. Measurements: docs/benchmarks.md.

Listening ports (``accept_immediately``) and endpoints for an address (``dial_immediately``) create such
transports. The class of an existing transport can be changed too (``write_immediately``). Python then gives
the object a dictionary, in which attributes take four times as long to find. This is one of the project's hot
loops.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp
from twisted.internet.address import IPv6Address
from twisted.internet.posixbase import PosixReactorBase

from seance.net.send_queue import SendQueueMonitor
from seance.net.unread import ReadsBeforeLoss

if TYPE_CHECKING:
    from socket import socket

    from twisted.internet.interfaces import IConnector, IProtocol, IReactorFDSet
    from twisted.internet.protocol import ClientFactory

__all__ = ["accept_immediately", "dial_immediately", "write_immediately"]

MAX_PIECES = 1024
"""Pieces that one ``sendmsg`` takes on Linux (``IOV_MAX``)."""

MIN_GATHER_BYTES = 4096
"""From this length on, pieces are passed to ``sendmsg``; below it, joining them is cheaper."""

MIN_READ_BYTES = 64 * 1024
"""Initial size of a read, as in Twisted."""

MAX_READ_BYTES = 256 * 1024
"""Maximum size of a read; the size doubles while each read is full."""

MIN_VIEW_BYTES = 4096
"""Below this, a protocol that takes views gets ``bytes``, which are faster to cut into small frames."""

_read_buffer = bytearray(MAX_READ_BYTES)
"""Shared by all transports whose protocols take views: a read is used up before the next one."""


class _ImmediateWrites(ReadsBeforeLoss):
    """A mixin before one of Twisted's TCP transports."""

    full_above_bytes = 64 * 1024
    """Buffered bytes above which a producer is paused, as in Twisted. It is 0 for a carrier, because no
    stream can overtake buffered data."""

    takes_buffers = True
    """Whether ``writeSequence`` accepts bytearrays and views too; it does not keep them."""

    send_queue: SendQueueMonitor | None = None
    """Limits the unsent data in the kernel; only for carriers."""

    def _isSendBufferFull(self) -> bool:  # noqa: N802  # Twisted's name
        return len(self.dataBuffer) - self.offset + self._tempDataLen > self.full_above_bytes

    def _may_write_to_socket(self) -> bool:
        return bool(
            not self._tempDataLen
            and not self.dataBuffer
            and self.connected
            and not self._writeDisconnected
            and not self._aborting
            and (self.producer is None or self.streamingProducer)  # a pull producer is called by the polls
        )

    def doRead(self) -> Any:  # noqa: ANN401  # Twisted's
        if self.send_queue is not None and getattr(self.protocol, "takes_views", False):
            return self._read_view()
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            self._is_reset = True
            return main.CONNECTION_LOST
        count = len(data)
        if count == self.bufferSize:
            self.bufferSize = min(2 * count, MAX_READ_BYTES)
        elif count < MIN_READ_BYTES:
            self.bufferSize = MIN_READ_BYTES
            if not count:
                return self.handle_end_of_data()
        self.protocol.dataReceived(data)
        return None

    def _read_view(self) -> Any:  # noqa: ANN401  # as doRead
        try:
            count = self.socket.recv_into(_read_buffer)
        except BlockingIOError:
            return None
        except OSError:
            self._is_reset = True
            return main.CONNECTION_LOST
        if not count:
            return self.handle_end_of_data()
        data = memoryview(_read_buffer)[:count]
        self.protocol.dataReceived(data if count >= MIN_VIEW_BYTES else bytes(data))
        return None

    def write(self, data: bytes) -> None:
        if (
            type(data) is bytes
            # _may_write_to_socket inlined, which saves a call per write.
            and not self._tempDataLen
            and not self.dataBuffer
            and self.connected
            and not self._writeDisconnected
            and not self._aborting
            and (self.producer is None or self.streamingProducer)
        ):
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                sent = 0  # the next poll reports the error, after received data has been read
                self.note_failed_write(error)
            if sent == len(data):
                if self.send_queue is not None and self.send_queue.wrote(sent):
                    self._pause_producer()
                return
            if sent:
                data = data[sent:]
        super().write(data)
        if self.send_queue is not None:
            self.send_queue.filled(self.reactor.seconds())

    def writeSequence(self, iovec: Iterable[bytes | bytearray | memoryview]) -> None:
        pieces = list(iovec)
        total = sum(map(len, pieces))
        if total < MIN_GATHER_BYTES or len(pieces) > MAX_PIECES or not self._may_write_to_socket():
            self.write(b"".join(pieces))
            return
        try:
            sent = self.socket.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            sent = 0
            self.note_failed_write(error)
        if sent < total:
            super().write(b"".join(pieces)[sent:])
            if self.send_queue is not None:
                self.send_queue.filled(self.reactor.seconds())
        elif self.send_queue is not None and self.send_queue.wrote(sent):
            self._pause_producer()

    def doWrite(self) -> Any:  # noqa: ANN401  # Twisted's
        if self.send_queue is not None:
            self.send_queue.drained(self.reactor.seconds())
        return super().doWrite()

    def _pause_producer(self) -> None:
        """Pause the producer until the socket is writable again, although the buffer is empty."""
        send_queue = self.send_queue
        if send_queue is not None and self.producer is not None and self.streamingProducer:
            send_queue.filled(self.reactor.seconds())
            self.producerPaused = True
            self.producer.pauseProducing()
            self.startWriting()


class _ImmediateServer(_ImmediateWrites, tcp.Server):
    logstr = "Seance"

    def __init__(
        self,
        sock: socket,
        protocol: IProtocol,
        client: tuple[Any, ...],
        server: tcp.Port,
        sessionno: int,
        reactor: IReactorFDSet,
    ) -> None:
        # As Twisted's, without the names for its log, which are two strings and a number per connection.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.startReading()
        self.connected = 1

    def __repr__(self) -> str:
        return f"<{type(self.protocol).__name__} of {self.client[0]}>"


class _ImmediateClient(_ImmediateWrites, tcp.Client):
    pass


IMMEDIATE: dict[type, type] = {tcp.Server: _ImmediateServer, tcp.Client: _ImmediateClient}


class _ImmediateConnector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:  # noqa: N802  # Twisted's name
        return _ImmediateClient(self.host, self.port, self.bindAddress, self, self.reactor)


class _ImmediateDialer:
    """The part of a reactor that an endpoint for an address uses."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # several interfaces, no common type
        self._reactor = reactor

    def connectTCP(  # noqa: N802  # Twisted's name
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30.0,
        bindAddress: Any = None,  # noqa: ANN401, N803  # Twisted's
    ) -> IConnector:
        connector = _ImmediateConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector


def dial_immediately(reactor: Any) -> Any:  # noqa: ANN401  # several interfaces, no common type
    """Return a replacement for the reactor with which an endpoint for an address makes immediate transports.

    If the reactor's sockets are not Twisted's own, return the reactor itself.
    """
    return _ImmediateDialer(reactor) if isinstance(reactor, PosixReactorBase) else reactor


def accept_immediately(port: object) -> None:
    """Let a TCP port of Twisted accept immediate transports; other ports are not changed."""
    if getattr(port, "transport", None) is tcp.Server:
        port.transport = _ImmediateServer  # type: ignore[attr-defined]  # a hook of ``tcp.Port``


def write_immediately(transport: object) -> None:
    """Make a TCP transport of Twisted an immediate one; other transports are not changed."""
    immediate = IMMEDIATE.get(type(transport))
    if immediate is not None:
        transport.__class__ = immediate
