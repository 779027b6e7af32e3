"""Twisted's TLS transport, with the two things that a public server misses in it.

It waits for the other end's goodbye without a bound (twisted#7926): whoever never says one keeps a
connection, and what stands behind it, for ever. And whoever speaks plain HTTP to it is hung up on
without a word, where one sentence would tell a person what to write instead.
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

from seance.errors import Refusal
from seance.heads import refusal_response
from seance.net.legs import end, unsent_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["TlsFactory"]

GOODBYE_SECONDS = 5.0
"""From one look at a connection that is being closed to the next."""


class TlsFactory(TLSMemoryBIOFactory):
    """Makes TLS transports around the protocols of another factory.

    Args:
        creator: Makes OpenSSL's part.
        is_client: Which side this is.
        factory: Makes what speaks inside. Its protocols are connected before the handshake.
        reactor: Where time comes from.
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
    """Twisted's, but a goodbye that is not answered ends it all the same.

    And without the buffer for small writes that Twisted puts before OpenSSL: what comes here was gathered
    already, and what waits in a buffer that takes 64,000 bytes before it says "full", nothing can overtake.
    """

    factory: TlsFactory
    _look_later: IDelayedCall | None = None
    _unsent_bytes = 0

    def loseConnection(self) -> None:
        """Say goodbye once everything written has left, and do not wait for ever for the answer."""
        super().loseConnection()
        if self._look_later is None and self.connected:
            self._wait()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        if self._look_later is not None:
            self._look_later.cancel()
            self._look_later = None
        super().connectionLost(reason)

    def _wait(self) -> None:
        self._unsent_bytes = unsent_bytes(self)
        self._look_later = self.factory.reactor.callLater(GOODBYE_SECONDS, self._look)

    def _look(self) -> None:
        self._look_later = None
        connection: SSL.Connection = self.getHandle()
        unsent = unsent_bytes(self)
        if not connection.get_shutdown() & SSL.SENT_SHUTDOWN or 0 < unsent < self._unsent_bytes:
            self._wait()
        elif unsent:
            # Nothing has left meanwhile, so nothing will.
            self.abortConnection()
        else:
            transport: Any = self.transport
            transport.loseConnection()


class ServerTlsTransport(TlsTransport):
    """And with an answer for those who do not speak TLS."""

    def dataReceived(self, data: bytes) -> None:
        """Look at the first bytes: a TLS record begins with 22 here, an HTTP request with a letter."""
        if data[:1].isalpha():
            self._answer_plainly()
            return
        # From here on Twisted's own method, without a detour.
        self.dataReceived = super().dataReceived  # type: ignore[method-assign]  # once, for speed
        self.dataReceived(data)

    def _answer_plainly(self) -> None:
        self.dataReceived = _ignore  # type: ignore[method-assign]  # nothing more is read from this one
        sentence = "This address speaks TLS: write wss:// or https:// in place of ws:// or http://."
        transport: Any = self.transport
        transport.write(refusal_response(Refusal(400, sentence, code="tls_expected")))
        # Only this half: closing with bytes unread would reset the connection and destroy the answer.
        # The far side closes the other half, or whoever waits for a head inside loses patience.
        end(transport)


def _ignore(data: bytes) -> None:
    """What comes is for nobody."""
