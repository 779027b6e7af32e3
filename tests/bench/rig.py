"""Local servers in the reactor of the test, and their addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol

from seance.bench.local_server import LocalServerFactory
from seance.wsclient.dial import Target

__all__ = ["FixedResponse", "listening", "reactor", "serving"]

reactor: Any = _reactor


@asynccontextmanager
async def listening(factory: IProtocolFactory) -> AsyncIterator[Target]:
    """Listen during the block; the value is the server's address."""
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield Target(False, "127.0.0.1", port.getHost().port)
    finally:
        await maybeDeferred(port.stopListening)


@asynccontextmanager
async def serving() -> AsyncIterator[Target]:
    """Run the local server of ``seance bench`` during the block."""
    async with listening(LocalServerFactory(reactor)) as target:
        yield target


class FixedResponse(Factory):
    """A server that sends the same bytes whenever it receives something.

    Attributes:
        received: Everything its clients have sent.
    """

    noisy = False

    def __init__(self, response: bytes, *, closes: bool = True) -> None:
        self.response = response
        self.closes = closes
        self.received = b""

    def buildProtocol(self, addr: object) -> Protocol:
        server = self

        class Responder(Protocol):
            def dataReceived(self, data: bytes) -> None:
                server.received += data
                assert self.transport is not None
                self.transport.write(server.response)
                if server.closes:
                    self.transport.loseConnection()

        return Responder()
