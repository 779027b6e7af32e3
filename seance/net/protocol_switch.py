"""Switch an established connection from one protocol to another.

Twisted has no general way to do this: a transport delivers to its ``protocol``, and a ``ProtocolWrapper``
such as TLS to its ``wrappedProtocol``. ``switch_protocol`` is the one mechanism here. The new protocol
replaces the old one, which frees the old one's memory: a relay has thousands of connections. If the old
protocol must see the end of the connection, it is a ``ProtocolSwitch`` and stays in place as the observer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["ProtocolSwitch", "switch_protocol"]


def switch_protocol(
    transport: Any,  # noqa: ANN401  # no common type
    successor: IProtocol,
    *,
    observer: ProtocolSwitch | None = None,
) -> None:
    """Let ``transport`` deliver to ``successor``, and connect it.

    Args:
        transport: A transport of Twisted or of this project.
        successor: Its ``makeConnection`` is called before this returns. Bytes that were received but not
            processed are for the caller to pass to its ``dataReceived`` afterwards.
        observer: The transport's present protocol, if it stays to see the end of the connection. It forwards
            everything; received data takes no extra call.
    """
    if observer is None:
        name = "wrappedProtocol" if isinstance(transport, ProtocolWrapper) else "protocol"
        setattr(transport, name, successor)
    else:
        observer.forward_to(successor)
    successor.makeConnection(transport)


@implementer(IHalfCloseableProtocol)
class ProtocolSwitch(Protocol):
    """The first protocol of a connection. Subclasses read its beginning, and then call ``hand_over``.

    ``connectionLost`` is called at the end of the connection in any case. A subclass that overrides it calls
    this class's method as well.
    """

    _successor: IProtocol | None = None

    def hand_over(self, successor: IProtocol) -> None:
        """Switch to ``successor`` and stay as the observer; see ``switch_protocol``."""
        assert self.transport is not None, "a connection is handed over after connectionMade"
        switch_protocol(self.transport, successor, observer=self)

    def forward_to(self, successor: IProtocol) -> None:
        """Forward everything to ``successor`` from now on."""
        self._successor = successor
        receive = successor.receive_late if isinstance(successor, ProtocolSwitch) else successor.dataReceived
        self.dataReceived = receive  # type: ignore[method-assign]  # without a call in between

    def receive_late(self, data: bytes) -> None:
        """Receive data from another ``ProtocolSwitch``, which must not keep our ``dataReceived``."""
        self.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the end of the connection to the successor."""
        if self._successor is not None:
            self._successor.connectionLost(reason)

    def readConnectionLost(self) -> None:
        """Forward the peer's end of data; close if the protocol cannot half-close."""
        half = IHalfCloseableProtocol(self._successor, None)
        if half is not None:
            half.readConnectionLost()
        elif self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Forward the end of our data."""
        half = IHalfCloseableProtocol(self._successor, None)
        if half is not None:
            half.writeConnectionLost()
