"""``CachedEndpoint``: the cached address is tried first, then the name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor, tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory
from zope.interface import implementer

from seance.net import CachedEndpoint, cached_endpoint
from seance.net.immediate_write import IMMEDIATE
from tests.deaf import deaf_port
from tests.relay.rig import Player, turn, until

NAME = "local.example"
SECONDS = 5.0


@implementer(IHostnameResolver)
class Names:
    """A resolver with one name that has two addresses; counts its queries."""

    def __init__(self) -> None:
        self.asked = 0

    def resolveHostName(self, receiver: Any, name: str, **said: Any) -> Any:  # noqa: N802  # Twisted's name
        assert name == NAME
        port = said["portNumber"]
        self.asked += 1
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv6Address("TCP", "::1", port))
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", port))
        receiver.resolutionComplete()
        return self


class Server:
    """Accepts connections at an address, and keeps them."""

    def __init__(self) -> None:
        self.players: list[Player] = []

    @asynccontextmanager
    async def at(self, address: str, port: int = 0) -> AsyncIterator[int]:
        kind = TCP6ServerEndpoint if ":" in address else TCP4ServerEndpoint
        listening = await kind(reactor, port, interface=address).listen(_Kept(self.players))
        try:
            yield listening.getHost().port
        finally:
            await listening.stopListening()


class _Kept(Factory):
    noisy = False

    def __init__(self, players: list[Player]) -> None:
        self._players = players

    def buildProtocol(self, addr: object) -> Player:
        self._players.append(Player())
        return self._players[-1]


async def call(endpoint: CachedEndpoint, server: Server) -> str:
    """Connect, exchange a message, and close; return the address."""
    count = len(server.players)
    client: Any = await endpoint.connect(_Kept([]))
    assert client.transport.protocol is client, "there is no wrapper in between"
    client.send(b"up")
    await until(lambda: len(server.players) > count and b"up" in server.players[-1].received)
    server.players[-1].send(b"down")
    await client.receives(b"down")
    reached: str = client.transport.getPeer().host
    client.leg.abortConnection()
    await client.goes()
    await server.players[-1].goes()
    return reached


@pytest.fixture
def names() -> Any:
    names = Names()
    before = reactor.installNameResolver(names)  # type: ignore[attr-defined]
    yield names
    reactor.installNameResolver(before)  # type: ignore[attr-defined]


@ensureDeferred
async def test_a_name_is_resolved_once_for_many_connections(names: Names) -> None:
    server = Server()
    async with server.at("127.0.0.1") as port:
        endpoint = CachedEndpoint(reactor, NAME, port, SECONDS)
        assert [await call(endpoint, server) for _ in range(3)] == ["127.0.0.1"] * 3
    assert names.asked == 1


@ensureDeferred
async def test_a_server_that_moved_to_another_address_of_the_name_is_found(names: Names) -> None:
    server = Server()
    async with server.at("127.0.0.1") as port:
        endpoint = CachedEndpoint(reactor, NAME, port, SECONDS)
        assert await call(endpoint, server) == "127.0.0.1"
    async with server.at("::1", port):
        assert [await call(endpoint, server) for _ in range(2)] == ["::1", "::1"]
    assert names.asked == 2


@ensureDeferred
async def test_a_missing_server_is_an_error_until_it_is_back(names: Names) -> None:
    server = Server()
    async with server.at("127.0.0.1") as port:
        endpoint = CachedEndpoint(reactor, NAME, port, SECONDS)
        await call(endpoint, server)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await endpoint.connect(_Kept([]))
    async with server.at("127.0.0.1", port):
        assert await call(endpoint, server) == "127.0.0.1"


@ensureDeferred
async def test_a_loopback_server_is_connected_in_the_same_turn() -> None:
    server = Server()
    async with server.at("127.0.0.1") as port:
        connecting = CachedEndpoint(reactor, "127.0.0.1", port, SECONDS).connect(_Kept([]))
        assert connecting.called
        client: Any = await connecting
        client.leg.abortConnection()
        await client.goes()


@ensureDeferred
async def test_an_address_that_is_not_loopback_is_connected_by_twisted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    async with server.at("127.0.0.1") as port:
        endpoint = CachedEndpoint(reactor, "127.0.0.1", port, SECONDS)
        monkeypatch.setattr(endpoint, "_loopback", None)
        assert await call(endpoint, server) == "127.0.0.1"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@ensureDeferred
async def test_an_address_is_not_resolved(address: str, names: Names) -> None:
    server = Server()
    async with server.at(address) as port:
        endpoint = CachedEndpoint(reactor, address, port, SECONDS)
        assert await call(endpoint, server) == address
        client: Any = await endpoint.connect(_Kept([]))
        assert type(client.transport) is IMMEDIATE[tcp.Server]
        assert client.transport.getPeer().port == port
        client.leg.abortConnection()
        await client.goes()
    assert names.asked == 0


@ensureDeferred
async def test_a_name_is_resolved_again_after_a_while(names: Names) -> None:
    server = Server()
    async with server.at("127.0.0.1") as port:
        endpoint = CachedEndpoint(reactor, NAME, port, SECONDS)
        assert await call(endpoint, server) == "127.0.0.1"
        async with server.at("::1", port):
            assert await call(endpoint, server) == "127.0.0.1"
            # Not the reactor's clock, because Twisted uses that for its timers while it connects.
            left = endpoint._cached_until - reactor.seconds()  # type: ignore[attr-defined]
            assert 0 < left <= cached_endpoint.CACHE_SECONDS
            endpoint._cached_until -= left
            count = len(server.players)
            client: Any = await endpoint.connect(_Kept([]))
            assert client.transport.getPeer().host == "::1"
            await until(lambda: len(server.players) > count)
            client.leg.abortConnection()
            await client.goes()
            await server.players[-1].goes()
    assert names.asked == 2


@ensureDeferred
async def test_a_silent_cached_address_leaves_time_to_resolve(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_endpoint, "CACHED_TRY_SECONDS", 0.1)
    server = Server()
    with deaf_port() as deaf:
        endpoint = CachedEndpoint(reactor, NAME, deaf, SECONDS)
        async with server.at("::1", deaf):
            assert await call(endpoint, server) == "::1"
            endpoint._cached = endpoint._at("127.0.0.1", False, cached_endpoint.CACHED_TRY_SECONDS)
            assert await call(endpoint, server) == "::1"
    assert names.asked == 2


@ensureDeferred
async def test_a_cancelled_connection_leaves_nothing(names: Names) -> None:
    """The fixture that watches every test would detect leftovers."""
    with deaf_port() as deaf:
        endpoint = CachedEndpoint(reactor, "127.0.0.1", deaf, SECONDS)
        connecting = endpoint.connect(_Kept([]))
        connecting.addErrback(lambda failure: failure.trap(ConnectingCancelledError))
        await turn(0.01)
        assert not connecting.called
        connecting.cancel()
        assert connecting.called
