"""Received data is read before the loss of its connection is reported.

A peer that sends a last message and resets leaves both in our kernel: the message can be read, and every
write fails. Twisted reports a connection as lost as soon as a write fails, or when the poll says so while the
transport is paused, and the message is never read. With ``ReadsBeforeLoss`` the loss waits until the protocol
has read the received data, for ``UNREAD_SECONDS`` at most; writes are dropped meanwhile.

The kernel distinguishes *reset* from *end of data, then reset*, and says which it was only once: the first
system call that fails has the error, ECONNRESET for the former and EPIPE for the latter (Linux).

Used by :mod:`seance.net.immediate_write` for TCP, and by :mod:`seance.net.sockets` for UNIX sockets.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import main, unix
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted.internet.abstract import FileDescriptor as _Transport
    from twisted.internet.interfaces import IDelayedCall
else:
    _Transport = object

__all__ = ["UNREAD_SECONDS", "ReadsBeforeLoss", "read_before_loss"]

UNREAD_SECONDS: Final = 30.0
"""How long a protocol that has paused its transport may delay the loss."""


class ReadsBeforeLoss(_Transport):
    """Mixed in before one of Twisted's socket transports."""

    socket: Any
    protocol: Any
    reactor: Any
    producer: Any
    _aborting: bool

    _is_paused = False
    _has_ended = False  # the peer's end of data was read
    _is_reset = False  # the peer has reset, and did not end before
    _giving_up: IDelayedCall | None = None  # while the loss waits

    def pauseProducing(self) -> None:
        """Read nothing more until ``resumeProducing``."""
        self._is_paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self._is_paused = False
        super().resumeProducing()

    def read_ended(self) -> Any:  # noqa: ANN401  # Twisted's
        """Say what it means that there is nothing more to read; for ``doRead``."""
        if self._is_reset:
            return main.CONNECTION_LOST
        if self._has_ended or self._giving_up is None:
            self._has_ended = True
            return main.CONNECTION_DONE
        self._has_ended = True
        self.readConnectionLost(Failure(ConnectionDone()))
        return main.CONNECTION_LOST

    def note_failed_write(self, error: OSError) -> None:
        """Keep what the kernel says only once."""
        if error.errno != errno.EPIPE:
            self._is_reset = True

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        """Write as Twisted's transports do, and keep what the kernel says of a failure."""
        try:
            return int(self.socket.send(memoryview(data)[: self.SEND_LIMIT]))
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.ENOBUFS):
                return 0
            self.note_failed_write(error)
            return main.CONNECTION_LOST

    def connectionLost(self, reason: Any) -> None:  # noqa: ANN401  # Twisted's
        """Report the loss, now or once everything that can be read has been read."""
        if not self._waits_with(reason):
            if self._giving_up is not None:
                self._giving_up.cancel()
                self._giving_up = None
            super().connectionLost(reason)
        elif not self._is_paused:
            # In turns of the reactor, as always.
            self.startReading()
        # Free the unsent data now: a transport is part of reference cycles, which are collected later.
        self.dataBuffer = b""
        self._tempDataBuffer, self._tempDataLen, self.offset = [], 0, 0
        if self._giving_up is not None and self.producer is not None and self.producerPaused:
            # Nothing is queued any more, and a producer that waits may be what lets this transport read.
            self.producerPaused = False
            self.producer.resumeProducing()

    def _waits_with(self, reason: Any) -> bool:  # noqa: ANN401  # Twisted's
        """Whether there is something to read before the loss; from then on nothing is written."""
        if (
            not self.connected
            or self.disconnecting
            or self._aborting
            or reason.check(ConnectionLost) is None
            or not self._is_unread()
        ):
            return False
        if self._giving_up is None:
            self._writeDisconnected = True
            self._giving_up = self.reactor.callLater(UNREAD_SECONDS, self._give_up, reason)
        return True

    def _is_unread(self) -> bool:
        if self._has_ended:
            return False
        try:
            data = self.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        return bool(data) or not self._is_reset

    def _give_up(self, reason: Any) -> None:  # noqa: ANN401  # Twisted's
        self._giving_up = None
        self._has_ended = True
        self.connectionLost(reason)


class _ReadsUnix(ReadsBeforeLoss):
    # Twisted's own can pass on descriptors, for which nothing here has a use.
    bufferSize: int  # noqa: N815  # Twisted's name

    def doRead(self) -> Any:  # noqa: ANN401  # Twisted's
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            self._is_reset = True
            return main.CONNECTION_LOST
        if not data:
            return self.read_ended()
        self.protocol.dataReceived(data)
        return None


class _UnixServer(_ReadsUnix, unix.Server):
    pass


class _UnixClient(_ReadsUnix, unix.Client):
    pass


_UNIX: dict[type, type] = {unix.Server: _UnixServer, unix.Client: _UnixClient}


def read_before_loss(transport: object) -> None:
    """Let a UNIX socket transport of Twisted's be read before its loss; others stay as they are."""
    reading = _UNIX.get(type(transport))
    if reading is not None:
        transport.__class__ = reading
