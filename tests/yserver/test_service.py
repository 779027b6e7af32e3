"""The whole server on a port of loopback."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from seance.errors import ConfigError
from seance.yserver import service
from seance.yserver.document import YServerLimits
from seance.yserver.messages import MAX_STATE_BYTES, AwarenessUpdate, SyncUpdate, encode
from seance.yserver.service import YServer
from tests.conftest import Watch
from tests.relay.rig import Player, request
from tests.yserver.client import GONE, awareness, connect, reactor, until
from tests.yserver.test_document import AB, PANIC


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[YServer, int]]:
    """A server for the time of a ``with`` block, and its port."""
    server = YServer(reactor, **options)
    server.startService()
    port = await server.when_listening()
    try:
        yield server, port.getHost().port  # type: ignore[attr-defined]
    finally:
        await server.stopService()
        assert server.connections == {}
        assert server.client_count == 0


async def raw(port: int, head: bytes, *, whole: bool = True) -> bytes:
    """Send a head and return the answer: all of it, or what comes first."""
    player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Player())
    player.send(head)
    if whole:
        await player.ends()
    else:
        await until(lambda: player.received)
    player.leg.abortConnection()
    await player.goes()
    return bytes(player.received)


@pytest_twisted.ensureDeferred
async def test_two_clients_edit_one_document_and_see_each_other() -> None:
    async with running() as (server, port):
        ada, ben = await connect(port), await connect(port)
        ada.write("Hello ")
        ben.announce(2, 1, '"Ben"')
        await until(lambda: str(ben.text) == "Hello " and ada.others == ben.others == {2: '"Ben"'})
        ben.write("you")
        await until(lambda: str(ada.text) == "Hello you")
        assert ada.is_synced
        assert server.client_count == 2


@pytest_twisted.ensureDeferred
async def test_path_is_the_name_of_the_document_and_the_query_is_not_part_of_it() -> None:
    async with running() as (_, port):
        one = await connect(port, "/folder/a%20b?token=1")
        same = await connect(port, "/folder/a%20b")
        other = await connect(port, "/folder/a+b")
        one.write("x")
        other.write("y")
        await until(lambda: str(same.text) == "x")
        await until(lambda: other.is_synced)
        assert str(other.text) == "y"


@pytest.mark.parametrize("how", ["cut", "sendClose"])
@pytest_twisted.ensureDeferred
async def test_client_that_disconnects_vanishes_for_the_others_immediately(how: str) -> None:
    async with running() as (_, port):
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
        (bytes(50_000), True, 1009),
        (encode(awareness((1, 1, f'"{"x" * MAX_STATE_BYTES}"'))), True, 4400),
        (encode(SyncUpdate(PANIC)), True, 1011),
    ],
    ids=["text", "cut short", "no update", "too long", "state too big", "panic"],
)
@pytest_twisted.ensureDeferred
async def test_client_that_breaks_a_rule_is_disconnected_and_the_others_go_on(
    payload: bytes, is_binary: bool, code: int
) -> None:
    async with running(limits=YServerLimits(message_bytes=40_000)) as (_, port):
        ada, ben = await connect(port), await connect(port)
        ada.send(SyncUpdate(AB))
        await until(lambda: ben.count(SyncUpdate))
        ben.sendMessage(payload, isBinary=is_binary)
        assert (await ben.goes())[0] == code
        cem = await connect(port)
        ada.write("still here")
        await until(lambda: str(cem.text) == "still here")


@pytest.mark.slow
@pytest_twisted.ensureDeferred
async def test_client_that_does_not_read_is_disconnected_and_gets_all_when_it_returns() -> None:
    """Ten mebibytes are written meanwhile; at most one waits in the server."""
    async with running(limits=YServerLimits(queued_bytes=1024 * 1024)) as (server, port):
        ada, ben = await connect(port), await connect(port)
        ben.transport.pauseProducing()
        most = 0
        for number in range(1, 161):
            ada.write("x" * 65536)
            await until(lambda number=number: server._documents["pad"]._size_bytes >= number * 65536)
            queued = (one.transport for one in server.connections)
            most = max(most, *(len(one.dataBuffer) + one._tempDataLen for one in queued))
        await until(lambda: server.client_count == 1)
        assert most < 1.3 * 1024 * 1024
        ben.transport.resumeProducing()
        await ben.goes()
        again = await connect(port)
        await until(lambda: len(again.text) == 160 * 65536)


@pytest_twisted.ensureDeferred
async def test_clients_and_documents_are_limited() -> None:
    async with running(limits=YServerLimits(clients=2, documents=1)) as (_, port):
        ada = await connect(port, "/one")
        assert (await raw(port, request("/two"))).startswith(b"HTTP/1.1 503 This server has 1 documents")
        ben = await connect(port, "/one")
        assert (await raw(port, request("/one"))).startswith(b"HTTP/1.1 503 maximum number of connections")
        assert ada.closed is ben.closed is None


@pytest_twisted.ensureDeferred
async def test_connections_far_beyond_the_limit_are_aborted() -> None:
    async with running(limits=YServerLimits(clients=1)) as (server, port):
        await connect(port)
        with socket.create_connection(("127.0.0.1", port)) as silent:
            await until(lambda: len(server.connections) == 2)
            assert await raw(port, request("/pad")) == b""
            silent.close()
        await until(lambda: len(server.connections) == 1)


@pytest_twisted.ensureDeferred
async def test_document_that_nobody_wrote_into_is_forgotten() -> None:
    async with running(limits=YServerLimits(documents=1)) as (server, port):
        for name in ("/one", "/two"):
            client = await connect(port, name)
            assert client.closed is None
            client.cut()
            await until(lambda: not server.connections)
        assert server._documents == {}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /pad HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (b"POST /pad HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"\x16\x03\x01 garbage\r\n\r\n", b"400"),
        (b"GET /pad HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, b"431"),
    ],
    ids=["no upgrade", "POST", "garbage", "long head"],
)
@pytest_twisted.ensureDeferred
async def test_request_that_is_no_handshake_is_answered(head: bytes, status: bytes) -> None:
    async with running() as (_, port):
        assert (await raw(port, head, whole=False)).startswith(b"HTTP/1.1 " + status)


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
    ("null", {"X-Forwarded-Host": "relay.example"}, True),
    ("http://relay.example", {}, True),
]


@pytest.mark.parametrize(("origin", "more", "is_accepted"), ORIGINS)
@pytest_twisted.ensureDeferred
async def test_page_of_another_site_is_refused_unless_it_comes_through_a_relay(
    origin: str, more: dict[str, str], is_accepted: bool
) -> None:
    """Any web page may connect to 127.0.0.1 from its visitor's browser."""
    async with running() as (_, port):
        fields = [f"{name}: {value}" for name, value in more.items()]
        answer = await raw(port, request("/pad", f"Origin: {origin}", *fields), whole=False)
        assert answer.startswith(b"HTTP/1.1 101 " if is_accepted else b"HTTP/1.1 4")


