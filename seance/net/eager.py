"""Writes that try the socket at once.

Twisted's transports put what is written into a buffer and wait for the next poll to say that the socket
takes it. It nearly always does, so each small message costs a poll, two changes of the poll set and a trip
through the reactor for nothing: of the four polls that an echo costs a relay or an agent two go away. What
the socket does not take goes the ordinary way, and so does everything behind it. TLS benefits too: its bytes
leave through the same transport. Measured: ``docs/benchmarks.md``. One of the marked loops of the project.

``tcp.Port.transport`` is a hook for accepted connections alone, so a transport that is there already
gets another class; the new one adds methods and no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp

if TYPE_CHECKING:
    from twisted.internet.abstract import FileDescriptor as _Transport
else:
    _Transport = object

__all__ = ["write_eagerly"]

GATHERED_BYTES = 4096
"""From here on the system is handed several pieces; below, joining them is cheaper."""


class _EagerWrites(_Transport):
    """Mixed in before one of Twisted's TCP transports."""

    socket: Any
    _aborting: bool

    full_above_bytes = 64 * 1024
    """So much may wait in user space before a producer is paused; Twisted's number. For a carrier it is 0:
    what waits here nothing can overtake any more (yamux.md 2.3)."""

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

    def write(self, data: bytes) -> None:
        if type(data) is bytes and self._may_send_at_once():
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0  # full; or broken, and then the poll finds out and tells
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        super().write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        pieces = list(iovec)
        total = sum(map(len, pieces))
        if total < GATHERED_BYTES or not self._may_send_at_once():
            self.write(b"".join(pieces))
            return
        try:
            sent = self.socket.sendmsg(pieces)
        except OSError:
            sent = 0
        if sent < total:
            super().write(b"".join(pieces)[sent:])


class _EagerServer(_EagerWrites, tcp.Server):
    pass


class _EagerClient(_EagerWrites, tcp.Client):
    pass


EAGER: dict[type, type] = {tcp.Server: _EagerServer, tcp.Client: _EagerClient}


def write_eagerly(transport: object) -> None:
    """Let a TCP transport of Twisted's try the socket with each write; others stay as they are."""
    eager = EAGER.get(type(transport))
    if eager is not None:
        transport.__class__ = eager
