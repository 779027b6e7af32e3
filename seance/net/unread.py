"""Read all received data before reporting the loss of a connection.

If a peer sends a last message and then resets, the message can still be read, but every write fails. Twisted
reports the connection as lost when a write fails, or when a poll reports the reset while the transport is
paused. The message is then never read. With ``ReadsBeforeLoss`` the loss is reported after the protocol has
read the received data, or after ``UNREAD_SECONDS``; writes are dropped meanwhile.

The kernel distinguishes *reset* from *end of data, then reset*, but reports it only once: the first system
call that fails returns ECONNRESET for the former and EPIPE for the latter (Linux).

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
"""Maximum time by which a protocol that has paused its transport delays the report of the loss."""


class ReadsBeforeLoss(_Transport):
    """A mixin before one of Twisted's socket transports."""

    socket: Any
    protocol: Any
    reactor: Any
    producer: Any
    _aborting: bool

    _is_paused = False
    _has_ended = False  # the peer's end of data was read
    _is_reset = False  # the peer has reset without an end of data before
    _timeout: IDelayedCall | None = None  # set while the loss is delayed

    def pauseProducing(self) -> None:
        """Stop reading until ``resumeProducing``."""
        self._is_paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self._is_paused = False
        super().resumeProducing()

    def handle_end_of_data(self) -> Any:  # noqa: ANN401  # Twisted's
        """Return the result of ``doRead`` when there is nothing more to read."""
        if self._is_reset:
            return main.CONNECTION_LOST
        if self._has_ended or self._timeout is None:
            self._has_ended = True
            return main.CONNECTION_DONE
        self._has_ended = True
        self.readConnectionLost(Failure(ConnectionDone()))
        return main.CONNECTION_LOST

    def note_failed_write(self, error: OSError) -> None:
        """Record a reset, which the kernel reports only once."""
        if error.errno != errno.EPIPE:
            self._is_reset = True

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        """Write as Twisted's transports do, and record a reset."""
        try:
            return int(self.socket.send(memoryview(data)[: self.SEND_LIMIT]))
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.ENOBUFS):
                return 0
            self.note_failed_write(error)
            return main.CONNECTION_LOST

    def connectionLost(self, reason: Any) -> None:  # noqa: ANN401  # Twisted's
        """Report the loss now, or after all received data has been read."""
        if not self._must_delay(reason):
            if self._timeout is not None:
                self._timeout.cancel()
                self._timeout = None
            super().connectionLost(reason)
        elif not self._is_paused:
            self.startReading()
        # Free the unsent data now, because a transport is part of reference cycles, which are collected
        # later.
        self.dataBuffer = b""
        self._tempDataBuffer, self._tempDataLen, self.offset = [], 0, 0
        if self._timeout is not None and self.producer is not None and self.producerPaused:
            # The queue is empty now, and reading may continue only when the paused producer has been resumed.
            self.producerPaused = False
            self.producer.resumeProducing()

    def _must_delay(self, reason: Any) -> bool:  # noqa: ANN401  # Twisted's
        """Return whether there is data to read before the loss; if so, disable writing."""
        if (
            not self.connected
            or self.disconnecting
            or self._aborting
            or reason.check(ConnectionLost) is None
            or not self._is_unread()
        ):
            return False
        if self._timeout is None:
            self._writeDisconnected = True
            self._timeout = self.reactor.callLater(UNREAD_SECONDS, self._give_up, reason)
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
        self._timeout = None
        self._has_ended = True
        self.connectionLost(reason)


class _ReadsUnix(ReadsBeforeLoss):
    # Without Twisted's support for passing file descriptors, which is not used here.
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
            return self.handle_end_of_data()
        self.protocol.dataReceived(data)
        return None


class _UnixServer(_ReadsUnix, unix.Server):
    pass


class _UnixClient(_ReadsUnix, unix.Client):
    pass


_UNIX: dict[type, type] = {unix.Server: _UnixServer, unix.Client: _UnixClient}


def read_before_loss(transport: object) -> None:
    """Apply this to a UNIX socket transport of Twisted; other transports are not changed."""
    reading = _UNIX.get(type(transport))
    if reading is not None:
        transport.__class__ = reading
