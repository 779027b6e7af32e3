"""A local server in the test's own reactor, and ways to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol

from seance.bench.dialling import Target
from seance.bench.local_server import LocalServerFactory

__all__ = ["Saying", "listening", "reactor", "serving"]

reactor: Any = _reactor


@asynccontextmanager
async def listening(factory: IProtocolFactory) -> AsyncIterator[Target]:
    """Any server for the time of a block; gives where it is."""
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield Target(False, "127.0.0.1", port.getHost().port)
    finally:
        await maybeDeferred(port.stopListening)


@asynccontextmanager
async def serving() -> AsyncIterator[Target]:
    """The local server of a bench."""
    async with listening(LocalServerFactory()) as target:
        yield target


class Saying(Factory):
    """A server that says the same to everybody, whatever it is told, and hangs up if it is asked to."""

    noisy = False

    def __init__(self, words: bytes, *, hangs_up: bool = True) -> None:
        self.words = words
        self.hangs_up = hangs_up
        self.connections: list[Protocol] = []

    def buildProtocol(self, addr: object) -> Protocol:
        server = self

        class Saying(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(server.words)
                if server.hangs_up:
                    self.transport.loseConnection()

        return Saying()
