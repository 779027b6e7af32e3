"""A relay, an agent and a document server in one process."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from seance.demo import stack as stack_module
from seance.demo.stack import DemoSettings, DemoStack, make_room
from seance.errors import ConfigError
from tests.relay.rig import Player
from tests.yserver.client import connect, reactor, until


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of loopback on which a socket listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest_twisted.ensureDeferred
async def test_two_clients_write_through_the_tunnel() -> None:
    stack = DemoStack(reactor, DemoSettings(port=0, room="r"))
    await stack.start()
    ada, ben = [await connect(stack.port, "/c/r/pad") for _ in range(2)]
    ada.write("through the tunnel")
    await until(lambda: str(ben.text) == "through the tunnel")
    await stack.stop()
    await ada.goes()
    await ben.goes()


@pytest_twisted.ensureDeferred
async def test_page_of_another_site_may_use_the_link() -> None:
    """The document server sees by ``X-Forwarded-Host`` that the connection comes through a relay."""
    stack = DemoStack(reactor, DemoSettings(port=0, room="r"))
    await stack.start()
    client = await connect(stack.port, "/c/r/pad", Origin="https://app.example")
    await until(lambda: client.is_synced)
    await stack.stop()
    await client.goes()


@pytest_twisted.ensureDeferred
async def test_browser_gets_the_pad_at_the_link() -> None:
    stack = DemoStack(reactor, DemoSettings(port=0, room="r"))
    await stack.start()
    player = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", stack.port), Player())
    player.send(b"GET /c/r HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\n\r\n")
    await player.ends()
    assert player.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Security-Policy: default-src 'none'; script-src 'sha256-" in player.received
    assert player.received.rstrip().endswith(b"-->")
    player.leg.loseConnection()
    await player.goes()
    await stack.stop()


@pytest_twisted.ensureDeferred
async def test_taken_port_is_replaced_by_another_unless_it_was_set(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "PORT", taken_port)
    stack = DemoStack(reactor, DemoSettings())
    await stack.start()
    assert stack.port not in (0, taken_port)
    await stack.stop()
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{taken_port}"):
        await DemoStack(reactor, DemoSettings(port=taken_port)).start()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest_twisted.ensureDeferred
async def test_host_is_the_listening_address(host: str) -> None:
    stack = DemoStack(reactor, DemoSettings(host=host, port=0))
    await stack.start()
    client = await connect(stack.port, f"/c/{stack.room}/pad")
    await until(lambda: client.is_synced)
    await stack.stop()
    await client.goes()


@pytest_twisted.ensureDeferred
async def test_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        await DemoStack(reactor, DemoSettings(host="192.0.2.1", port=0)).start()


@pytest_twisted.ensureDeferred
async def test_text_is_kept_in_the_store(tmp_path: Path) -> None:
    for text in ("one ", "two "):
        stack = DemoStack(reactor, DemoSettings(port=0, store=tmp_path / "s"))
        await stack.start()
        client = await connect(stack.port, f"/c/{stack.room}/pad")
        await until(lambda: client.is_synced)  # noqa: B023  # awaited in the loop
        client.write(text)
        reader = await connect(stack.port, f"/c/{stack.room}/pad")
        await until(lambda: text in str(reader.text))  # noqa: B023
        await stack.stop()
        await client.goes()
        await reader.goes()
    assert str(reader.text) == "one two "


def test_default_room_cannot_be_guessed() -> None:
    rooms = {make_room() for _ in range(100)}
    assert len(rooms) == 100
    assert all(re.fullmatch("[a-z2-7]{16}", room) for room in rooms)


def test_invalid_room_name_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="room name"):
        DemoStack(reactor, DemoSettings(room="a b"))
