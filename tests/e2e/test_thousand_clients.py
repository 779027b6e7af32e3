"""A thousand concurrent clients of one agent; they leave no file descriptor behind in relay and agent.

The descriptors are read from /proc. Tests that run relay and agent in the reactor of the tests count streams
and delayed calls.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from tests.e2e.peers import node_crowd
from tests.processes import running_agent, running_node, running_relay, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import TunnelMaker
    from tests.e2e.peers import Asked
    from tests.processes import Process

CLIENTS = 1000
DESCRIPTORS = 8192
ENDINGS = ["close", "fin", "reset"]


@pytest.fixture(scope="module", autouse=True)
def many_descriptors() -> Iterator[None]:
    """Raise the limit that the processes inherit: each has one or two sockets per client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    assert enough >= 2 * CLIENTS + 200, (
        f"{CLIENTS} clients need more than {hard} file descriptors (ulimit -n)"
    )
    if soft == resource.RLIM_INFINITY or soft >= enough:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def echo_server(many_descriptors: None) -> Iterator[Process]:
    with running_node("echo_server.mjs", ready="running at", env={"PORT": "0"}) as server:
        yield server


@pytest.fixture(scope="module")
def echo_port(echo_server: Process) -> int:
    return int(echo_server.output.rsplit(" ", 1)[1])


@pytest.fixture
def crowd(many_descriptors: None) -> Iterator[Asked]:
    with node_crowd() as crowd:
        yield crowd


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_clients_of_one_agent_echo_at_the_same_time(echo_port: int, crowd: Asked) -> None:
    with running_relay() as relay, running_agent(relay, "crowded", local_port=echo_port):
        before = len(relay.open_descriptors())
        assert crowd.ask("dial", url=relay.client_url("crowded"), count=CLIENTS, seconds=60) == CLIENTS
        assert len(relay.open_descriptors()) >= before + CLIENTS
        assert crowd.ask("echo", bytes=64, rounds=3, seconds=60) == 3 * CLIENTS
        assert crowd.ask("echo", bytes=20_000, seconds=60) == CLIENTS
        crowd.ask("end", how="close", seconds=60)
        until("the relay has closed them", lambda: len(relay.open_descriptors()) == before)


@pytest.mark.slow
@pytest.mark.alone
def test_a_hundred_rounds_leave_no_descriptor_behind(
    echo_server: Process, echo_port: int, crowd: Asked
) -> None:
    """Clients close, end TCP or reset in turn; the first round of each kind is not counted."""
    with (
        running_relay() as relay,
        running_agent(relay, "churning", local_port=echo_port) as agent,
    ):
        # A port, the link and the health socket; the link and the health socket; a port.
        idle_sockets = {relay: 3, agent: 2, echo_server: 1}

        def rounds(count: int) -> None:
            for number in range(count):
                crowd.ask("dial", url=relay.client_url("churning"), count=10)
                assert crowd.ask("echo", bytes=1000) == 10
                crowd.ask("end", how=ENDINGS[number % len(ENDINGS)])

        rounds(len(ENDINGS))
        before = {process: settled(process, sockets) for process, sockets in idle_sockets.items()}
        rounds(100)
        assert {process: settled(process, sockets) for process, sockets in idle_sockets.items()} == before


def settled(process: Process, sockets: int) -> int:
    """Wait until a process has this number of sockets, and return its number of descriptors."""
    until(f"{process.name} has {sockets} sockets", lambda: sockets_of(process) == sockets)
    return len(process.open_descriptors())


def sockets_of(process: Process) -> int:
    """Count the sockets of a process, listening ones included."""
    return sum(target.startswith("socket:") for target in process.open_descriptors().values())


def test_fifty_clients_of_one_agent_echo_and_leave(echo_port: int, crowd: Asked, tunnel: TunnelMaker) -> None:
    """The small variant, for the quick run."""
    shared = tunnel(echo_port)
    for how in ENDINGS:
        assert crowd.ask("dial", url=shared.client_url, count=50) == 50
        assert crowd.ask("echo", bytes=5000) == 50
        crowd.ask("end", how=how)
