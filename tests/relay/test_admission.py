"""Admission: addresses, rates and limits of connections, trusted proxies, byte rates and stalls."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import Clock

from seance.core.flow_gate import FlowGate, RateLimit
from seance.core.settings import RelaySettings
from seance.core.token_bucket import TokenBucket
from seance.errors import ConfigError, Refusal
from seance.heads import RequestReader
from seance.relay.edge import admission as admission_module
from seance.relay.edge.admission import BURST_SECONDS, LOOPBACK, Admission, Visit, holder_of
from seance.relay.edge.trusted_proxies import TrustedProxies, peer_host
from seance.relay.service import Relay
from tests.relay.rig import Player, Rig, check_is_prompt, reactor, request, turn, until


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(Refusal) as refusal:
        call(*args)
    assert refusal.value.status == 429
    return refusal.value.code


# Addresses


@pytest.mark.parametrize(
    ("address", "holder"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("::1", LOOPBACK),
        ("127.0.0.9", LOOPBACK),
        ("local", "local"),
    ],
)
def test_addresses_are_grouped_as_they_are_assigned(address: str, holder: str) -> None:
    assert holder_of(address) == holder


def test_connections_per_address_are_limited() -> None:
    admission = Admission(RelaySettings(connections_per_address=2))
    held = [admission.enter("203.0.113.7"), admission.enter("203.0.113.7")]
    assert code_of(admission.enter, "203.0.113.7") == "address_full"
    admission.enter("203.0.113.8")
    admission.leave(held[0])
    admission.enter("203.0.113.7")
    assert admission.open_count == 3


def test_loopback_is_exempt_from_the_limit_per_address() -> None:
    admission = Admission(RelaySettings(connections_per_address=1, upgrades_per_address=1))
    for _ in range(50):
        admission.enter("127.0.0.1")
        admission.count_visit(Visit.CLIENT, "::1", 0.0)
    assert admission.open_count == 50


def test_reserved_connections_are_for_agents_only() -> None:
    admission = Admission(RelaySettings(connections=2, reserved_connections=1))
    for _ in range(3):
        assert not admission.is_full
        admission.enter("127.0.0.1")
    assert admission.is_full
    assert code_of(admission.count_visit, Visit.CLIENT, "127.0.0.1", 0.0) == "relay_full"
    assert code_of(admission.count_visit, Visit.STATUS, "127.0.0.1", 0.0) == "relay_full"
    admission.count_visit(Visit.AGENT, "127.0.0.1", 0.0)


def test_descriptors_limit_the_connections_in_the_settings() -> None:
    admission = Admission(RelaySettings(connections=1000, reserved_connections=10), descriptors=100)
    assert (admission.max_connections, admission.max_clients) == (100, 90)
    few = Admission(RelaySettings(), descriptors=205)
    assert (few.max_connections, few.max_clients, few.max_waiting) == (205, 164, 32)


@pytest.mark.parametrize("visit", Visit)
def test_upgrades_have_a_rate_limit_with_a_burst(visit: Visit) -> None:
    """Each kind of visit has its own bucket: the other two are not charged."""
    admission = Admission(RelaySettings(upgrades_per_address=1, upgrades_per_room=1))
    for kind, count, name in (
        ("address_rate", admission.count_visit, "203.0.113.7"),
        ("room_rate", admission.count_for_room, "r"),
    ):
        for _ in range(int(BURST_SECONDS)):
            count(visit, name, 0.0)
        assert code_of(count, visit, name, 0.0) == kind
        count(visit, name, 1.0)
        assert code_of(count, visit, name, 1.0) == kind
        for other in set(Visit) - {visit}:
            count(other, name, 0.0)


def test_a_refunded_visit_does_not_count() -> None:
    admission = Admission(RelaySettings(upgrades_per_address=1))
    for _ in range(100):
        admission.count_visit(Visit.CLIENT, "203.0.113.7", 0.0)
        admission.take_back_visit(Visit.CLIENT, "203.0.113.7", 0.0)


def test_agents_with_identities_have_separate_rates() -> None:
    admission = Admission(RelaySettings(upgrades_per_room=1))
    for _ in range(int(BURST_SECONDS)):
        admission.count_for_room(Visit.AGENT, "r", 0.0, identity="stranger")
    assert (
        code_of(partial(admission.count_for_room, identity="stranger"), Visit.AGENT, "r", 0.0) == "room_rate"
    )
    admission.count_for_room(Visit.AGENT, "r", 0.0, identity="host")


def test_a_limited_agent_gets_a_short_retry_time() -> None:
    """A session is kept for 45 s."""
    admission = Admission(RelaySettings(connections_per_address=0, upgrades_per_room=0))
    with pytest.raises(Refusal) as unread:
        admission.enter("203.0.113.7")
    assert unread.value.headers == ((b"Retry-After", b"2"),)
    for visit, seconds in ((Visit.AGENT, b"2"), (Visit.CLIENT, b"5"), (Visit.STATUS, b"5")):
        admission.count_for_room(visit, "r", 0.0)
        with pytest.raises(Refusal) as refusal:
            admission.count_for_room(visit, "r", 0.0)
        assert refusal.value.headers == ((b"Retry-After", seconds),)


def test_the_number_of_buckets_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_RATES", 4)
    admission = Admission(RelaySettings())
    for number in range(100):
        admission.count_visit(Visit.CLIENT, f"203.0.113.{number}", 0.0)
        admission.count_for_room(Visit.CLIENT, f"r{number}", 0.0)
    assert len(admission._rates) == 4


def test_a_bucket_returns_the_time_until_it_has_a_token() -> None:
    bucket = TokenBucket(100, 100, 0.0)
    assert bucket.charge(100, 0.0) == 0.0
    assert bucket.charge(50, 0.0) == 0.5
    assert bucket.charge(0, 0.5) == 0.0
    assert not bucket.take(1, 0.5)


# Trusted proxies


def sent_with(*fields: str) -> Any:
    reader = RequestReader()
    return reader.receive(request("/client?room=r", *fields))


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        ("198.51.100.1", ("X-Forwarded-For: 6.6.6.6",), "198.51.100.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("X-Forwarded-For: 203.0.113.7",), "203.0.113.7"),
        ("10.0.0.1", ("X-Forwarded-For: 6.6.6.6, 203.0.113.7",), "203.0.113.7"),
        ("10.0.0.1", ("X-Forwarded-For: 203.0.113.7, 10.0.0.2",), "203.0.113.7"),
        ("10.0.0.1", ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.7"), "203.0.113.7"),
        ("10.0.0.1", ("X-Forwarded-For: unknown, 10.0.0.2",), "10.0.0.2"),
        ("::ffff:10.0.0.1", ("X-Forwarded-For: 203.0.113.7",), "203.0.113.7"),
        ("local", ("X-Forwarded-For: 203.0.113.7",), "local"),
    ],
)
def test_forwarded_addresses_are_read_from_the_right_behind_trusted_proxies(
    peer: str, fields: tuple[str, ...], client: str
) -> None:
    assert TrustedProxies(("10.0.0.0/8",)).client_of(peer, sent_with(*fields)) == client


def test_an_invalid_trusted_proxy_is_one_message() -> None:
    with pytest.raises(ConfigError, match="not an address or network"):
        TrustedProxies(("proxy.example",))


@ensureDeferred
async def test_the_local_server_gets_the_client_address_from_a_trusted_proxy() -> None:
    async with Rig(relay={"trusted_proxy": ("127.0.0.1",)}) as rig:
        fields = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https")
        await rig.connect(request("/client?room=r", *fields))
        head = (await rig.local()).received
        assert head.count(b"X-Forwarded-For: 203.0.113.7\r\n") == 1
        assert b"X-Forwarded-Proto: https\r\n" in head


@ensureDeferred
async def test_clients_behind_a_trusted_proxy_count_by_their_own_addresses() -> None:
    async with Rig(relay={"trusted_proxy": ("127.0.0.1",), "connections_per_address": 1}) as rig:
        for expected, client in ((101, "203.0.113.7"), (429, "203.0.113.7"), (101, "203.0.113.8")):
            player = await rig.connect(request("/client?room=r", f"X-Forwarded-For: {client}"))
            if expected == 101:
                await until(lambda: rig.relay.rooms.client_count)
            else:
                await player.ends()
                assert status(player.received) == 429
        await until(lambda: rig.relay.rooms.client_count == 2)


@ensureDeferred
async def test_the_proxy_protocol_is_accepted_from_a_trusted_proxy_only() -> None:
    listen = ("haproxy:tcp:0:interface=127.0.0.1",)
    line = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n"
    async with Rig(relay={"listen": listen, "trusted_proxy": ("127.0.0.1",)}, with_agent=False) as rig:
        client = await rig.connect(line + b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.ends()
        assert status(client.received) == 200
    async with Rig(relay={"listen": listen}, with_agent=False) as rig:
        client = await rig.connect(line + b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.goes()
        assert not client.received


@ensureDeferred
async def test_a_carrier_behind_the_proxy_protocol_writes_immediately() -> None:
    listen = ("haproxy:tcp:0:interface=127.0.0.1",)
    async with Rig(relay={"listen": listen, "trusted_proxy": ("127.0.0.1",)}, with_agent=False) as rig:
        agent = await rig.connect(b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n" + request("/agent?room=a"))
        await agent.receives(b" 101 ")
        link: Any = rig.relay.rooms.link_of("a")
        check_is_prompt(link._below)
        agent.leg.abortConnection()


@ensureDeferred
async def test_a_connection_over_a_unix_socket_is_local(tmp_path: Path) -> None:
    """It is exempt from the limit per address, and a proxy there can be trusted."""
    path = tmp_path / "relay"
    limits = {"listen": (f"unix:{path}",), "connections_per_address": 1, "trusted_proxy": ("127.0.0.1",)}
    relay = Relay(reactor, RelaySettings(**limits))  # type: ignore[arg-type]
    relay.startService()
    await relay.when_listening()
    players = [Player() for _ in range(3)]
    for player in players:
        await connectProtocol(UNIXClientEndpoint(reactor, str(path)), player)
        player.send(b"GET /health HTTP/1.1\r\n")
    await until(lambda: relay.front.admission.open_count == len(players))
    assert relay.front.proxies.trusts(peer_host(players[0].leg))
    for player in players:
        player.send(b"Host: h\r\n\r\n")
        await player.ends()
        assert status(player.received) == 200
        player.leg.abortConnection()
        await player.goes()
    await relay.stopService()


# The frontend


@ensureDeferred
async def test_a_full_relay_stops_accepting_until_a_connection_closes() -> None:
    limits = {"connections": 1, "reserved_connections": 1}
    async with Rig(relay=limits, with_agent=False) as rig:
        first = await rig.connect(request("/agent?room=a"))
        await until(lambda: rig.relay.rooms.room_count == 1)
        second = await rig.connect(request("/agent?room=b"))
        await until(lambda: rig.relay.rooms.room_count == 2)
        assert rig.relay.front.admission.is_full
        third = await rig.connect(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await turn(0.05)
        assert rig.relay.front.admission.open_count == 2
        first.leg.abortConnection()
        await third.ends()
        assert status(third.received) == 200
        second.leg.abortConnection()


@ensureDeferred
async def test_an_address_with_too_many_connections_gets_429(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "holder_of", lambda address: address)
    async with Rig(relay={"connections_per_address": 1}, with_agent=False) as rig:
        await rig.connect(b"GET /")
        await until(lambda: rig.relay.front.admission.open_count == 1)
        second = await rig.connect()
        await second.ends()
        assert status(second.received) == 429
        assert rig.relay.front.admission.open_count == 1


@ensureDeferred
async def test_a_page_of_a_forbidden_origin_is_refused() -> None:
    async with Rig(relay={"origins": ("https://app.example",)}) as rig:
        client = await rig.connect(request("/client?room=r", "Origin: https://evil.example"))
        await client.ends()
        assert status(client.received) == 403
        await rig.connect(request("/client?room=r", "Origin: https://app.example"))
        await rig.local()


# Byte rates and stalls


class Leg:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


def test_a_gate_resumes_only_when_all_reasons_are_gone() -> None:
    clock, leg = Clock(), Leg()
    gate = FlowGate(clock, leg)  # type: ignore[arg-type]
    gate.pause_for(1.0)
    gate.pause_for(5.0)
    gate.pauseProducing()
    clock.advance(1.0)
    assert "resumeProducing" not in leg.calls
    gate.resumeProducing()
    assert leg.calls[-1] == "resumeProducing"
    gate.pause_for(1.0)
    gate.resumeProducing()
    assert leg.calls[-1] == "pauseProducing"
    clock.advance(1.0)
    assert leg.calls[-1] == "resumeProducing"
    gate.stopProducing()
    assert leg.calls[-1] == "resumeProducing", "what becomes of the leg is the splice's to say"
    assert clock.getDelayedCalls() == []


def test_a_consumer_that_takes_nothing_times_out_and_a_slow_one_does_not() -> None:
    clock, given_up = Clock(), []
    held = [100]
    gate = FlowGate(
        clock,
        Leg(),  # type: ignore[arg-type]
        on_stalled=lambda: given_up.append(clock.seconds()),
        stalled_seconds=30.0,
        unsent_bytes=lambda: held[0],
    )
    gate.pauseProducing()
    gate.pauseProducing()
    clock.advance(30.0)
    held[0] = 100
    assert given_up == [30.0]
    gate.resumeProducing()
    gate.pauseProducing()
    held[0] = 99
    clock.advance(30.0)
    assert given_up == [30.0]
    gate.close()
    assert clock.getDelayedCalls() == []


def test_a_rate_limit_allows_one_second_of_bytes_and_then_pauses() -> None:
    clock = Clock()
    pace = RateLimit(clock, 1000)
    assert pace.spend(1000) == 0.0
    assert pace.spend(500) == 0.5


@ensureDeferred
async def test_a_client_that_reads_nothing_is_cut() -> None:
    async with Rig(relay={"stalled_seconds": 0.2}) as rig:
        client, local = await rig.joined()
        quick, quick_local = await rig.joined()
        client.leg.pauseProducing()
        local.send(b"x" * 30_000_000)
        await local.goes()
        quick_local.send(b"still here")
        await quick.receives(b"still here")
        client.leg.resumeProducing()
        await client.goes()


@ensureDeferred
async def test_a_room_with_a_byte_rate_keeps_it_and_loses_nothing() -> None:
    async with Rig(relay={"bytes_per_second_per_room": 1_000_000}) as rig:
        client, local = await rig.joined()
        began = reactor.seconds()
        local.send(b"x" * 1_600_000)
        await until(lambda: len(client.received) == 1_600_000)
        assert reactor.seconds() - began > 0.2
        client.send(b"y" * 50_000)
        await until(lambda: len(local.received) == 50_000)
