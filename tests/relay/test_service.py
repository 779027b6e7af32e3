"""The relay as a service: listening, its errors, and stopping."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from seance.core.settings import RelaySettings
from seance.errors import ConfigError
from seance.relay import listeners
from seance.relay.service import Relay
from tests.conftest import Watch
from tests.relay.rig import Rig, reactor, request, until


@ensureDeferred
async def test_the_default_is_loopback_in_both_families_on_one_port() -> None:
    relay = Relay(reactor, RelaySettings(port=0))
    relay.startService()
    hosts = [port.getHost() for port in await relay.when_listening()]
    assert hosts[0].host == "127.0.0.1"
    assert {host.host for host in hosts} <= {"127.0.0.1", "::1"}
    assert len({host.port for host in hosts}) == 1
    await relay.stopService()


@ensureDeferred
async def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    listen = reactor.listenTCP

    def without_six(port: int, factory: object, backlog: int = 50, interface: str = "") -> object:
        if ":" in interface:
            from twisted.internet.error import CannotListenError

            raise CannotListenError(interface, port, OSError(99, "Cannot assign requested address"))
        return listen(port, factory, backlog, interface)

    monkeypatch.setattr(reactor, "listenTCP", without_six)
    relay = Relay(reactor, RelaySettings(port=0))
    relay.startService()
    assert len(await relay.when_listening()) == 1
    await relay.stopService()


@ensureDeferred
async def test_a_port_in_use_is_an_error_immediately_and_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        listen = ("tcp:0:interface=127.0.0.1", f"tcp:{number}:interface=127.0.0.1")
        relay = Relay(reactor, RelaySettings(listen=listen))
        with pytest.raises(ConfigError, match=f"cannot listen on tcp:{number}.*in use.*--listen"):
            relay.startService()
        with pytest.raises(ConfigError):
            await relay.when_listening()
        assert not relay.running


@ensureDeferred
async def test_a_port_in_use_in_the_second_family_is_an_error_too() -> None:
    try:
        taken = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("needs IPv6 on loopback")
    with taken:
        relay = Relay(reactor, RelaySettings(port=taken.getsockname()[1]))
        with pytest.raises(ConfigError, match="cannot listen on"):
            relay.startService()


@pytest.mark.parametrize("text", ["nonsense", "tcp:x", "bogus:1", "ssl:0:privateKey=/nowhere.pem"])
def test_an_invalid_listen_endpoint_is_one_message(text: str) -> None:
    relay = Relay(reactor, RelaySettings(listen=(text,)))
    with pytest.raises(ConfigError, match="cannot be read"):
        relay.startService()


@pytest.mark.slow
@ensureDeferred
async def test_stopping_closes_agents_and_cuts_other_connections() -> None:
    async with Rig(relay={"drain_try_seconds": 0.1}) as rig:
        stranger = await rig.connect(b"GET /")
        client, local = await rig.joined()
        stopping = rig.relay.stopService()
        await client.ends()
        client.leg.loseConnection()
        await stopping
        await stranger.goes()
        await client.goes()
        await until(lambda: local.has_ended or local.lost)
        assert rig.relay.rooms.room_count == 0
        assert rig.relay.rooms.client_count == 0


@ensureDeferred
async def test_stopping_does_not_wait_for_an_agent_that_does_not_close() -> None:
    async with Rig(relay={"drain_seconds": 0.05}) as rig:
        relay_link = rig.agent._relay_link
        assert relay_link is not None
        assert relay_link.carrier is not None
        raw: Any = relay_link.carrier.transport
        raw.pauseProducing()
        await rig.relay.stopService()
        assert rig.relay.rooms.room_count == 0
        raw.resumeProducing()
        await until(lambda: rig.agent.status.state.value in ("waiting", "resuming"))


@ensureDeferred
async def test_a_stopped_relay_can_be_started_again() -> None:
    async with Rig(with_agent=False) as rig:
        await rig.relay.stopService()
        rig.relay.startService()
        ports = await rig.relay.when_listening()
        rig.port = ports[0].getHost().port
        client = await rig.connect(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.ends()


@ensureDeferred
async def test_rooms_are_separate() -> None:
    async with Rig() as rig:
        await rig.attach(room="other")
        assert rig.relay.rooms.room_count == 2
        await rig.connect(request("/c/other/doc"))
        assert (await rig.local()).received.startswith(b"GET /doc ")
        assert rig.relay.rooms._table.find("r").stream_count == 0
        assert rig.relay.rooms._table.find("other").stream_count == 1
        assert rig.relay.rooms.client_count == 1


@ensureDeferred
async def test_an_endpoint_that_fails_later_is_logged_and_fails_the_deferred(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twisted's endpoints fail immediately; others, that ask another service first, fail later."""
    listening: Deferred[Any] = Deferred()
    late = SimpleNamespace(listen=lambda factory: listening)
    monkeypatch.setattr(listeners, "server_endpoint", lambda *_, **__: late)
    relay = Relay(reactor, RelaySettings(listen=("onion:80",)))
    relay.startService()
    waiting = relay.when_listening()
    listening.errback(CannotListenError("", 80, OSError(98, "Address already in use")))
    with pytest.raises(ConfigError, match="cannot listen on onion:80"):
        await waiting
    assert not relay.is_ready
    await relay.stopService()
    assert [event["event"] for event in watch.take()] == ["relay.listen_failed"]
