"""Carriers over real sockets, with and without TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.endpoints import HostnameEndpoint, SSL4ServerEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort, IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS

from seance.carrier import Carrier, CarrierAnswerer, RelayAddress, dial
from seance.errors import CarrierLost
from seance.net import tune
from tests.certificates import make_certificate
from tests.ears import Ear, PushSource, pattern
from tests.rigs import ROOM, AgentFrontend, OneByOne

# Twisted passes a server's certificates to pyOpenSSL in a deprecated form.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

KIB = 1024
CERTIFICATE = make_certificate("localhost", "127.0.0.1")


class Relay:
    """Listens on the loopback interface and accepts carriers."""

    def __init__(self, certificate: Any = None) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self._certificate = certificate
        self._port: IListeningPort
        self.far = Ear()
        self.relay_factory = OneByOne()
        self.relay_factory.coming.append(AgentFrontend(CarrierAnswerer(self.reactor), lambda _: self.far))

    async def listen(self, factory: Factory | None = None) -> None:
        if self._certificate is None:
            endpoint: Any = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        else:
            endpoint = SSL4ServerEndpoint(self.reactor, 0, self._certificate.options(), interface="127.0.0.1")
        self._port = await endpoint.listen(factory or self.relay_factory)

    @property
    def number(self) -> int:
        port: Any = self._port.getHost()
        return int(port.port)

    async def dial(self, near: IProtocol, host: str = "localhost", *, trusts: Any = None) -> Any:
        """Dial; a trusted certificate is checked for its own name, independent of ``host``."""
        scheme = "ws" if self._certificate is None else "wss"
        endpoint = None
        if trusts is not None:
            endpoint = wrapClientTLS(
                optionsForClientTLS(host, trustRoot=trusts),
                HostnameEndpoint(self.reactor, b"127.0.0.1", self.number),
            )
        return await dial(
            self.reactor,
            RelayAddress.from_url(f"{scheme}://{host}:{self.number}"),
            ROOM,
            lambda _: near,
            deadline_seconds=10,
            endpoint=endpoint,
        )

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await task.deferLater(self.reactor, 0.001)

    async def stop(self) -> None:
        await self._port.stopListening()


@pytest_twisted.async_yield_fixture(params=[None, CERTIFICATE], ids=["tcp", "tls"])
async def relay(request: pytest.FixtureRequest) -> Any:
    relay = Relay(request.param)
    await relay.listen()
    yield relay
    await relay.stop()


async def join(relay: Relay) -> tuple[Ear, Ear]:
    near = Ear()
    assert await relay.dial(near, trusts=relay._certificate) is near
    await relay.until(lambda: relay.far.transport)
    return near, relay.far


@pytest.mark.parametrize("closer", ["agent", "relay"])
@pytest_twisted.ensureDeferred
async def test_a_carrier_transfers_data_and_closes_normally(relay: Relay, closer: str) -> None:
    near, far = await join(relay)
    for one, other in ((near, far), (far, near)):
        source = PushSource(one.transport, pattern(1024 * KIB))
        source.start()
        await relay.until(lambda other=other: len(other.data) == 1024 * KIB)
        assert other.data == pattern(1024 * KIB)
    one, other = (near, far) if closer == "agent" else (far, near)
    one.transport.write(b"the last word")
    one.transport.loseConnection()
    await relay.until(lambda: near.is_lost and far.is_lost)
    assert other.data.endswith(b"the last word")
    assert near.was_lost_with(ConnectionDone)
    assert far.was_lost_with(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_a_carrier_can_be_cut(relay: Relay) -> None:
    near, far = await join(relay)
    near.transport.abortConnection()
    await relay.until(lambda: near.is_lost and far.is_lost)
    assert near.was_lost_with(ConnectionAborted)
    assert far.was_lost_with(ConnectionLost)


@pytest_twisted.ensureDeferred
async def test_the_socket_of_a_carrier_can_be_tuned(relay: Relay) -> None:
    near, _ = await join(relay)
    assert isinstance(near.transport, Carrier)
    tune(near.transport)
    transport: Any = near.transport.transport
    while not hasattr(transport, "getTcpKeepAlive"):
        transport = transport.transport
    assert transport.getTcpKeepAlive()
    near.transport.abortConnection()
    await relay.until(lambda: near.is_lost and relay.far.is_lost)


async def fails(relay: Relay, host: str, *, trusts: Any = None) -> str:
    near = Ear()
    with pytest.raises(CarrierLost) as caught:
        await relay.dial(near, host, trusts=trusts)
    assert near.told == []
    return caught.value.message.replace(str(relay.number), "PORT")


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_is_an_error() -> None:
    relay = Relay()
    await relay.listen()
    number = relay.number
    await relay.stop()
    with pytest.raises(CarrierLost, match=f"^Nothing listens at the relay's address 127.0.0.1:{number}$"):
        await dial(
            relay.reactor,
            RelayAddress.from_url(f"ws://127.0.0.1:{number}"),
            ROOM,
            lambda _: Ear(),
            deadline_seconds=10,
        )


@pytest_twisted.ensureDeferred
async def test_an_untrusted_certificate_is_rejected() -> None:
    relay = Relay(CERTIFICATE)
    await relay.listen()
    sentence = await fails(relay, "127.0.0.1")
    assert sentence.startswith("The TLS handshake with the relay at 127.0.0.1:PORT failed: ")
    assert "certificate verify failed" in sentence
    assert relay.far.told == []
    await relay.stop()


@pytest_twisted.ensureDeferred
async def test_a_certificate_for_another_name_is_refused() -> None:
    relay = Relay(CERTIFICATE)
    await relay.listen()
    sentence = await fails(relay, "relay.example", trusts=CERTIFICATE)
    assert sentence == "The certificate of the relay at relay.example:PORT is for another name"
    assert relay.far.told == []
    await relay.stop()


@pytest_twisted.ensureDeferred
async def test_tls_to_a_relay_without_tls_fails_with_one_message() -> None:
    relay = Relay()
    await relay.listen()
    relay._certificate = CERTIFICATE
    assert (await fails(relay, "127.0.0.1")).startswith(
        "The TLS handshake with the relay at 127.0.0.1:PORT failed"
    )
    await relay.stop()


@pytest_twisted.ensureDeferred
async def test_no_tls_to_a_relay_with_tls_fails_with_one_message() -> None:
    relay = Relay(CERTIFICATE)
    await relay.listen()
    relay._certificate = None
    sentence = await fails(relay, "127.0.0.1")
    assert "does not speak HTTP" in sentence or "closed the connection" in sentence
    await relay.stop()
