"""Each kind of listener, with and without TLS and a proxy, combined with each way in which a client may end.

Each kind wraps the client's transport differently, and the frontend removes itself from it when the client is
spliced. In each case all data arrives, sent early, together with the 101 or later. The end of the client is
counted once, and its slot is released.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from seance.core.events import ClientBegan, ClientEnded, Event
from tests.certificates import Authority
from tests.ears import pattern
from tests.relay.rig import Player, Rig, answer_101, reactor, request, until
from tests.tls.rig import One, TlsRig

DIRECT, PROXIED = "tcp:0:interface=127.0.0.1", "haproxy:tcp:0:interface=127.0.0.1"
PROXY_LINE = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n"
LONG_BYTES = 300_000


class Notes:
    """An observer that records the clients and how each ended."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self.ends: list[str] = []

    def notify(self, event: Event) -> None:
        if isinstance(event, ClientBegan):
            self.clients.append(event.client)
        elif isinstance(event, ClientEnded):
            self.ends.append(event.reason)


async def dial(rig: Rig, *, is_proxied: bool, first: bytes) -> Player:
    """Open a client's connection to one kind of listener, and write ``first`` on it."""
    port = rig.relay._listeners._ports[is_proxied].getHost().port
    client = Player()
    rig.clients.append(client)
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(One(client))
    if is_proxied:
        client.transport.write(PROXY_LINE)
    if isinstance(rig, TlsRig):
        client.transport.startTLS(optionsForClientTLS("localhost", trustRoot=rig.trust))
    client.transport.write(first)
    return client


async def client_closes(rig: Rig, client: Player, local: Player, notes: Notes) -> None:
    client.leg.loseConnection()
    await local.ends()
    local.leg.loseConnection()


async def client_is_cut(rig: Rig, client: Player, local: Player, notes: Notes) -> None:
    client.leg.abortConnection()
    await local.goes()


async def local_server_closes(rig: Rig, client: Player, local: Player, notes: Notes) -> None:
    local.leg.loseConnection()
    await client.ends()
    client.leg.loseConnection()


async def local_server_is_cut(rig: Rig, client: Player, local: Player, notes: Notes) -> None:
    local.leg.abortConnection()
    await client.goes()


async def agent_goes(rig: Rig, client: Player, local: Player, notes: Notes) -> None:
    typed = b"\x82\x05hello" * 1000  # as if all users of the room typed at the same time
    local.send(typed)
    await until(lambda: len(client.received) == len(typed))
    client.received = b""
    rig.relay.rooms.links[0].cut()
    await client.ends()
    assert client.received.startswith(b"\x88"), "a close frame, with a reason"
    client.leg.loseConnection()


async def operator_ends_it(rig: Rig, client: Player, local: Player, notes: Notes) -> None:
    notes.clients[0].end("enough")
    await client.goes()


Ending = Callable[[Rig, Player, Player, Notes], Awaitable[None]]
ENDINGS: dict[Ending, str] = {
    client_closes: "ended",
    client_is_cut: "near_gone",
    local_server_closes: "ended",
    local_server_is_cut: "far_gone",
    agent_goes: "far_gone",
    operator_ends_it: "sent_away",
}


@pytest.mark.parametrize("is_proxied", [False, True], ids=["direct", "proxied"])
@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
@ensureDeferred
async def test_all_data_arrives_and_the_slot_is_released(
    authority: Authority, ending: Ending, has_tls: bool, is_proxied: bool
) -> None:
    settings = {"listen": (DIRECT, PROXIED), "trusted_proxy": ("127.0.0.1",), "resume_seconds": 0.0}
    async with TlsRig(authority, relay=settings) if has_tls else Rig(relay=settings) as rig:
        notes = Notes()
        rig.relay.context.observer = notes
        admission = rig.relay.front.admission
        await until(lambda: admission.open_count == 1)
        early, up, down = pattern(30_000, seed=1), pattern(LONG_BYTES, seed=2), pattern(LONG_BYTES, seed=3)
        client = await dial(rig, is_proxied=is_proxied, first=request() + early)
        local = await rig.local()
        local.received = local.received[local.received.index(b"\r\n\r\n") + 4 :]
        local.send(answer_101() + b"\x82\x05glued")
        await client.receives(b"glued")
        assert admission.open_count == 2
        client.received = b""
        client.send(up)
        local.send(b"\x82\x7f" + LONG_BYTES.to_bytes(8, "big") + down)
        await until(lambda: len(local.received) >= len(early + up) and len(client.received) >= len(down) + 10)
        assert local.received == early + up
        assert client.received[10:] == down
        client.received = b""
        await ending(rig, client, local, notes)
        # The agent dials again after its carrier was cut.
        await until(lambda: notes.ends and admission.open_count <= 1)
    assert notes.ends == [ENDINGS[ending]]
    assert admission.open_count == 0
