"""Clients behind a trusted proxy are counted by their own addresses, in every notation, and are limited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent, globalLogPublisher

from seance.relay.edge.trusted_proxies import UNKNOWN, TrustedProxies
from tests.relay.rig import Player, Rig, request, until
from tests.relay.test_admission import sent_with

BEHIND_PROXY: dict[str, Any] = {"trusted_proxy": ("127.0.0.1",), "connections_per_address": 1}


def status(player: Player) -> int:
    return int(player.received.split(b" ", 2)[1])


@contextmanager
def warnings() -> Iterator[list[LogEvent]]:
    """Collect the warnings about proxies."""
    lines: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if event.get("event") == "proxy.unreadable":
            lines.append(event)

    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


@pytest.mark.parametrize(
    ("peer", "fields", "client", "complaints"),
    [
        ("10.0.0.1", ["203.0.113.7:4711"], "203.0.113.7", 0),
        ("10.0.0.1", ["6.6.6.6", "[2001:db8::7]:4711"], "2001:db8::7", 0),
        ("10.0.0.1", ["203.0.113.7:4711, 10.0.0.2:80"], "203.0.113.7", 0),
        ("10.0.0.1", ["203.0.113.7, [::ffff:10.0.0.2]:80"], "203.0.113.7", 0),
        ("10.0.0.1", ["203.0.113.7,", ""], "203.0.113.7", 0),
        ("10.0.0.1", ["garbage, 203.0.113.7"], "203.0.113.7", 0),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1", 1),
        ("10.0.0.1", ["unknown, 10.0.0.2"], "10.0.0.2", 1),
        ("127.0.0.1", ["203.0.113.7, unix:"], UNKNOWN, 1),
        ("127.0.0.1", ["unknown"], UNKNOWN, 1),
        ("::1", ["unknown, 127.0.0.1"], UNKNOWN, 1),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1", 0),
        ("127.0.0.1", [], "127.0.0.1", 0),
        ("198.51.100.1", ["unknown"], "198.51.100.1", 0),
    ],
)
def test_the_client_is_the_last_entry_that_is_no_proxy_and_an_unreadable_one_is_logged(
    peer: str, fields: list[str], client: str, complaints: int
) -> None:
    told: list[tuple[str, str]] = []
    proxies = TrustedProxies(("10.0.0.0/8", "127.0.0.1", "::1"), lambda *what: told.append(what))
    fields = [f"X-Forwarded-For: {field}" for field in fields]
    assert proxies.client_of(peer, sent_with(*fields)) == client
    assert len(told) == complaints


@pytest.mark.parametrize("field", ["Forwarded: for=203.0.113.7", "X-Real-IP: 203.0.113.7"])
def test_a_proxy_that_sends_only_another_field_is_logged(field: str) -> None:
    told: list[str] = []
    proxies = TrustedProxies(("127.0.0.1",), lambda _, what: told.append(what))
    assert proxies.client_of("127.0.0.1", sent_with(field)) == UNKNOWN
    assert "no X-Forwarded-For" in told[0]
    both = sent_with(field, "X-Forwarded-For: 203.0.113.9")
    assert proxies.client_of("127.0.0.1", both) == "203.0.113.9"
    assert len(told) == 1


@ensureDeferred
@pytest.mark.parametrize("form", ["203.0.113.{}:5678", '"[2001:db8:{}::1]:443"', "::ffff:203.0.113.{}"])
async def test_the_limit_per_address_holds_in_every_notation(form: str) -> None:
    """Fast reject and frontend count alike: one client per address, in every notation."""
    async with Rig(relay=BEHIND_PROXY) as rig:
        for number, expected in (("7", 101), ("7", 429), ("8", 101)):
            before = rig.relay.rooms.client_count
            field = f"X-Forwarded-For: {form.format(number)}"
            client = await rig.connect(request("/client?room=r", field))
            if expected == 101:
                await until(lambda before=before: rig.relay.rooms.client_count == before + 1)
            else:
                await client.ends()
                assert status(client) == 429


@ensureDeferred
async def test_clients_without_an_address_from_the_proxy_have_a_limit_and_one_warning() -> None:
    async with Rig(relay=BEHIND_PROXY) as rig:
        with warnings() as lines:
            await rig.connect(request("/client?room=r", "X-Forwarded-For: unix:"))
            local = await rig.local()
            assert b"X-Forwarded-For: unknown\r\n" in local.received
            for _ in range(3):
                client = await rig.connect(request("/client?room=r", "X-Forwarded-For: unix:"))
                await client.ends()
                assert status(client) == 429
        [line] = lines
        assert line["peer"] == "127.0.0.1"
        assert "'unix:'" in line["what"]


@ensureDeferred
async def test_a_fast_refusal_counts_and_warns_too() -> None:
    async with Rig(relay={**BEHIND_PROXY, "upgrades_per_address": 1}, with_agent=False) as rig:
        with warnings() as lines:
            seen = []
            for _ in range(12):
                client = await rig.connect(request("/client?room=none", "X-Forwarded-For: unknown"))
                await client.ends()
                seen.append(status(client))
        assert seen.count(404) == 10  # the burst of ten seconds
        assert seen.count(429) == 2
        assert len(lines) == 1


@ensureDeferred
@pytest.mark.parametrize(("sent", "told"), [("wss", b"https"), ("http, https", b"https"), ("ftp", b"http")])
async def test_the_local_server_gets_the_scheme_from_the_proxy(sent: str, told: bytes) -> None:
    async with Rig(relay={"trusted_proxy": ("127.0.0.1",)}) as rig:
        fields = ("X-Forwarded-For: 203.0.113.7", f"X-Forwarded-Proto: {sent}")
        await rig.connect(request("/client?room=r", *fields))
        assert b"X-Forwarded-Proto: " + told + b"\r\n" in (await rig.local()).received
