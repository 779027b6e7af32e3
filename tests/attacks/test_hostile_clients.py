"""Clients that connect and disconnect by the thousand, read nothing, or send before the 101."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.attacks.parties import MIB, EchoServer, Innocent, innocent_room, say, settles
from tests.e2e.wire import Wire, upgrade
from tests.processes import RelayProcess, running_agent, running_relay, until

KIB = 1024
ROOM = "flooded"


def connect_client(relay: RelayProcess) -> Wire:
    """Connect a client to the flooded room and wait for its 101."""
    client = Wire.dial(("127.0.0.1", relay.port))
    client.send(upgrade(f"/c/{ROOM}/doc"))
    assert client.read_head().status == 101
    return client


@pytest.mark.slow
@pytest.mark.alone
def test_rapid_resets_of_5000_clients_leave_nothing_behind() -> None:
    """Each client opens a stream and resets it, most of them before the answer."""
    count, batch, streams = 5_000, 25, 64
    rates = ("--upgrades-per-room", "100000", "--upgrades-per-address", "100000")
    with (
        EchoServer() as server,
        running_relay(*rates, "--streams-per-agent", str(streams)) as relay,
        innocent_room(relay) as target,
        running_agent(relay, ROOM, local_port=server.port) as agent,
    ):
        for _ in range(200):
            connect_client(relay).cut()
        until("the first have gone", lambda: server.open_count == 0)
        before = {process: process.resident_bytes() for process in (relay, agent)}
        descriptors = {process: len(process.open_descriptors()) for process in (relay, agent)}
        with Innocent(relay, target, name="stream flood"):
            for _ in range(count // batch):
                clients = [Wire.dial(("127.0.0.1", relay.port)) for _ in range(batch)]
                for client in clients:
                    client.send(upgrade(f"/c/{ROOM}/doc"))
                clients[0].read_head()  # any client: the attacker waits for the relay
                for client in clients:
                    client.cut()
            until("the local server has no connection left", lambda: server.open_count == 0)
        grown = {process.name: process.resident_bytes() - before[process] for process in before}
        say("stream flood", **{name: f"{count // KIB} KiB" for name, count in grown.items()})
        assert max(grown.values()) < 8 * MIB
        for process, count in descriptors.items():
            settles(process, "stream flood", count)
        # No stream is left either: the limit of streams is free, and not one more.
        with contextlib.ExitStack() as stack:
            for _ in range(streams):
                stack.enter_context(connect_client(relay))
            with Wire.dial(("127.0.0.1", relay.port)) as one_more:
                one_more.send(upgrade(f"/c/{ROOM}/doc"))
                assert one_more.read_head().status == 429


@pytest.mark.slow
def test_clients_that_read_nothing_are_cut_and_cost_at_most_a_window_each() -> None:
    """40 clients; 4 MiB are sent to each."""
    count, pour_bytes = 40, 4 * MIB
    with (
        EchoServer(pour_bytes=pour_bytes) as server,
        running_relay("--stalled-seconds", "2") as relay,
        innocent_room(relay) as target,
        running_agent(relay, ROOM, local_port=server.port) as agent,
    ):
        before = {process: process.resident_bytes() for process in (relay, agent)}
        descriptors = len(relay.open_descriptors())
        grown = dict.fromkeys(before, 0)
        with Innocent(relay, target, name="clients that read nothing"), contextlib.ExitStack() as stack:
            for _ in range(count):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * KIB)
                client.connect(("127.0.0.1", relay.port))
                client.sendall(upgrade(f"/c/{ROOM}/doc"))

            def are_cut() -> bool:
                for process, start in before.items():
                    grown[process] = max(grown[process], process.resident_bytes() - start)
                return len(server.heads) == count and server.open_count == 0

            until("all are cut", are_cut)
        say("clients that read nothing", **{one.name: f"{size // KIB} KiB" for one, size in grown.items()})
        assert "(stalled)" in relay.output
        # A stream's window (256 KiB) and the transport's own buffer (64 KiB and one message more) each.
        assert grown[relay] < count * (256 + 2 * 64) * KIB
        assert grown[agent] < count * 3 * 64 * KIB + 4 * MIB
        settles(relay, "clients that read nothing", descriptors)


@pytest.mark.slow
def test_early_bytes_are_freed_once_they_are_passed_on() -> None:
    """Each client sends 60 KiB before the 101; --early-bytes allows 64 KiB."""
    count, early = 200, b"e" * 60 * KIB
    with (
        EchoServer() as server,
        running_relay("--initial-syncs", "1000") as relay,
        running_agent(relay, ROOM, local_port=server.port),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(connect_client(relay))
        before = relay.resident_bytes()
        for _ in range(count):
            client = stack.enter_context(Wire.dial(("127.0.0.1", relay.port)))
            client.send(upgrade(f"/c/{ROOM}/doc") + early)
            assert client.read_head().status == 101
            assert client.read_exactly(len(early)) == early
        grown = relay.resident_bytes() - before
        say("early bytes", kib_each=grown // KIB // count)
        assert grown < count * 60 * KIB
