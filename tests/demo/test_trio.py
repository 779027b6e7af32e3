"""A relay, an agent and a document server in one process."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from seance.demo import trio as trio_module
from seance.demo.trio import DemoSettings, Trio, make_room
from seance.errors import ConfigError
from tests.tunnel.rig import Player
from tests.yserver.client import connect, reactor, until


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of loopback that somebody listens on for the time of the test."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest_twisted.ensureDeferred
async def test_two_clients_write_through_the_tunnel() -> None:
    trio = Trio(reactor, DemoSettings(port=0, room="r"))
    await trio.start()
    ada, ben = [await connect(trio.port, "/c/r/pad") for _ in range(2)]
    ada.write("through the tunnel")
    await until(lambda: str(ben.text) == "through the tunnel")
    await trio.stop()
    await ada.goes()
    await ben.goes()


@pytest_twisted.ensureDeferred
async def test_a_page_from_elsewhere_may_use_the_link() -> None:
    """Whoever has the link may; the document server tells by what the relay adds."""
    trio = Trio(reactor, DemoSettings(port=0, room="r"))
    await trio.start()
    client = await connect(trio.port, "/c/r/pad", Origin="https://app.example")
    await until(lambda: client.is_synced)
    await trio.stop()
    await client.goes()


@pytest_twisted.ensureDeferred
async def test_a_browser_gets_the_pad_at_the_link() -> None:
    trio = Trio(reactor, DemoSettings(port=0, room="r"))
    await trio.start()
    player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", trio.port), Player())
    player.send(b"GET /c/r HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\n\r\n")
    await player.ends()
    assert player.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Security-Policy: default-src 'none'; script-src 'sha256-" in player.received
    assert player.received.rstrip().endswith(b"-->")
    player.leg.loseConnection()
    await player.goes()
    await trio.stop()


@pytest_twisted.ensureDeferred
async def test_a_taken_port_is_left_for_another_unless_it_was_asked_for(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio_module, "PORT", taken_port)
    trio = Trio(reactor, DemoSettings())
    await trio.start()
    assert trio.port not in (0, taken_port)
    await trio.stop()
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{taken_port}"):
        await Trio(reactor, DemoSettings(port=taken_port)).start()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest_twisted.ensureDeferred
async def test_it_listens_where_it_is_told(host: str) -> None:
    trio = Trio(reactor, DemoSettings(host=host, port=0))
    await trio.start()
    client = await connect(trio.port, f"/c/{trio.room}/pad")
    await until(lambda: client.is_synced)
    await trio.stop()
    await client.goes()


@pytest_twisted.ensureDeferred
async def test_an_address_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        await Trio(reactor, DemoSettings(host="192.0.2.1", port=0)).start()


@pytest_twisted.ensureDeferred
async def test_the_text_is_kept_in_the_store(tmp_path: Path) -> None:
    for text in ("one ", "two "):
        trio = Trio(reactor, DemoSettings(port=0, store=tmp_path / "s"))
        await trio.start()
        client = await connect(trio.port, f"/c/{trio.room}/pad")
        await until(lambda: client.is_synced)  # noqa: B023  # awaited in the loop
        client.write(text)
        reader = await connect(trio.port, f"/c/{trio.room}/pad")
        await until(lambda: text in str(reader.text))  # noqa: B023
        await trio.stop()
        await client.goes()
        await reader.goes()
    assert str(reader.text) == "one two "


def test_a_room_nobody_asked_for_cannot_be_guessed() -> None:
    rooms = {make_room() for _ in range(100)}
    assert len(rooms) == 100
    assert all(re.fullmatch("[a-z2-7]{16}", room) for room in rooms)


def test_a_room_that_is_none_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="room name"):
        Trio(reactor, DemoSettings(room="a b"))
