"""The local server of a bench."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from seance.bench.local_server import LocalServerFactory
from seance.wsclient import WsConnection
from seance.wsclient.dial import dial
from seance.wsclient.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload, encode
from tests.bench.rig import listening, reactor, serving


@pytest_twisted.ensureDeferred
async def test_frames_come_back_one_for_one() -> None:
    async with serving() as target:
        talk = await WsConnection.open(reactor, target)
        sent = [Frame(TEXT, b"a", is_final=False), Frame(PING, b"p"), Frame(0, b"b"), Frame(BINARY, b"c")]
        talk.send(*sent)
        heard = [await talk.receive() for _ in sent]
        assert heard == [sent[0], Frame(PONG, b"p"), *sent[2:]]
        talk.send(Frame(CLOSE, close_payload(4001, "why")))
        assert await talk.receive() == Frame(CLOSE, close_payload(4001, "why"))
        await talk.when_eof()
        talk.abort()


@pytest_twisted.ensureDeferred
async def test_what_one_says_on_the_fan_everybody_there_hears_and_nobody_else() -> None:
    async with serving() as target:
        there = [await WsConnection.open(reactor, target.at("fan")) for _ in range(3)]
        elsewhere = await WsConnection.open(reactor, target)
        there[0].send(Frame(TEXT, b"all"))
        assert [await talk.receive() for talk in there] == [Frame(TEXT, b"all")] * 3
        elsewhere.send(Frame(TEXT, b"alone"))
        assert await elsewhere.receive() == Frame(TEXT, b"alone")
        for talk in [*there, elsewhere]:
            talk.abort()


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_is_forgotten() -> None:
    factory = LocalServerFactory()
    async with listening(factory) as target:
        talk = await WsConnection.open(reactor, target)
        talk.send(Frame(TEXT))
        await talk.receive()
        assert len(factory.conversations) == 1
        talk.send_eof()
        await talk.when_eof()
        assert not factory.conversations
        talk.abort()


@pytest_twisted.ensureDeferred
async def test_who_takes_nothing_is_not_read() -> None:
    """What it repeats stays in the client's own hands, not in its memory."""
    factory = LocalServerFactory()
    async with listening(factory) as target:
        client = Protocol()
        await dial(reactor, target, client)
        client.transport.pauseProducing()  # type: ignore[union-attr]  # it is connected
        frame = encode(Frame(BINARY, bytes(1 << 20)), mask=b"abcd")
        for _ in range(32):
            client.transport.write(frame)  # type: ignore[union-attr]
        for _ in range(20):
            await deferLater(reactor, 0.01)
        [conversation] = factory.conversations
        held = len(conversation.leg.dataBuffer) + conversation.leg._tempDataLen
        assert 0 < held < 8 << 20
        client.transport.abortConnection()  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_what_is_no_upgrade_is_refused() -> None:
    class Asking(Protocol):
        heard = b""

        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

        def dataReceived(self, data: bytes) -> None:
            self.heard += data

        def connectionLost(self, reason: object = None) -> None:
            ended.callback(self.heard)

    ended: Deferred[bytes] = Deferred()
    async with serving() as target:
        await connectProtocol(TCP4ClientEndpoint(reactor, target.host, target.port), Asking())
        assert (await ended).startswith(b"HTTP/1.1 426 ")
