"""Upgrade without interruption: two relays behind HAProxy that alternate, with ``haproxy.cfg`` unchanged.

The steps are those of "Upgrading" in ``docs/operations.md``: start the idle relay, stop the other.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Authority
from tests.e2e.peers import LocalAddress, node_peer
from tests.faults.figures import report
from tests.operations.parties import EchoServer, Talker, dial
from tests.operations.proxies import Frontend, Place, haproxy
from tests.processes import AgentProcess, RelayProcess, free_port, running_agent, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DRAIN_SECONDS = 40.0
"""``--drain-seconds`` and some time for the process to end."""

BACK_SECONDS = 20.0
"""Bound for "within seconds" on a slow machine; the page has the measured figure."""


class Pair:
    """Two relays, blue and green, behind one HAProxy. Each is started on its fixed port."""

    def __init__(self, front: Frontend, ports: tuple[int, int]) -> None:
        self.front = front
        self._ports = ports

    @property
    def link(self) -> str:
        return f"{self.front.url}/c/room"

    @contextlib.contextmanager
    def start(self, number: int) -> Iterator[RelayProcess]:
        listen = f"tcp:{self._ports[number]}:interface=127.0.0.1"
        options = ("--trusted-proxy", "127.0.0.1", "--head-seconds", "30")
        with RelayProcess(*options, listen=listen) as relay:
            yield relay
        relay.check_quiet()


@contextlib.contextmanager
def pair(folder: Path) -> Iterator[tuple[Pair, tuple[str, ...]]]:
    """Yield the proxy, and the options of an agent that connects through it."""
    authority = Authority(folder)
    ports = free_port(), free_port()
    place = Place(folder, authority.issue("localhost"), authority.file, ports)
    with haproxy(place) as front:
        yield Pair(front, ports), ("--relay", front.url, "--tls-ca", str(authority.file))


def wait_for_state(state: str, name: str, front: Frontend) -> None:
    """Wait until HAProxy reports this relay as UP or DOWN."""
    front.process.when_line(rf"Server relays/{name} is {state}")


def replace(old: RelayProcess, agent: AgentProcess) -> float:
    """Send SIGTERM; return the seconds until the agent is connected to the other relay."""
    began = time.monotonic()
    old.signal(signal.SIGTERM)
    agent.when_connected()
    return time.monotonic() - began


def is_served(url: str, front: Frontend) -> bool:
    with contextlib.suppress(Exception), dial(url, front.context, open_timeout=2.0) as client:
        client.send("here")
        return client.recv(2.0) == "here"
    return False


def test_agent_and_clients_move_to_the_other_relay_and_stay(tmp_path: Path) -> None:
    """Blue to green and back; HAProxy is reloaded in between, and no client returns to the old relay."""
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(EchoServer())
        here, through = stack.enter_context(pair(tmp_path))
        blue = stack.enter_context(here.start(0))
        agent = AgentProcess("room", *through, "--local", f"127.0.0.1:{local.port}")
        stack.enter_context(agent)
        agent.when_connected()
        talker = Talker(here.link, here.front.context)
        until("the client has answers", lambda: talker.count > 10)
        wait_for_state("DOWN", "green", here.front)
        green = stack.enter_context(here.start(1))
        wait_for_state("UP", "green", here.front)
        replace(blue, agent)
        wait_for_state("DOWN", "blue", here.front)
        until("the client was closed", lambda: talker.trouble is not None, deadline_seconds=DRAIN_SECONDS)
        assert talker.trouble is not None
        assert "1012" in talker.trouble
        until(
            "clients are served again",
            lambda: is_served(here.link, here.front),
            deadline_seconds=BACK_SECONDS,
        )
        assert blue.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
        green.when_line("An agent serves room")
        here.front.reload()
        assert is_served(here.link, here.front), "one running relay serves all after a reload"
        wait_for_state("DOWN", "blue", here.front)
        blue = stack.enter_context(here.start(0))
        wait_for_state("UP", "blue", here.front)
        for _ in range(5):
            assert is_served(here.link, here.front), "a client went to the relay without the agent"
        assert "An agent serves room" not in blue.output
        replace(green, agent)
        until(
            "clients are served again",
            lambda: is_served(here.link, here.front),
            deadline_seconds=BACK_SECONDS,
        )
        assert green.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
        blue.when_line("An agent serves room")
        talker.stop()
        agent.signal(signal.SIGTERM)
        agent.when_exited()


def test_no_edit_during_an_upgrade_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock y-websocket clients edit while the relay behind them is replaced, and are equal at the end."""
    names = [f"client {number}" for number in range(8)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(LocalAddress("y-websocket"))
        here, through = stack.enter_context(pair(tmp_path))
        monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(here.front.authority))
        node = stack.enter_context(node_peer())
        blue = stack.enter_context(here.start(0))
        agent = stack.enter_context(running_agent(blue, "room", *through, local_port=server.port))
        for name in names:
            node.open(name, "y-websocket-3", here.link, "doc")
        node.when_synced(*names)
        wait_for_state("DOWN", "green", here.front)
        stack.enter_context(here.start(1))
        wait_for_state("UP", "green", here.front)
        restarting = time.monotonic()
        replace(blue, agent)
        for _ in range(10):
            node.ask("edits", names=names, count=5)
            time.sleep(0.2)
        assert blue.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
        node.when_synced(*names)
        node.when_equal(*names)
        report("relay replaced behind haproxy", restore_s=time.monotonic() - restarting, clients=len(names))
        closes = {code for name in names for code in node.ask("trace", name=name)["closes"]}
        assert 1012 in closes, "connected clients were closed with 1012"
        assert closes <= {1012, 1006}, "1006 is a failed dial"
        agent.signal(signal.SIGTERM)
        agent.when_exited()
