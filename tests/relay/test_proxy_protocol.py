"""A relay behind a load balancer with the PROXY protocol: every header, segmentation and end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import LogEvent, globalLogPublisher

from tests.certificates import Authority
from tests.heads.test_proxy_protocol import ILLEGAL, LEGAL, binary
from tests.relay.rig import Player, Rig, answer_101, request, turn, until
from tests.tls.rig import TlsRig

LISTEN = ("haproxy:tcp:0:interface=127.0.0.1",)
PROXIED: dict[str, Any] = {"listen": LISTEN, "trusted_proxy": ("127.0.0.1",)}
LINE = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n"
HEALTH = b"GET /health HTTP/1.0\r\n\r\n"


@contextmanager
def refusals() -> Iterator[list[LogEvent]]:
    """Collect the log lines about refused connections."""
    lines: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if event.get("event") == "proxy.refused":
            lines.append(event)

    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


def status(player: Player) -> int:
    return int(player.received.split(b" ", 2)[1])


# Accepted headers


@ensureDeferred
@pytest.mark.parametrize("header", [data for data, _ in LEGAL.values()], ids=LEGAL.keys())
async def test_a_valid_header_is_accepted_whole_and_in_pieces(header: bytes) -> None:
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        whole = header + HEALTH
        for pieces in ([whole], [header, HEALTH], [header[:3], header[3:9], header[9:] + HEALTH]):
            client = await rig.connect()
            for piece in pieces:
                client.send(piece)
                await turn(0.01)  # one segment each
            await client.ends()
            assert status(client) == 200


@ensureDeferred
@pytest.mark.parametrize("name", ["UNKNOWN", "TCP6", "v2 TCP4 with TLVs"])
async def test_a_header_may_arrive_byte_by_byte(name: str) -> None:
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        client = await rig.connect()
        for byte in LEGAL[name][0] + HEALTH:
            client.send(bytes((byte,)))
            await turn()
        await client.ends()
        assert status(client) == 200


@ensureDeferred
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("UNKNOWN", "127.0.0.1"),
        ("v2 LOCAL", "127.0.0.1"),
        ("v2 UNSPEC", "127.0.0.1"),
        ("v2 UNIX", "127.0.0.1"),
        ("TCP4", "203.0.113.7"),
        ("v2 TCP4", "203.0.113.7"),
        ("v2 TCP6", "2001:db8::7"),
        ("TCP6, mapped", "203.0.113.7"),
    ],
)
async def test_the_local_server_gets_the_address_of_the_header_or_of_the_connection(
    name: str, expected: str
) -> None:
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        agent = await rig.connect(LINE + request("/agent?room=r"))
        await agent.receives(b"\r\n\r\n")
        await rig.connect(LEGAL[name][0] + request("/client?room=r"))
        await agent.receives(f"X-Forwarded-For: {expected}\r\n".encode())


@ensureDeferred
async def test_tls_may_follow_the_header(tmp_path: Path) -> None:
    """The header is not encrypted. It comes in the same segment as the handshake's first bytes, or before
    it.
    """
    authority = Authority(tmp_path)
    async with TlsRig(authority, relay=PROXIED, with_agent=False) as rig:
        for header in (b"PROXY UNKNOWN\r\n", LEGAL["v2 TCP4"][0], LEGAL["v2 LOCAL"][0]):
            client = await rig.connect_plainly()
            client.send(header[:5])
            await turn(0.01)
            client.send(header[5:] + HEALTH)
            await client.ends()
            assert b"This address speaks TLS" in client.received
            client.leg.abortConnection()


@ensureDeferred
async def test_a_half_close_behind_a_header_stays_a_half_close() -> None:
    """The agent uses another port."""
    listen = ("tcp:0:interface=127.0.0.1", *LISTEN)
    async with Rig(relay={"listen": listen, "trusted_proxy": ("127.0.0.1",)}) as rig:
        rig.port = rig.relay._listeners._ports[1].getHost().port
        client = await rig.connect(LINE + request())
        local = await rig.local()
        local.send(answer_101())
        await client.receives(b"\r\n\r\n")
        client.send(b"last words")
        client.leg.loseWriteConnection()
        await local.receives(b"last words")
        await local.ends()
        assert client.lost is None
        local.send(b"answer")
        await client.receives(b"answer")
        local.leg.loseConnection()


# Refused headers, and their log lines


@ensureDeferred
@pytest.mark.parametrize(
    "name", ["HTTP", "lower case", "v6 in TCP4", "too long", "family 4", "TCP4 too short"]
)
async def test_an_invalid_header_is_cut_and_the_log_names_the_fault(name: str) -> None:
    data, why = ILLEGAL[name]
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        with refusals() as lines:
            client = await rig.connect(data + HEALTH)
            assert (await client.goes()).check(ConnectionLost)
        assert client.received == b""
        [line] = lines
        assert line["peer"] == "127.0.0.1"
        assert why in line["why"]
        assert rig.relay.front.unanswered_count == 0


@ensureDeferred
async def test_an_untrusted_sender_is_cut_and_the_log_names_the_option() -> None:
    async with Rig(relay={"listen": LISTEN}, with_agent=False) as rig:
        with refusals() as lines:
            client = await rig.connect(LINE + HEALTH)
            await client.goes()
        assert client.received == b""
        assert rig.relay.front.admission.open_count == 0
        [line] = lines
        assert "--trusted-proxy" in line["why"]


@ensureDeferred
@pytest.mark.parametrize(("sent", "why"), [(b"", "was no PROXY header"), (b"PROXY TC", "was incomplete")])
async def test_a_late_header_is_cut_and_logged(sent: bytes, why: str) -> None:
    async with Rig(relay={**PROXIED, "head_seconds": 0.1}, with_agent=False) as rig:
        with refusals() as lines:
            client = await rig.connect(sent)
            await client.goes()
            await until(lambda: lines)
        assert why in lines[0]["why"]
        assert rig.relay.front.unanswered_count == 0


@ensureDeferred
async def test_an_incomplete_header_is_logged_and_a_tcp_check_is_not() -> None:
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        with refusals() as lines:
            client = await rig.connect()
            await until(lambda: rig.relay.front.unanswered_count == 1)
            client.leg.loseConnection()
            assert (await client.goes()).check(ConnectionDone)
            await until(lambda: rig.relay.front.unanswered_count == 0)
            assert lines == []
            client = await rig.connect(b"PROXY TCP4 203.0.")
            client.leg.loseWriteConnection()
            await client.ends()
            await until(lambda: lines)


@ensureDeferred
async def test_many_invalid_headers_are_one_log_line() -> None:
    async with Rig(relay=PROXIED, with_agent=False) as rig:
        with refusals() as lines:
            for _ in range(5):
                client = await rig.connect(b"hello")
                await client.goes()
        assert len(lines) == 1


# Over a UNIX socket


@ensureDeferred
async def test_a_header_over_a_unix_socket_is_accepted(tmp_path: Path) -> None:
    """Connections over a UNIX socket count as 127.0.0.1."""
    path = os.fspath(tmp_path / "relay.sock")
    listen = ("tcp:0:interface=127.0.0.1", f"haproxy:unix:{path}")
    async with Rig(relay={"listen": listen, "trusted_proxy": ("127.0.0.1",)}, with_agent=False):
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(path)
            client.send(binary(0x20, 0, b"") + HEALTH)
            received = b""
            while b"OK" not in received:
                await turn(0.002)
                try:
                    received += client.recv(4096)
                except BlockingIOError:
                    continue
        assert b" 200 OK\r\n" in received
