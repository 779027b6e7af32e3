"""Fixtures of the tests with real processes: one relay, and one agent per local server.

``SEANCE_E2E=direct`` removes the tunnel: clients then connect to the local server itself. This is the control
run: a test that fails in it says nothing about the tunnel.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.e2e.peers import LocalAddress, Peer, node_peer, python_peer
from tests.processes import AgentProcess, RelayProcess, running_agent, running_relay

if TYPE_CHECKING:
    from collections.abc import Iterator

_rooms = (f"room-{number}" for number in itertools.count(1))


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A local server as clients see it; without relay and agent in a control run."""

    room: str
    local_port: int
    relay: RelayProcess | None
    agent: AgentProcess | None

    @property
    def direct_url(self) -> str:
        return f"ws://127.0.0.1:{self.local_port}"

    @property
    def client_url(self) -> str:
        """The base URL for a client: the share link."""
        return self.direct_url if self.relay is None else self.relay.client_url(self.room)

    @property
    def address(self) -> tuple[str, int]:
        """The address of a client's TCP connection."""
        return "127.0.0.1", self.local_port if self.relay is None else self.relay.port

    def target(self, local_target: str) -> str:
        """Return the target that a client requests to reach ``local_target`` at the local server."""
        return local_target if self.relay is None else f"/c/{self.room}{local_target}"

    def without(self) -> Tunnel:
        """Return the same local server, connected to directly."""
        return Tunnel(self.room, self.local_port, None, None)


class TunnelMaker(Protocol):
    def __call__(self, local_port: int) -> Tunnel: ...


def is_control_run() -> bool:
    """Return whether this run leaves the tunnel out."""
    return os.environ.get("SEANCE_E2E") == "direct"


@pytest.fixture(scope="session")
def relay() -> Iterator[RelayProcess]:
    """A relay for all tests that do not disturb it."""
    if is_control_run():
        pytest.skip("needs a relay, and this is the control run without one")
    with running_relay() as process:
        yield process


@pytest.fixture
def new_room() -> str:
    """A room name that no other test uses."""
    return next(_rooms)


@pytest.fixture(scope="module")
def tunnel(request: pytest.FixtureRequest) -> Iterator[TunnelMaker]:
    """``tunnel(local_port)`` connects a local server to the relay, for the rest of the module."""
    made: dict[int, Tunnel] = {}
    with contextlib.ExitStack() as stack:

        def make(local_port: int) -> Tunnel:
            if local_port not in made:
                room = next(_rooms)
                relay, agent = None, None
                if not is_control_run():
                    relay = request.getfixturevalue("relay")
                    agent = stack.enter_context(running_agent(relay, room, local_port=local_port))
                made[local_port] = Tunnel(room, local_port, relay, agent)
            return made[local_port]

        yield make


@pytest.fixture(scope="module")
def node() -> Iterator[Peer]:
    """A process for JavaScript clients."""
    with node_peer() as peer:
        yield peer


@pytest.fixture(scope="module")
def python() -> Iterator[Peer]:
    """A process for Python clients."""
    with python_peer() as peer:
        yield peer


@pytest.fixture(scope="module")
def y_websocket_server() -> Iterator[LocalAddress]:
    with LocalAddress("y-websocket") as server:
        yield server


@pytest.fixture(scope="module")
def hocuspocus_server() -> Iterator[LocalAddress]:
    with LocalAddress("hocuspocus") as server:
        yield server


@pytest.fixture(scope="module")
def pycrdt_server() -> Iterator[LocalAddress]:
    with LocalAddress("pycrdt") as server:
        yield server