@pytest_twisted.ensureDeferred
async def test_head_in_pieces_and_a_message_glued_to_it_arrive() -> None:
    hello = bytes.fromhex("8284 00000000 00000100".replace(" ", ""))  # SyncStep1, masked with zeros
    async with running() as (_, port):
        player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Player())
        head = request("/pad")
        player.send(head[:30])
        await until(lambda: True)
        player.send(head[30:] + hello)
        await player.receives(bytes.fromhex("8205 0001020000".replace(" ", "")))  # SyncStep2, empty
        player.leg.abortConnection()


@pytest_twisted.ensureDeferred
async def test_documents_outlive_their_clients_and_in_a_file_the_server(tmp_path: Path) -> None:
    for store, rows in ((None, 1), (tmp_path / "s", 1), (tmp_path / "s", 2)):
        async with running(store=store) as (server, port):
            ada = await connect(port)
            await until(lambda: ada.is_synced)  # noqa: B023  # awaited in the loop
            ada.write("one ")
            await until(lambda: len(server._store.load("pad")) == rows)  # noqa: B023
            ada.cut()
            await until(lambda: not server.connections)
            ben = await connect(port)
            await until(lambda: str(ben.text) == "one " * rows)  # noqa: B023
        assert (await ben.goes())[0] == 1001


@pytest_twisted.ensureDeferred
async def test_document_that_cannot_be_opened_is_answered(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as (server, port):
        ada = await connect(port)
        with monkeypatch.context() as patch:
            patch.setattr(server._store, "load", lambda name: 1 / 0)
            assert (await raw(port, request("/other"))).startswith(b"HTTP/1.1 500 ")
        assert len(watch.take(ZeroDivisionError)) == 1
        assert ada.closed is None


@pytest_twisted.ensureDeferred
async def test_failure_of_our_own_ends_one_connection_and_is_logged(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as (server, port):
        ada, ben = await connect(port), await connect(port)
        with monkeypatch.context() as patch:
            patch.setattr(server._documents["pad"], "_apply", lambda *arguments: 1 / 0)
            ben.write("x")
            await ben.goes()
        assert len(watch.take()) == 1
        ada.write("still here")
        cem = await connect(port)
        await until(lambda: str(cem.text) == "still here")


@pytest_twisted.ensureDeferred
async def test_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    async with running() as (_, port):
        server = YServer(reactor, port=port, store=tmp_path / "s")
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            server.startService()
        assert not server.running
        async with running(store=tmp_path / "s"):
            pass


@pytest_twisted.ensureDeferred
async def test_store_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        YServer(reactor, store=tmp_path / "nowhere" / "s").startService()


class TestTimeouts:
    """Autobahn's timers, at one second."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for option in service.OPTIONS:
            if option.endswith(("Timeout", "Interval")):
                monkeypatch.setitem(service.OPTIONS, option, 1)

    @pytest_twisted.ensureDeferred
    async def test_client_that_does_not_answer_pings_is_disconnected(self) -> None:
        async with running() as (server, port):
            ada, ben = await connect(port), await connect(port)
            ben.answers_pings = False
            await ben.goes()
            assert ada.closed is None
            assert server.client_count == 1

    @pytest_twisted.ensureDeferred
    async def test_connection_without_a_request_is_closed(self) -> None:
        async with running() as (server, port):
            with socket.create_connection(("127.0.0.1", port)):
                await until(lambda: len(server.connections) == 1)
                await until(lambda: not server.connections)

    @pytest_twisted.ensureDeferred
    async def test_stopping_does_not_wait_for_a_client_that_does_not_close(self) -> None:
        async with running() as (_, port):
            ada = await connect(port)
            ada.transport.pauseProducing()
        ada.transport.resumeProducing()
        await ada.goes()
        assert ada.count(AwarenessUpdate) == 0
