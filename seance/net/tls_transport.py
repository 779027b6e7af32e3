"""Twisted's TLS transport with two additions for a public server.

Twisted waits for the peer's ``close_notify`` without a time limit (twisted#7926), so a peer that never sends
it keeps its connection open. And it closes a connection with plain HTTP without a response, where an error
message tells the user what to change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from seance.heads import refusal_response
from seance.heads.refusals import refusal
from seance.net.legs import end, unsent_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["TlsFactory"]

CLOSE_CHECK_SECONDS = 5.0
"""Interval between two checks of a connection that is being closed."""


class TlsFactory(TLSMemoryBIOFactory):
    """Makes TLS transports around the protocols of another factory.

    Args:
        creator: Creates the OpenSSL connections.
        is_client: Whether this side is the client.
        factory: Makes the protocols, which are connected before the handshake.
        reactor: Provides the time.
    """

    def __init__(
        self,
        creator: IOpenSSLClientConnectionCreator | IOpenSSLServerConnectionCreator,
        is_client: bool,
        factory: IProtocolFactory,
        reactor: IReactorTime,
    ) -> None:
        super().__init__(creator, is_client, factory, clock=reactor)
        self.protocol = TlsTransport if is_client else ServerTlsTransport
        self.reactor = reactor


class TlsTransport(TLSMemoryBIOProtocol):
    """A TLS transport that closes even if the peer does not answer its ``close_notify``.

    It has no buffer for small writes, which Twisted puts before OpenSSL. Writes are collected already, and
    that buffer holds 64,000 bytes before it is full, which no stream can overtake.
    """

    factory: TlsFactory
    _check_call: IDelayedCall | None = None
    _unsent_bytes = 0

    def loseConnection(self) -> None:
        """Send ``close_notify`` after all written data, and wait a limited time for the answer."""
        super().loseConnection()
        if self._check_call is None and self.connected:
            self._check_later()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the checks."""
        if self._check_call is not None:
            self._check_call.cancel()
            self._check_call = None
        super().connectionLost(reason)

    def _check_later(self) -> None:
        self._unsent_bytes = unsent_bytes(self)
        self._check_call = self.factory.reactor.callLater(CLOSE_CHECK_SECONDS, self._check_close)

    def _check_close(self) -> None:
        self._check_call = None
        connection: SSL.Connection = self.getHandle()
        unsent = unsent_bytes(self)
        if not connection.get_shutdown() & SSL.SENT_SHUTDOWN or 0 < unsent < self._unsent_bytes:
            self._check_later()
        elif unsent:
            self.abortConnection()  # no progress since the last check
        else:
            transport: Any = self.transport
            transport.loseConnection()


class ServerTlsTransport(TlsTransport):
    """A server's TLS transport, which answers plain HTTP with an error message."""

    def dataReceived(self, data: bytes) -> None:
        """Check the first byte: 22 in a TLS record, a letter in an HTTP request."""
        if data[:1].isalpha():
            self._reject_plain_http()
            return
        # Twisted's method is called directly from here on.
        self.dataReceived = super().dataReceived  # type: ignore[method-assign]  # for speed
        self.dataReceived(data)

    def _reject_plain_http(self) -> None:
        self.dataReceived = _ignore  # type: ignore[method-assign]  # drop further data
        transport: Any = self.transport
        transport.write(refusal_response(refusal("tls_expected")))
        # Only this direction is closed: a close with unread data would reset the connection and destroy the
        # response. The peer closes the other one, or the timeout of the protocol inside does.
        end(transport)


def _ignore(data: bytes) -> None:
    """Drop data after an error."""
