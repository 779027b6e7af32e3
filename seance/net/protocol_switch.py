"""A protocol that reads the beginning of a connection and hands the rest to another.

The front of the relay does not know what a connection is before it has read the head. Twisted
has no general way to change a connection's protocol (a TLS transport hides it one level down),
so the first protocol stays where it is and puts its successor's ``dataReceived`` in place of its
own: one attribute look-up per chunk, no extra call. The rest, which happens once, it passes on.

Where there are thousands of connections, a protocol that stays is memory. ``step_out`` takes it out, from the
transports that we know.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["ProtocolSwitch", "replace_protocol"]


@implementer(IHalfCloseableProtocol)
class ProtocolSwitch(Protocol):
    """The first protocol of a connection. Subclasses read; then they call ``hand_over``."""

    _successor: IProtocol | None = None

    def hand_over(self, successor: IProtocol) -> None:
        """Give the connection to ``successor``, whose ``connectionMade`` is called at once.

        Bytes that were read but not consumed are the caller's to pass on, afterwards, to
        ``successor.dataReceived``.
        """
        self._successor = successor
        receive = successor.receive_late if isinstance(successor, ProtocolSwitch) else successor.dataReceived
        self.dataReceived = receive  # type: ignore[method-assign]  # the point of this class
        assert self.transport is not None, "a connection is handed over after connectionMade"
        successor.makeConnection(self.transport)

    def step_out(self, successor: IProtocol) -> None:
        """Leave the connection to ``successor`` for good: not even its end is told to us.

        For transports of Twisted's and of ours.
        """
        replace_protocol(self.transport, self, successor)

    def receive_late(self, data: bytes) -> None:
        """Take data from another of us, which must not keep the method that a hand-over of ours replaces."""
        self.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over; a subclass that has something to do then calls this as well."""
        if self._successor is not None:
            self._successor.connectionLost(reason)

    def readConnectionLost(self) -> None:
        """The far side has said all: pass it on, or close if nobody can tell half from whole."""
        half = IHalfCloseableProtocol(self._successor, None)
        if half is not None:
            half.readConnectionLost()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """We have said all."""
        half = IHalfCloseableProtocol(self._successor, None)
        if half is not None:
            half.writeConnectionLost()


def replace_protocol(transport: Any, old: IProtocol, new: IProtocol) -> None:  # noqa: ANN401  # no common type
    """Let a transport deliver to ``new`` in place of ``old``, and call the former's ``connectionMade``."""
    name = "wrappedProtocol" if isinstance(transport, ProtocolWrapper) else "protocol"
    assert getattr(transport, name) is old, "a connection is given away by whoever has it"
    setattr(transport, name, new)
    new.makeConnection(transport)
