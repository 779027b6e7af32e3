"""The whole server on a port of loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock

from seance.errors import ConfigError
from seance.yserver import service, websocket
from seance.yserver.awareness import GONE
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import AwarenessUpdate, ClientState, encode
from seance.yserver.service import YServer
from tests.conftest import Watch
from tests.tunnel.rig import Player, request
from tests.yserver.client import connect, reactor, until


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[int]:
    """A server for the time of a ``with`` block; gives its port."""
    server = YServer(reactor, **options)
    server.startService()
    port = await server.when_listening()
    try:
        yield port.getHost().port  # type: ignore[attr-defined]
    finally:
        await server.stopService()


async def ask(port: int, head: bytes) -> bytes:
    """Say something on a raw connection and read what comes until it ends."""
    player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Player())
    player.send(head)
    await player.ends()
    player.leg.loseConnection()
    await player.goes()
    return bytes(player.received)


@pytest_twisted.ensureDeferred
async def test_two_clients_edit_one_document_and_see_each_other() -> None:
    async with serving() as port:
        ada, ben = await connect(port), await connect(port)
        ada.write("Hello ")
        ben.announce(2, 1, '"Ben"')
        await until(lambda: str(ben.text) == "Hello " and ada.others == {2: '"Ben"'})
        ben.write("you")
        await until(lambda: str(ada.text) == "Hello you")
        assert ada.is_synced
        assert ben.others == {2: '"Ben"'}, "the sender hears its own presence"


@pytest_twisted.ensureDeferred
async def test_the_path_is_the_document_and_the_query_is_not() -> None:
    async with serving() as port:
        one = await connect(port, "/folder/a%20b?token=1")
        same = await connect(port, "/folder/a%20b")
        other = await connect(port, "/folder/a b".replace(" ", "+"))
        one.write("x")
        other.write("y")
        await until(lambda: str(same.text) == "x")
        await until(lambda: other.is_synced)
        assert str(other.text) == "y"


@pytest.mark.parametrize("how", ["cut", "sendClose"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_is_gone_for_the_others_at_once(how: str) -> None:
    async with serving() as port:
        ada, ben = await connect(port), await connect(port)
        ben.announce(2, 1, '"Ben"')
        await until(lambda: ada.others)
        getattr(ben, how)()
        await until(lambda: ada.others == {2: GONE})


@pytest.mark.parametrize(
    ("payload", "is_binary", "code"),
    [
        (b"text", False, 1003),
        (b"\x00\x02\x05", True, 4400),
        (b"\x00\x02\x03abc", True, 4400),
        (bytes(5000), True, 1009),
        (encode(AwarenessUpdate((ClientState(1, 1, f'"{"x" * 3500}"'),))), True, 4413),
    ],
    ids=["text", "cut short", "no update", "too long", "state too big"],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_breaks_a_rule_is_told_and_the_others_go_on(
    payload: bytes, is_binary: bool, code: int
) -> None:
    async with serving(limits=YServerLimits(message_bytes=4500, state_bytes=3000)) as port:
        ada, ben = await connect(port), await connect(port)
        ben.sendMessage(payload, isBinary=is_binary)
        assert (await ben.goes())[0] == code
        cem = await connect(port)
        ada.write("still here")
        await until(lambda: str(cem.text) == "still here")


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_a_slow_reader_costs_the_server_little_and_catches_up() -> None:
    """Ten mebibytes are written while it does not read; next to nothing is queued for it."""
    server = YServer(reactor)
    server.startService()
    port = (await server.when_listening()).getHost().port  # type: ignore[attr-defined]
    ada, ben = await connect(port), await connect(port)
    ben.transport.pauseProducing()
    for _ in range(160):
        ada.write("x" * 65536)
    cem = await connect(port)
    await until(lambda: len(cem.text) == 160 * 65536)
    queued = [
        len(socket.transport.dataBuffer) + socket.transport._tempDataLen
        for socket in server._doors.values()
        if socket is not None
    ]
    assert sum(queued) < 300_000
    ben.transport.resumeProducing()
    await until(lambda: len(ben.text) == 160 * 65536)
    await server.stopService()


@pytest_twisted.ensureDeferred
async def test_a_client_too_many_is_refused_before_the_upgrade() -> None:
    async with serving(limits=YServerLimits(clients=1)) as port:
        ada = await connect(port)
        answer = await ask(port, request("/pad"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"as many clients as it takes" in answer
        assert ada.closed is None


@pytest_twisted.ensureDeferred
async def test_connections_far_beyond_the_limit_are_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNANSWERED_CONNECTIONS", 1)
    async with serving(limits=YServerLimits(clients=1)) as port:
        await connect(port)
        with socket.create_connection(("127.0.0.1", port)) as silent:
            await until(lambda: True)
            assert await ask(port, request("/pad")) == b""
            silent.close()
        await until(lambda: True)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /pad HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (b"POST /pad HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"\x16\x03\x01garbage\r\n\r\n", b"400"),
        (request("/" + "n" * 600), b"414"),
        (request("/pad", "X: " + "y" * 20000), b"431"),
    ],
    ids=["no upgrade", "POST", "garbage", "long name", "long head"],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_client_gets_an_answer(head: bytes, status: bytes) -> None:
    async with serving() as port:
        assert (await ask(port, head)).startswith(b"HTTP/1.1 " + status)


ORIGINS = [
    ("http://localhost:3000", {}, True),
    ("http://127.0.0.1:9", {}, True),
    ("http://[::1]:9", {}, True),
    ("tauri://localhost", {}, True),
    ("https://evil.example", {}, False),
    ("http://localhost.evil.example", {}, False),
    ("null", {}, False),
    ("http://[broken", {}, False),
    ("https://evil.example", {"X-Forwarded-Host": "relay.example"}, True),
    ("http://relay.example", {}, True),
]


@pytest.mark.parametrize(("origin", "more", "is_welcome"), ORIGINS)
@pytest_twisted.ensureDeferred
async def test_pages_from_elsewhere_come_in_through_a_tunnel_alone(
    origin: str, more: dict[str, str], is_welcome: bool
) -> None:
    """Any web page may dial 127.0.0.1 from its visitor's browser, and none may read the documents."""
    async with serving() as port:
        fields = [f"{name}: {value}" for name, value in more.items()]
        raw = await answer_to(port, request("/pad", f"Origin: {origin}", *fields))
        assert raw.startswith(b"HTTP/1.1 101 " if is_welcome else b"HTTP/1.1 403 ")


