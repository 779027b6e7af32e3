"""The local server of a benchmark."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from seance.bench.local_server import LocalServerFactory
from seance.wsclient import WsConnection, dial, exchange
from seance.wsclient.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload, encode
from tests.bench.rig import listening, reactor, serving


@pytest_twisted.ensureDeferred
async def test_frames_are_echoed_one_for_one() -> None:
    async with serving() as target:
        client = await WsConnection.open(reactor, target)
        sent = [Frame(TEXT, b"a", is_final=False), Frame(PING, b"p"), Frame(0, b"b"), Frame(BINARY, b"c")]
        client.send(*sent)
        received = [await client.receive() for _ in sent]
        assert received == [sent[0], Frame(PONG, b"p"), *sent[2:]]
        client.send(Frame(CLOSE, close_payload(4001, "why")))
        assert await client.receive() == Frame(CLOSE, close_payload(4001, "why"))
        await client.when_eof()
        client.abort()


@pytest_twisted.ensureDeferred
async def test_a_message_to_fan_is_sent_to_all_clients_of_fan_only() -> None:
    async with serving() as target:
        members = [await WsConnection.open(reactor, target.at("fan")) for _ in range(3)]
        other = await WsConnection.open(reactor, target)
        members[0].send(Frame(TEXT, b"all"))
        assert [await member.receive() for member in members] == [Frame(TEXT, b"all")] * 3
        other.send(Frame(TEXT, b"echo"))
        assert await other.receive() == Frame(TEXT, b"echo")
        for client in [*members, other]:
            client.abort()


@pytest_twisted.ensureDeferred
async def test_a_client_that_ends_is_unregistered() -> None:
    factory = LocalServerFactory(reactor)
    async with listening(factory) as target:
        client = await WsConnection.open(reactor, target)
        client.send(Frame(TEXT))
        await client.receive()
        assert len(factory.connections) == 1
        client.send_eof()
        await client.when_eof()
        assert not factory.connections
        client.abort()


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    """The data stays with the client instead of the server's memory."""
    factory = LocalServerFactory(reactor)
    async with listening(factory) as target:
        client = Protocol()
        await dial(reactor, target, client)
        client.transport.pauseProducing()  # type: ignore[union-attr]  # it is connected
        frame = encode(Frame(BINARY, bytes(1 << 20)), mask=b"abcd")
        for _ in range(32):
            client.transport.write(frame)  # type: ignore[union-attr]
        for _ in range(20):
            await deferLater(reactor, 0.01)
        [connection] = factory.connections
        held = len(connection.tcp.dataBuffer) + connection.tcp._tempDataLen
        assert 0 < held < 8 << 20
        client.transport.abortConnection()  # type: ignore[union-attr]


@pytest_twisted.ensureDeferred
async def test_a_request_without_upgrade_is_refused() -> None:
    async with serving() as target:
        endpoint, fields = target.endpoint(reactor), {"Host": "localhost"}
        response = await exchange(reactor, endpoint, "/", fields, None, name="h", deadline_seconds=5)
    assert response.status == 426
