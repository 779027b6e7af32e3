"""Upgrading without losing anybody: two relays behind HAProxy that take turns, with ``haproxy.cfg`` as it is.

The steps are those of "Upgrading" in ``docs/operations.md``: start the one that rests, stop the other.
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
"""``--drain-seconds`` and a little for the process to end."""

BACK_SECONDS = 20.0
"""What is still "within seconds" on a slow machine; the figure in the page is measured, not asserted."""


class Pair:
    """Blue and green behind one HAProxy. A relay is started on its own port each time."""

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
    """The proxy, and what an agent is told to come through it."""
    authority = Authority(folder)
    ports = free_port(), free_port()
    place = Place(folder, authority.issue("localhost"), authority.file, ports)
    with haproxy(place) as front:
        yield Pair(front, ports), ("--relay", front.url, "--tls-ca", str(authority.file))


def until_it_is(state: str, name: str, front: Frontend) -> None:
    """HAProxy has seen that this relay is there, or is not; as ``show stat`` would tell a person."""
    front.process.when_line(rf"Server relays/{name} is {state}")


def replace(old: RelayProcess, agent: AgentProcess) -> float:
    """SIGTERM; gives the seconds until its agent was taken by the other one."""
    began = time.monotonic()
    old.signal(signal.SIGTERM)
    agent.when_connected()
    return time.monotonic() - began


def is_back(url: str, front: Frontend) -> bool:
    with contextlib.suppress(Exception), dial(url, front.context, open_timeout=2.0) as client:
        client.send("here")
        return client.recv(2.0) == "here"
    return False


def test_everybody_moves_to_the_other_relay_and_stays_there(tmp_path: Path) -> None:
    """Blue to green and back again; HAProxy is reloaded in between, and nobody returns by themselves."""
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(EchoServer())
        here, through = stack.enter_context(pair(tmp_path))
        blue = stack.enter_context(here.start(0))
        agent = AgentProcess("room", *through, "--local", f"127.0.0.1:{local.port}")
        stack.enter_context(agent)
        agent.when_connected()
        talker = Talker(here.link, here.front.context)
        until("it talks", lambda: talker.count > 10)
        until_it_is("DOWN", "green", here.front)
        green = stack.enter_context(here.start(1))
        until_it_is("UP", "green", here.front)
        replace(blue, agent)
        until_it_is("DOWN", "blue", here.front)
        until("the client was told", lambda: talker.trouble is not None, deadline_seconds=DRAIN_SECONDS)
        assert talker.trouble is not None
        assert "1012" in talker.trouble
        until("clients come back", lambda: is_back(here.link, here.front), deadline_seconds=BACK_SECONDS)
        assert blue.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
        green.when_line("An agent serves room")
        here.front.reload()
        assert is_back(here.link, here.front), "where one relay runs, nobody has to remember"
        until_it_is("DOWN", "blue", here.front)
        blue = stack.enter_context(here.start(0))
        until_it_is("UP", "blue", here.front)
        for _ in range(5):
            assert is_back(here.link, here.front), "all go where the agent is"
        assert "An agent serves room" not in blue.output
        replace(green, agent)
        until("clients come back", lambda: is_back(here.link, here.front), deadline_seconds=BACK_SECONDS)
        assert green.when_exited(deadline_seconds=DRAIN_SECONDS) == 0
        blue.when_line("An agent serves room")
        talker.stop()
        agent.signal(signal.SIGTERM)
        agent.when_exited()


def test_nothing_that_is_typed_during_an_upgrade_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock y-websocket clients type while the relay behind them is replaced, and are equal in the end."""
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
        until_it_is("DOWN", "green", here.front)
        stack.enter_context(here.start(1))
        until_it_is("UP", "green", here.front)
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
        assert 1012 in closes, "who was connected was told that the service restarts"
        assert closes <= {1012, 1006}, "and 1006 is a dial that came to nothing"
        agent.signal(signal.SIGTERM)
        agent.when_exited()
