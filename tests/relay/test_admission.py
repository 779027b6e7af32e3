"""Who may come in and how often; who is inside on which token; how fast and how long they may be."""

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
        ("::1", LOOPBACK),
        ("127.0.0.9", LOOPBACK),
        ("local", "local"),
    ],
)
def test_addresses_are_counted_as_their_owners_hold_them(address: str, holder: str) -> None:
    assert holder_of(address) == holder


def test_one_address_has_only_so_many_connections() -> None:
    admission = Admission(RelaySettings(connections_per_address=2))
    held = [admission.enter("203.0.113.7"), admission.enter("203.0.113.7")]
    assert code_of(admission.enter, "203.0.113.7") == "address_full"
    admission.enter("203.0.113.8")
    admission.leave(held[0])
    admission.enter("203.0.113.7")
    assert admission.open_count == 3


def test_loopback_is_not_counted_by_address() -> None:
    admission = Admission(RelaySettings(connections_per_address=1, upgrades_per_address=1))
    for _ in range(50):
        admission.enter("127.0.0.1")
        admission.count_visit(Visit.CLIENT, "::1", 0.0)
    assert admission.open_count == 50


def test_clients_leave_a_reserve_for_agents() -> None:
    admission = Admission(RelaySettings(connections=2, reserved_connections=1))
    for _ in range(3):
        assert not admission.is_full
        admission.enter("127.0.0.1")
    assert admission.is_full
    assert code_of(admission.count_visit, Visit.CLIENT, "127.0.0.1", 0.0) == "relay_full"
    assert code_of(admission.count_visit, Visit.STATUS, "127.0.0.1", 0.0) == "relay_full"
    admission.count_visit(Visit.AGENT, "127.0.0.1", 0.0)


def test_descriptors_bound_what_settings_promise() -> None:
    admission = Admission(RelaySettings(connections=1000, reserved_connections=10), descriptors=100)
    assert (admission.max_connections, admission.max_clients) == (100, 90)
    few = Admission(RelaySettings(), descriptors=205)
    assert (few.max_connections, few.max_clients, few.max_waiting) == (205, 164, 32)


@pytest.mark.parametrize("visit", Visit)
def test_upgrades_have_a_rate_and_a_burst(visit: Visit) -> None:
    """Each kind of visit has its own: the other two are not charged."""
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


def test_visit_that_is_taken_back_does_not_count() -> None:
    admission = Admission(RelaySettings(upgrades_per_address=1))
    for _ in range(100):
        admission.count_visit(Visit.CLIENT, "203.0.113.7", 0.0)
        admission.take_back_visit(Visit.CLIENT, "203.0.113.7", 0.0)


def test_agents_that_are_told_apart_have_rates_apart() -> None:
    admission = Admission(RelaySettings(upgrades_per_room=1))
    for _ in range(int(BURST_SECONDS)):
        admission.count_for_room(Visit.AGENT, "r", 0.0, identity="stranger")
    assert (
        code_of(partial(admission.count_for_room, identity="stranger"), Visit.AGENT, "r", 0.0) == "room_rate"
    )
    admission.count_for_room(Visit.AGENT, "r", 0.0, identity="host")


def test_agents_are_asked_to_come_again_soon() -> None:
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


def test_remembered_rates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "MAX_RATES", 4)
    admission = Admission(RelaySettings())
    for number in range(100):
        admission.count_visit(Visit.CLIENT, f"203.0.113.{number}", 0.0)
        admission.count_for_room(Visit.CLIENT, f"r{number}", 0.0)
    assert len(admission._rates) == 4


def test_bucket_lends_and_says_for_how_long() -> None:
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
def test_client_address_is_read_from_the_right_behind_trusted_networks_only(
    peer: str, fields: tuple[str, ...], client: str
) -> None:
    assert TrustedProxies(("10.0.0.0/8",)).client_of(peer, sent_with(*fields)) == client


def test_trusted_proxy_that_is_no_network_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="not an address or network"):
        TrustedProxies(("proxy.example",))


@ensureDeferred
async def test_local_server_is_told_the_client_of_a_trusted_proxy() -> None:
    async with Rig(relay={"trusted_proxy": ("127.0.0.1",)}) as rig:
        fields = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https")
        await rig.connect(request("/client?room=r", *fields))
        head = (await rig.local()).received
        assert head.count(b"X-Forwarded-For: 203.0.113.7\r\n") == 1
        assert b"X-Forwarded-Proto: https\r\n" in head


@ensureDeferred
async def test_clients_behind_a_trusted_proxy_are_counted_by_their_own_addresses() -> None:
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
async def test_proxy_protocol_is_believed_from_trusted_proxy_only() -> None:
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
async def test_carrier_behind_the_proxy_protocol_is_as_prompt_as_another() -> None:
    listen = ("haproxy:tcp:0:interface=127.0.0.1",)
    async with Rig(relay={"listen": listen, "trusted_proxy": ("127.0.0.1",)}, with_agent=False) as rig:
        agent = await rig.connect(b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n" + request("/agent?room=a"))
        await agent.receives(b" 101 ")
        link: Any = rig.relay.rooms.link_of("a")
        check_is_prompt(link._below)
        agent.leg.abortConnection()


@ensureDeferred
async def test_who_comes_by_a_unix_socket_is_of_this_machine(tmp_path: Path) -> None:
    """So it is not counted as one stranger, and a proxy there can be trusted."""
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


# The front


@ensureDeferred
async def test_accepting_pauses_when_full_and_goes_on_when_somebody_leaves() -> None:
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
async def test_address_with_too_many_connections_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "holder_of", lambda address: address)
    async with Rig(relay={"connections_per_address": 1}, with_agent=False) as rig:
        await rig.connect(b"GET /")
        await until(lambda: rig.relay.front.admission.open_count == 1)
        second = await rig.connect()
        await second.ends()
        assert status(second.received) == 429
        assert rig.relay.front.admission.open_count == 1


@ensureDeferred
async def test_web_page_that_may_not_connect_is_refused() -> None:
    async with Rig(relay={"origins": ("https://app.example",)}) as rig:
        client = await rig.connect(request("/client?room=r", "Origin: https://evil.example"))
        await client.ends()
        assert status(client.received) == 403
        await rig.connect(request("/client?room=r", "Origin: https://app.example"))
        await rig.local()


# Rate limits and stalled consumers


class Leg:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


def test_gate_resumes_only_when_neither_reason_holds() -> None:
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


def test_consumer_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() -> None:
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


def test_pace_lets_a_seconds_worth_through_and_then_asks_for_rest() -> None:
    clock = Clock()
    pace = RateLimit(clock, 1000)
    assert pace.spend(1000) == 0.0
    assert pace.spend(500) == 0.5


@ensureDeferred
async def test_client_that_takes_nothing_is_cut() -> None:
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
async def test_room_with_a_pace_keeps_it_and_loses_nothing() -> None:
    async with Rig(relay={"bytes_per_second_per_room": 1_000_000}) as rig:
        client, local = await rig.joined()
        began = reactor.seconds()
        local.send(b"x" * 1_600_000)
        await until(lambda: len(client.received) == 1_600_000)
        assert reactor.seconds() - began > 0.2
        client.send(b"y" * 50_000)
        await until(lambda: len(local.received) == 50_000)
