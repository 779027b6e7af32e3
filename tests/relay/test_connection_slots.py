"""Connection slots: limits by address, before the head, behind proxies, and for the last slots."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from seance.relay.edge import admission as admission_module
from seance.relay.service import Relay
from tests.certificates import Authority
from tests.relay.rig import Player, Rig, request, turn, until
from tests.tls.rig import TlsRig

PROXIED: dict[str, Any] = {
    "listen": ("haproxy:tcp:0:interface=127.0.0.1",),
    "trusted_proxy": ("127.0.0.1",),
}
LINE = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n"


def status(player: Player) -> int:
    return int(player.received.split(b" ", 2)[1])


@pytest.fixture
def loopback_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count loopback like any other address."""
    monkeypatch.setattr(admission_module, "holder_of", lambda address: address)


# Before the head


@ensureDeferred
@pytest.mark.usefixtures("loopback_counts")
async def test_silent_connections_per_address_are_limited_and_others_unaffected() -> None:
    limits = {"unanswered_connections_per_address": 2, "listen": ("tcp:0:interface=0.0.0.0",), "open": True}
    async with Rig(relay=limits, with_agent=False) as rig:
        front = rig.relay.front
        other = await rig.connect(b"GET /", bind="127.0.0.2")
        await until(lambda: front.unanswered_count == 1)
        clients = []
        for number in range(4):
            clients.append(await rig.connect(b"GET /"))
            await until(lambda number=number: front.unanswered_count == 1 + min(number + 1, 2))
        for client in clients[:2]:
            assert (await client.goes()).check(ConnectionLost)
        assert [client.lost for client in (*clients[2:], other)] == [None] * 3
        for client in (*clients[2:], other):
            client.leg.abortConnection()
        await until(lambda: front.unanswered_count == 0)
        assert front.pending._of_holder == {}


@ensureDeferred
@pytest.mark.usefixtures("loopback_counts")
async def test_a_trusted_proxy_has_only_the_total_limit_of_silent_connections() -> None:
    limits = {"unanswered_connections_per_address": 1, "trusted_proxy": ("127.0.0.1",)}
    async with Rig(relay=limits, with_agent=False) as rig:
        for _ in range(3):
            await rig.connect(b"GET /")
        await until(lambda: rig.relay.front.unanswered_count == 3)


@ensureDeferred
async def test_an_incomplete_head_gets_408_after_the_timeout() -> None:
    async with Rig(relay={"head_seconds": 0.1}, with_agent=False) as rig:
        client = await rig.connect(b"GET /client?ro")
        await client.ends()
        assert status(client) == 408
        assert b"Connection: close\r\n" in client.received
        assert rig.relay.front.unanswered_count == 0


@ensureDeferred
@pytest.mark.usefixtures("loopback_counts")
async def test_too_many_connections_of_one_address_are_cut_before_the_handshake(tmp_path: Path) -> None:
    """They are not counted, so they must not wait for a handshake that never comes."""
    async with TlsRig(Authority(tmp_path), relay={"connections_per_address": 1}, with_agent=False) as rig:
        await rig.connect_plainly()
        await until(lambda: rig.relay.front.admission.open_count == 1)
        for _ in range(3):
            await (await rig.connect_plainly()).goes()
        assert rig.relay.front.admission.open_count == 1


# The last slots


@ensureDeferred
async def test_silent_connections_do_not_keep_an_agent_out_of_a_full_relay() -> None:
    limits = {"connections": 1, "reserved_connections": 3, "head_seconds": 60.0}
    async with Rig(relay=limits, with_agent=False) as rig:
        silent = [await rig.connect(b"GET /") for _ in range(12)]
        await rig.attach()
        assert rig.relay.rooms.room_count == 1
        assert sum(client.lost is None for client in silent) < 4
        for client in silent:
            if client.lost is None:
                client.leg.abortConnection()


@ensureDeferred
async def test_refused_clients_that_stay_do_not_keep_an_agent_out_of_a_full_relay() -> None:
    limits = {"connections": 1, "reserved_connections": 3}
    async with Rig(relay=limits, with_agent=False) as rig:
        refused = [await rig.connect(request("/nowhere")) for _ in range(12)]
        await rig.attach()
        assert rig.relay.rooms.room_count == 1
        for client in refused:
            await client.receives(b"Unknown path")
        assert len(rig.relay.front.closing) < 4


def test_each_connection_without_a_slot_closes_another_refused_one() -> None:
    """Several connections may be accepted in one turn, before the first one that was closed is gone."""
    front: Any = Relay(Clock()).front
    closed: list[str] = []
    for name in "ab":
        refused = Mock(close_answered=partial(closed.append, name))
        front.refused[refused] = None
    front._free_slot()
    front._free_slot()
    assert closed == ["a", "b"]


# Behind proxies


@ensureDeferred
async def test_the_local_server_gets_the_address_of_the_proxy_protocol() -> None:
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        agent = await rig.connect(LINE + request("/agent?room=r"))
        await agent.receives(b"\r\n\r\n")
        await rig.connect(LINE + request("/client?room=r", "X-Forwarded-For: 6.6.6.6"))
        await agent.receives(b"X-Forwarded-For: 203.0.113.7\r\n")
        assert b"6.6.6.6" not in agent.received


@ensureDeferred
async def test_clients_of_the_proxy_protocol_count_by_their_own_addresses() -> None:
    async with Rig(relay={**PROXIED, "connections_per_address": 1}, with_agent=False) as rig:
        agent = await rig.connect(LINE.replace(b".7", b".9") + request("/agent?room=r"))
        await agent.receives(b"\r\n\r\n")
        await rig.connect(LINE + request())
        await until(lambda: rig.relay.rooms.client_count == 1)
        second = await rig.connect(LINE + request())
        await second.ends()
        assert status(second) == 429
        await rig.connect(LINE.replace(b".7", b".8") + request())
        await until(lambda: rig.relay.rooms.client_count == 2)


@ensureDeferred
async def test_a_room_of_our_agent_has_the_configured_limit() -> None:
    async with Rig(relay={"streams_per_agent": 2}) as rig:
        await rig.joined()
        await rig.joined()
        third = await rig.connect(request())
        await third.ends()
        assert status(third) == 429
        assert b"Retry-After: " in third.received
        await turn()


# At the end


@ensureDeferred
async def test_a_stopping_relay_does_not_wait_for_refused_clients() -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(request("/nowhere"))
        await client.receives(b"Unknown path")
        # It does not close, so the relay would wait for two seconds.
        assert len(rig.relay.front.closing) == 1
        await rig.relay.stopService()
        await turn()
        assert rig.relay.front.closing == {}
