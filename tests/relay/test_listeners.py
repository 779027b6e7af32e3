"""Listening of a relay and its admin port: stale UNIX sockets, and machines with one loopback address."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import LogEvent, globalLogPublisher

from seance.admin.port import RelayAdmin
from seance.core.settings import RelaySettings
from seance.errors import ConfigError
from seance.relay.service import Relay
from tests.relay.rig import reactor

NO_ADDRESS = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
NO_FAMILY = OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
TAKEN = OSError(errno.EADDRINUSE, "Address already in use")


class Machine:
    """The test's reactor on a machine that lacks some addresses.

    Args:
        errors: The error of binding each address.
    """

    def __init__(self, errors: dict[str, OSError]) -> None:
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def listenTCP(  # Twisted's name
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        if interface in self._errors:
            raise CannotListenError(interface, port, self._errors[interface])
        return reactor.listenTCP(port, factory, backlog, interface)  # type: ignore[no-any-return]  # Twisted's


def leave_stale_socket(path: Path) -> None:
    """Leave the files of a relay that was pid 1 of a container and was killed."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(os.fspath(path))
        stale.listen()
    Path(f"{path}.lock").symlink_to("1")


@ensureDeferred
async def test_a_relay_listens_again_after_it_was_killed_in_a_container(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    leave_stale_socket(path)
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    relay = Relay(reactor, RelaySettings(listen=(f"unix:{path}",)))
    relay.startService()
    await relay.when_listening()
    globalLogPublisher.removeObserver(lines.append)
    said = [line["log_format"].format(**line) for line in lines if line.get("event") == "relay.listening"]
    assert said == [f"🔌 Tunnel Relay Server starting on unix:{path}"]
    second = Relay(reactor, RelaySettings(listen=(f"unix:{path}",)))
    with pytest.raises(ConfigError, match=r"another process listens there\. Stop the program that uses it"):
        second.startService()
    await second.stopService()
    await relay.stopService()
    assert list(tmp_path.iterdir()) == []


@ensureDeferred
async def test_urls_use_the_first_port_with_a_number(tmp_path: Path) -> None:
    lines: list[LogEvent] = []
    globalLogPublisher.addObserver(lines.append)
    relay = Relay(reactor, RelaySettings(listen=(f"unix:{tmp_path}/sock", "tcp:0:interface=127.0.0.1")))
    relay.startService()
    ports = await relay.when_listening()
    globalLogPublisher.removeObserver(lines.append)
    number = ports[1].getHost().port  # type: ignore[attr-defined]  # of TCP
    said = [line["log_format"].format(**line) for line in lines if line.get("event") == "relay.listening"]
    assert said[0].endswith(f"starting on port {number}")
    assert said[1:] == [
        f"Agent endpoint: ws://localhost:{number}/agent?room=<room-id>",
        f"Client endpoint: ws://localhost:{number}/client?room=<room-id>",
    ]
    await relay.stopService()


@ensureDeferred
async def test_the_admin_port_removes_a_stale_socket_but_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    leave_stale_socket(path)
    admin = RelayAdmin(reactor, RelaySettings(admin=f"unix:{path}"))
    admin.startService()
    await admin.when_listening()
    await admin.stopService()
    path.write_text("precious")
    admin = RelayAdmin(reactor, RelaySettings(admin=f"unix:{path}"))
    with pytest.raises(ConfigError, match=r"cannot listen on unix:.*not a socket.*with --admin"):
        admin.startService()
    assert path.read_text() == "precious"
    await admin.stopService()


def hosts(ports: list[IListeningPort]) -> list[str]:
    return [port.getHost().host for port in ports]  # type: ignore[attr-defined]  # of TCP


@ensureDeferred
@pytest.mark.parametrize("why", [NO_ADDRESS, NO_FAMILY], ids=["no address", "no family"])
@pytest.mark.parametrize(("lacking", "rest"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
async def test_a_relay_listens_on_the_available_loopback_address(
    lacking: str, rest: str, why: OSError
) -> None:
    relay = Relay(Machine({lacking: why}), RelaySettings(port=0))
    relay.startService()
    assert hosts(await relay.when_listening()) == [rest]
    await relay.stopService()


@ensureDeferred
async def test_a_relay_without_loopback_names_the_missing_addresses() -> None:
    relay = Relay(Machine({"127.0.0.1": NO_ADDRESS, "::1": NO_ADDRESS}), RelaySettings(port=0))
    with pytest.raises(ConfigError, match=r"neither 127\.0\.0\.1 nor ::1\. Bring its loopback interface up"):
        relay.startService()
    await relay.stopService()


@ensureDeferred
@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
async def test_a_loopback_port_in_use_ends_the_start(taken: str) -> None:
    relay = Relay(Machine({taken: TAKEN}), RelaySettings(port=0))
    with pytest.raises(ConfigError, match=r"Address already in use\. Stop the program that uses it"):
        relay.startService()
    assert not relay.is_ready
    await relay.stopService()


@ensureDeferred
async def test_an_address_of_another_machine_has_its_own_message() -> None:
    relay = Relay(reactor, RelaySettings(listen=("tcp:0:interface=192.0.2.1",)))
    with pytest.raises(ConfigError, match="This machine does not have that address; choose another") as found:
        relay.startService()
    assert "uses it" not in found.value.message
    await relay.stopService()


async def admin_on(machine: Machine, endpoint: str | None) -> tuple[RelayAdmin, list[str]]:
    admin = RelayAdmin(machine, RelaySettings(admin=endpoint))
    admin.startService()
    port = await admin.when_listening()
    return admin, [] if port is None else hosts([port])


@ensureDeferred
async def test_the_admin_port_uses_the_available_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seance.admin.service.DEFAULT_ENDPOINT", "tcp:0:interface=127.0.0.1")
    for endpoint in (None, "tcp:0:interface=127.0.0.1"):
        admin, where = await admin_on(Machine({"127.0.0.1": NO_ADDRESS}), endpoint)
        assert where == ["::1"]
        await admin.stopService()
    nowhere = Machine({"127.0.0.1": NO_ADDRESS, "::1": NO_FAMILY})
    admin, where = await admin_on(nowhere, None)
    assert where == []
    await admin.stopService()
    admin = RelayAdmin(nowhere, RelaySettings(admin="tcp:0:interface=127.0.0.1"))
    with pytest.raises(ConfigError, match="does not have that address"):
        admin.startService()
    await admin.stopService()


@ensureDeferred
@pytest.mark.parametrize(("error", "says"), [(TAKEN, "Stop the program"), (NO_ADDRESS, "does not have")])
async def test_an_unavailable_default_admin_port_logs_the_reason(
    error: OSError, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seance.admin.service.DEFAULT_ENDPOINT", "tcp:0:interface=127.0.0.1")
    lines: list[LogEvent] = []
    note: Callable[[LogEvent], None] = lines.append
    globalLogPublisher.addObserver(note)
    admin, where = await admin_on(Machine({"127.0.0.1": error, "::1": error}), None)
    globalLogPublisher.removeObserver(note)
    assert where == []
    [line] = [one for one in lines if one.get("event") == "admin.no_port"]
    assert says in line["why"]
    await admin.stopService()
