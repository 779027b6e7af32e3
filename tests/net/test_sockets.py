"""Socket options: set on TCP sockets, and harmless elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint

from seance.net import sockets, tune
from tests.ears import Ear
from tests.rigs import CarrierRig, MuxRig, OneByOne, TcpRig, WireRig


def options_of(sock: socket.socket) -> dict[str, int]:
    found = {}
    for level, name, _ in sockets.OPTIONS:
        if hasattr(socket, name):
            found[name] = sock.getsockopt(level, getattr(socket, name))
    return found


WANTED = {name: value for _, name, value in sockets.OPTIONS if hasattr(socket, name)}


@pytest_twisted.ensureDeferred
async def test_the_options_are_set_on_a_connection() -> None:
    rig = TcpRig()
    near, far = Ear(), Ear()
    await rig.connect(near, far)
    assert options_of(near.transport.socket) != WANTED
    tune(near.transport)
    assert options_of(near.transport.socket) == WANTED
    transport = near.transport
    transport.loseConnection()
    await rig.until(lambda: near.is_lost and far.is_lost)
    tune(transport)
    await rig.stop()


@pytest_twisted.ensureDeferred
async def test_accepted_sockets_inherit_the_options_of_the_port() -> None:
    rig = TcpRig()
    await rig.connect(Ear(), Ear())
    assert rig._port is not None
    tune(rig._port)
    assert options_of(rig._port.socket) == WANTED  # type: ignore[attr-defined]
    far = Ear()
    await rig.connect(Ear(), far)
    if "TCP_USER_TIMEOUT" in WANTED:
        assert options_of(far.transport.socket) == WANTED
    await rig.stop()


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_not_changed(tmp_path: Path) -> None:
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    near, far, server, client = Ear(), Ear(), OneByOne(), OneByOne()
    server.coming.append(far)
    client.coming.append(near)
    path = str(tmp_path / "socket")
    port = await UNIXServerEndpoint(reactor, path).listen(server)
    await UNIXClientEndpoint(reactor, path).connect(client)
    tune(port)
    tune(near.transport)
    assert near.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    near.transport.abortConnection()
    await port.stopListening()


@pytest.mark.parametrize("make_rig", [WireRig, MuxRig, CarrierRig])
@pytest_twisted.ensureDeferred
async def test_a_transport_without_a_socket_is_not_changed(make_rig: Any) -> None:
    rig = make_rig()
    near = Ear()
    await rig.connect(near, Ear())
    tune(near.transport)
    tune(None)
    await rig.stop()


@pytest_twisted.ensureDeferred
async def test_an_option_that_the_system_lacks_or_rejects_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ((socket.SOL_SOCKET, "SO_NO_SUCH", 1), (9999, "SO_KEEPALIVE", 1), *sockets.OPTIONS[:1])
    monkeypatch.setattr(sockets, "OPTIONS", options)
    rig = TcpRig()
    near = Ear()
    await rig.connect(near, Ear())
    tune(near.transport)
    assert near.transport.getTcpNoDelay()
    await rig.stop()
