"""Writes that try the socket at once, and reads that grow while each is full.

Twisted's transports put what is written into a buffer and wait for the next poll to say that the socket
takes it. It nearly always does, so each small message costs a poll, two changes of the poll set and a trip
through the reactor for nothing: of the four polls that an echo costs a relay or an agent two go away. What
the socket does not take goes the ordinary way, and so does everything behind it. TLS benefits too: its bytes
leave through the same transport. And they read 64 KiB at a time, whatever comes: a bulk transfer takes a
quarter less time in larger reads. Measured: ``docs/benchmarks.md``. One of the marked loops of the project.

What a port of ours accepts gets such a transport at once (``accept_immediately``), and so does whoever is
dialled at an address (``dial_immediately``). One that is there already gets another class, which adds methods
and no state; but then Python gives it a dictionary, in which its attributes take four times as long to find.
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

GATHERED_BYTES = 4096
"""From here on the system is handed several pieces; below, joining them is cheaper."""

LEAST_READ_BYTES = 64 * 1024
"""What is read at once; Twisted's number ..."""

MOST_READ_BYTES = 256 * 1024
"""... and what it grows to while each read is full."""


class _EagerWrites(ReadsBeforeLoss):
    """Mixed in before one of Twisted's TCP transports."""

    full_above_bytes = 64 * 1024
    """So much may wait in user space before a producer is paused; Twisted's number. For a carrier it is 0:
    what waits here nothing can overtake any more (yamux.md 2.3)."""

    unsent: SendQueueMonitor | None = None
    """Says when the kernel has enough; of carriers only."""

    def _isSendBufferFull(self) -> bool:  # noqa: N802  # Twisted's name
        return len(self.dataBuffer) - self.offset + self._tempDataLen > self.full_above_bytes

    def _may_send_at_once(self) -> bool:
        return bool(
            not self._tempDataLen
            and not self.dataBuffer
            and self.connected
            and not self._writeDisconnected
            and not self._aborting
            and (self.producer is None or self.streamingProducer)  # a pull producer lives by the polls
        )

    def doRead(self) -> Any:  # noqa: ANN401  # Twisted's
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            self._is_reset = True
            return main.CONNECTION_LOST
        count = len(data)
        if count == self.bufferSize:
            self.bufferSize = min(2 * count, MOST_READ_BYTES)
        elif count < LEAST_READ_BYTES:
            self.bufferSize = LEAST_READ_BYTES
            if not count:
                return self.read_ended()
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        if (
            type(data) is bytes
            # As _may_send_at_once, for a call less a write.
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
                sent = 0  # the poll finds out and tells, once what can be read has been read
                self.note_failed_write(error)
            if sent == len(data):
                if self.unsent is not None and self.unsent.wrote(sent):
                    self._fill()
                return
            if sent:
                data = data[sent:]
        super().write(data)
        if self.unsent is not None:
            self.unsent.filled(self.reactor.seconds())

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        pieces = list(iovec)
        total = sum(map(len, pieces))
        if total < GATHERED_BYTES or not self._may_send_at_once():
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
            if self.unsent is not None:
                self.unsent.filled(self.reactor.seconds())
        elif self.unsent is not None and self.unsent.wrote(sent):
            self._fill()

    def doWrite(self) -> Any:  # noqa: ANN401  # Twisted's
        if self.unsent is not None:
            self.unsent.drained(self.reactor.seconds())
        return super().doWrite()

    def _fill(self) -> None:
        """Write nothing until the kernel asks for more, although here nothing waits."""
        unsent = self.unsent
        if unsent is not None and self.producer is not None and self.streamingProducer:
            unsent.filled(self.reactor.seconds())
            self.producerPaused = True
            self.producer.pauseProducing()
            self.startWriting()


class _EagerServer(_EagerWrites, tcp.Server):
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
        # As Twisted's, without the names for its log: two strings and a number for each connection.
        tcp.Connection.__init__(self, sock, protocol, reactor)
        if len(client) != 2:
            self._addressType = IPv6Address
        self.server = server
        self.client = client
        self.startReading()
        self.connected = 1

    def __repr__(self) -> str:
        return f"<{type(self.protocol).__name__} of {self.client[0]}>"


class _EagerClient(_EagerWrites, tcp.Client):
    pass


EAGER: dict[type, type] = {tcp.Server: _EagerServer, tcp.Client: _EagerClient}


class _EagerConnector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:  # noqa: N802  # Twisted's name
        return _EagerClient(self.host, self.port, self.bindAddress, self, self.reactor)


class _EagerDialling:
    """What an endpoint for an address asks of a reactor."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # what endpoints want: no common type
        self._reactor = reactor

    def connectTCP(  # noqa: N802  # Twisted's name
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30.0,
        bindAddress: Any = None,  # noqa: ANN401, N803  # Twisted's
    ) -> IConnector:
        connector = _EagerConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector


def dial_immediately(reactor: Any) -> Any:  # noqa: ANN401  # what endpoints want: no common type
    """Return what an endpoint for an address takes for the reactor, for transports that are eager at once.

    That is the reactor itself where its sockets are not Twisted's own: of those none is eager.
    """
    return _EagerDialling(reactor) if isinstance(reactor, PosixReactorBase) else reactor


def accept_immediately(port: object) -> None:
    """Let what a TCP port of Twisted's accepts be eager from the beginning; others stay as they are."""
    if getattr(port, "transport", None) is tcp.Server:
        port.transport = _EagerServer  # type: ignore[attr-defined]  # a hook of ``tcp.Port``


def write_immediately(transport: object) -> None:
    """Let a TCP transport of Twisted's try the socket with each write; others stay as they are."""
    eager = EAGER.get(type(transport))
    if eager is not None:
        transport.__class__ = eager
