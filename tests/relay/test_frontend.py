"""The frontend: which requests are refused, with which status, and that other connections are unaffected."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionLost

from seance.core.interfaces import Page
from tests.relay.rig import Rig, request, turn, until


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


def body(received: bytes) -> str:
    return received.partition(b"\r\n\r\n")[2].decode()


REFUSED = [
    (request("/client"), 400, "Missing room parameter"),
    (request("/client?room="), 400, "Missing room parameter"),
    (request("/client?room=a%20b"), 400, "Bad room name"),
    (request("/c/"), 400, "Missing room parameter"),
    (request("/agent"), 400, "Missing room parameter"),
    (request("/nowhere"), 404, "Unknown path"),
    (request("/client?room=unknown"), 404, "Room not found (agent not connected)"),
    (request("/agent?room=r"), 409, "This room is taken"),
    (request("/agent?room=new", "Origin: https://evil.example"), 403, "may not attach as an agent"),
    (b"GET /client?room=r HTTP/1.1\r\nHost: h\r\n\r\n", 426, "WebSocket"),
    (b"GET /c/r HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n", 426, "WebSocket"),
    (b"GET /client?room=r HTTP/1.0\r\n\r\n", 400, "HTTP/1.1 is needed"),
    (b"POST /health HTTP/1.1\r\nHost: h\r\n\r\n", 405, "Only GET"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 this is TLS\r\n\r\n", 400, ""),
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, ""),
    (b"GET /client?room=r HTTP/1.1\r\n" + b"X: y\r\n" * 200_000, 431, ""),
    (request("/client?room=r").replace(b"Version: 13", b"Version: 8"), 426, "13"),
]


@ensureDeferred
@pytest.mark.parametrize(("sent", "expected", "sentence"), REFUSED)
async def test_a_bad_request_gets_a_status_and_a_message_and_the_connection_ends(
    sent: bytes, expected: int, sentence: str
) -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        stranger = await rig.connect(sent)
        await stranger.ends()
        assert status(stranger.received) == expected
        assert sentence in body(stranger.received)
        assert body(stranger.received).count("\n") == 1
        assert b"Connection: close\r\n" in stranger.received
        client.send(b"still here")
        await local.receives(b"still here")
        assert rig.relay.rooms.room_count == 1


@ensureDeferred
async def test_second_request_behind_a_refused_one_is_not_answered() -> None:
    async with Rig() as rig:
        client = await rig.connect(request("/nowhere") + b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.ends()
        assert client.received.count(b"HTTP/1.1") == 1


@ensureDeferred
async def test_health_is_ok() -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.ends()
        assert (status(client.received), body(client.received)) == (200, "OK")
        assert abs(_date_of(client.received) - time.time()) < 5


def _date_of(answer: bytearray) -> float:
    found = re.search(rb"\r\nDate: ([^\r]+)", answer)
    assert found is not None, "clients compare clocks by Date"
    return parsedate_to_datetime(found[1].decode()).timestamp()


@ensureDeferred
async def test_health_answers_head_without_a_body() -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(b"HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await client.ends()
        assert (status(client.received), body(client.received)) == (200, "")
        assert b"Content-Length: 2\r\n" in client.received


@ensureDeferred
async def test_a_silent_connection_times_out() -> None:
    async with Rig(relay={"head_seconds": 0.1}, with_agent=False) as rig:
        client = await rig.connect()
        assert (await client.goes()).check(ConnectionLost)
        assert rig.relay.front.unanswered_count == 0


@ensureDeferred
async def test_silent_connections_are_limited_and_the_oldest_is_closed() -> None:
    async with Rig(relay={"unanswered_connections": 3}, with_agent=False) as rig:
        clients = []
        for number in range(5):
            clients.append(await rig.connect(b"GET /"))
            await until(lambda number=number: rig.relay.front.unanswered_count == min(number + 1, 3))
        await clients[0].goes()
        await clients[1].goes()
        assert [client.lost for client in clients[2:]] == [None] * 3


@ensureDeferred
async def test_a_client_that_disconnects_within_its_head_leaves_nothing_behind() -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(b"GET /")
        await until(lambda: rig.relay.front.unanswered_count == 1)
        client.leg.loseWriteConnection()
        await client.ends()
        await until(lambda: rig.relay.front.unanswered_count == 0)


@ensureDeferred
async def test_after_a_refusal_only_a_limited_number_of_bytes_is_read() -> None:
    async with Rig(with_agent=False) as rig:
        client = await rig.connect(b"GET / HTTP/1.1\r\n")
        for _ in range(200):
            client.send(b"X: " + b"y" * 65536)
        assert (await client.goes()).check(ConnectionLost)


@ensureDeferred
async def test_a_page_of_an_allowed_origin_may_connect_as_an_agent() -> None:
    async with Rig(relay={"agent_origins": ("app://desktop",)}, with_agent=False) as rig:
        agent = await rig.connect(request("/agent?room=r", "Origin: app://desktop"))
        await agent.receives(b"\r\n\r\n")
        assert status(agent.received) == 101
        assert rig.relay.rooms.room_count == 1


@ensureDeferred
async def test_a_plain_agent_gets_no_subprotocol_and_only_binary_messages() -> None:
    async with Rig(with_agent=False) as rig:
        agent = await rig.connect(request("/agent?room=r"))
        await agent.receives(b"\r\n\r\n")
        assert b"sec-websocket-protocol" not in agent.received.lower()
        agent.received = b""
        client = await rig.connect(request("/client?room=r"))
        await until(lambda: len(agent.received) > 16)
        assert agent.received[0] == 0x82
        client.leg.abortConnection()


@pytest.mark.slow
@ensureDeferred
async def test_an_agent_that_does_not_speak_yamux_is_closed_and_its_room_freed() -> None:
    async with Rig(with_agent=False) as rig:
        masked = b"\x82\x8e\x00\x00\x00\x00HELLO IS IT ME"
        agent = await rig.connect(request("/agent?room=r") + masked)
        await agent.receives(b"\x88")
        await agent.goes()
        await until(lambda: rig.relay.rooms.room_count == 0)


@ensureDeferred
async def test_a_room_of_a_plain_agent_is_full_at_its_limit() -> None:
    async with Rig(relay={"streams_per_plain_agent": 2}, with_agent=False) as rig:
        await rig.connect(request("/agent?room=r"))
        await until(lambda: rig.relay.rooms.room_count == 1)
        for _ in range(2):
            await rig.connect(request())
        await until(lambda: rig.relay.rooms.client_count == 2)
        third = await rig.connect(request())
        await third.ends()
        assert status(third.received) == 429
        assert b"Retry-After: " in third.received


@ensureDeferred
async def test_an_agent_gets_no_new_clients_after_its_go_away() -> None:
    async with Rig() as rig:
        assert rig.agent._relay_link is not None
        rig.agent._relay_link.mux.go_away()
        link = rig.relay.rooms._table.find("r")
        await until(lambda: link._mux is not None and link._mux.session.peer_is_going_away)
        client = await rig.connect(request())
        await client.ends()
        assert status(client.received) == 503
        assert "is leaving" in body(client.received)


PAGE = Page(b"<!doctype html><title>pad</title>", ((b"Content-Security-Policy", b"default-src 'none'"),))


@ensureDeferred
async def test_a_browser_gets_the_page_at_the_share_link() -> None:
    async with Rig(relay={"pad": PAGE}, with_agent=False) as rig:
        client = await rig.connect(b"GET /c/r HTTP/1.1\r\nHost: h\r\nAccept: text/html,*/*\r\n\r\n")
        await client.ends()
        assert status(client.received) == 200
        assert b"Content-Security-Policy: default-src 'none'\r\n" in client.received
        assert client.received.endswith(PAGE.body)


@ensureDeferred
@pytest.mark.parametrize(
    "target_and_accept", [("/c/r", "*/*"), ("/client?room=r", "text/html"), ("/c/", "text/html")]
)
async def test_the_page_is_at_no_other_path(target_and_accept: tuple[str, str]) -> None:
    target, accept = target_and_accept
    async with Rig(relay={"pad": PAGE}, with_agent=False) as rig:
        client = await rig.connect(f"GET {target} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n".encode())
        await client.ends()
        assert status(client.received) in (400, 426)


@ensureDeferred
async def test_an_upgrade_at_the_share_link_is_a_client() -> None:
    async with Rig(relay={"pad": PAGE}) as rig:
        await rig.connect(request("/c/r/doc", "Accept: text/html"))
        assert (await rig.local()).received.startswith(b"GET /doc HTTP/1.1\r\n")


@ensureDeferred
async def test_a_head_may_arrive_byte_by_byte() -> None:
    async with Rig() as rig:
        client = await rig.connect()
        for byte in request():
            client.send(bytes([byte]))
            await turn()
        assert (await rig.local()).received.startswith(b"GET / HTTP/1.1\r\n")


@ensureDeferred
async def test_a_connected_client_is_unaffected_by_refusals() -> None:
    async with Rig() as rig:
        client, local = await rig.joined()
        strangers = [await rig.connect(request("/client?room=unknown")) for _ in range(200)]
        client.send(b"through")
        await local.receives(b"through")
        for stranger in strangers:
            await stranger.ends()
            assert status(stranger.received) == 404