async def answer_to(port: int, head: bytes) -> bytes:
    """The first bytes of an answer."""
    player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Player())
    player.send(head)
    await until(lambda: player.received)
    player.leg.abortConnection()
    return bytes(player.received)


@pytest_twisted.ensureDeferred
async def test_a_head_in_pieces_and_a_message_glued_to_it_arrive() -> None:
    """Losing the first message of a client is silent data loss (yjs.md, fact 5)."""
    hello = bytes.fromhex("8284 00000000 00000100".replace(" ", ""))  # SyncStep1, masked with zeros
    async with serving() as port:
        player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Player())
        head = request("/pad")
        player.send(head[:30])
        await until(lambda: True)
        player.send(head[30:] + hello)
        answer = bytes.fromhex("8205 0001020000".replace(" ", ""))  # SyncStep2, nothing to tell
        await player.receives(answer)
        player.leg.abortConnection()


@pytest_twisted.ensureDeferred
async def test_stopping_waits_until_everybody_is_gone() -> None:
    server = YServer(reactor)
    server.startService()
    port = (await server.when_listening()).getHost().port  # type: ignore[attr-defined]
    ada = await connect(port)
    await server.stopService()
    assert server._doors == {}
    assert server.client_count == 0
    await ada.goes()


@pytest_twisted.ensureDeferred
async def test_a_failure_of_ours_ends_one_connection_and_is_logged(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(payload: bytes) -> None:
        raise RuntimeError("planted")

    async with serving() as port:
        ada, ben = await connect(port), await connect(port)
        await until(lambda: ada.is_synced and ben.is_synced)
        with monkeypatch.context() as patch:
            patch.setattr(websocket, "decode", fail)
            ben.write("x")
            await ben.goes()
        assert len(watch.take(RuntimeError)) == 1
        ada.write("still here")
        cem = await connect(port)
        await until(lambda: str(cem.text) == "still here")


@pytest_twisted.ensureDeferred
async def test_stopping_says_goodbye_and_keeps_what_was_written(tmp_path: Path) -> None:
    async with serving(store=tmp_path / "s") as port:
        ada = await connect(port)
        ada.write("kept")
        await until(lambda: ada.is_synced)
        ben = await connect(port)
        await until(lambda: str(ben.text) == "kept")
    assert (await ada.goes())[0] == 1001
    async with serving(store=tmp_path / "s") as port:
        cem = await connect(port)
        await until(lambda: str(cem.text) == "kept")


@pytest_twisted.ensureDeferred
async def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    async with serving() as port:
        server = YServer(reactor, port=port, store=tmp_path / "s")
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            server.startService()
        assert not server.running
        async with serving(store=tmp_path / "s"):
            pass


@pytest_twisted.ensureDeferred
async def test_a_store_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        YServer(reactor, store=tmp_path / "nowhere" / "s").startService()


class Halves:
    """The reactor's sockets and a clock of our own."""

    def __init__(self) -> None:
        self.clock = Clock()

    def __getattr__(self, name: str) -> Any:
        of_clock: Callable[..., Any] | None = getattr(self.clock, name, None)
        return of_clock if of_clock is not None else getattr(reactor, name)


@pytest_twisted.ensureDeferred
async def test_a_client_that_answers_no_ping_is_cut() -> None:
    halves = Halves()
    server = YServer(halves)
    server.startService()
    port = (await server.when_listening()).getHost().port  # type: ignore[attr-defined]
    ada, ben = await connect(port), await connect(port)
    ben.answers_pings = False
    await until(lambda: ada.is_synced and ben.is_synced)
    halves.clock.advance(service.PING_SECONDS)
    await until(lambda: ada.pings and ben.pings)
    await until(lambda: server.client_count == 2)
    ada.write("I am here")
    await until(lambda: str(ben.text))
    halves.clock.advance(service.PING_SECONDS)
    await ben.goes()
    assert ada.closed is None
    assert server.client_count == 1
    stopping = ensureDeferred(server.stopService())
    await ada.goes()
    await stopping


@pytest_twisted.ensureDeferred
async def test_a_connection_that_says_nothing_is_cut() -> None:
    halves = Halves()
    server = YServer(halves)
    server.startService()
    port = (await server.when_listening()).getHost().port  # type: ignore[attr-defined]
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.setblocking(False)
        await until(lambda: len(server._doors) == 1)
        halves.clock.advance(11)
        await until(lambda: not server._doors)
    await server.stopService()


@pytest_twisted.ensureDeferred
async def test_a_closing_handshake_that_nobody_answers_ends_all_the_same() -> None:
    halves = Halves()
    server = YServer(halves)
    server.startService()
    port = (await server.when_listening()).getHost().port  # type: ignore[attr-defined]
    ada = await connect(port)
    await until(lambda: ada.is_synced)
    ada.transport.pauseProducing()
    stopping = server.stopService()
    await until(lambda: len(halves.clock.getDelayedCalls()) >= 2)
    halves.clock.advance(2.5)
    await stopping
    ada.transport.resumeProducing()
    await ada.goes()
