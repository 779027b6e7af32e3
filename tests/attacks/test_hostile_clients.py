"""Clients that come and go by the thousand, take nothing, or talk too early, against real processes."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.attacks.parties import MIB, EchoServer, Innocent, innocent_room, say, settles
from tests.e2e.wire import Wire, upgrade
from tests.processes import RelayProcess, running_agent, running_relay, until

KIB = 1024
ROOM = "flooded"


def enter_and_wait(relay: RelayProcess) -> Wire:
    """A client of the flooded room that is let in."""
    client = Wire.dial(("127.0.0.1", relay.port))
    client.send(upgrade(f"/c/{ROOM}/doc"))
    assert client.read_head().status == 101
    return client


@pytest.mark.slow
def test_ten_thousand_clients_that_come_and_go_leave_nothing() -> None:
    """A28, rapid reset: every one opens a stream and cuts it, most of them before it is answered."""
    count, batch, streams = 10_000, 25, 64
    rates = ("--upgrades-per-room", "100000", "--upgrades-per-address", "100000")
    with (
        EchoServer() as server,
        running_relay(*rates, "--streams-per-agent", str(streams)) as relay,
        innocent_room(relay) as target,
        running_agent(relay, ROOM, local_port=server.port) as agent,
    ):
        for _ in range(200):
            enter_and_wait(relay).cut()
        until("the first are gone", lambda: server.open_count == 0)
        before = {process: process.resident_bytes() for process in (relay, agent)}
        descriptors = {process: len(process.open_descriptors()) for process in (relay, agent)}
        with Innocent(relay, target, name="stream flood"):
            for _ in range(count // batch):
                clients = [Wire.dial(("127.0.0.1", relay.port)) for _ in range(batch)]
                for client in clients:
                    client.send(upgrade(f"/c/{ROOM}/doc"))
                clients[0].read_head()  # no matter which: the attacker keeps pace with the relay
                for client in clients:
                    client.cut()
            until("the local server is rid of all", lambda: server.open_count == 0)
        grown = {process.name: process.resident_bytes() - before[process] for process in before}
        say("stream flood", **{name: f"{count // KIB} KiB" for name, count in grown.items()})
        assert max(grown.values()) < 8 * MIB
        for process, most in descriptors.items():
            until(f"{process.name} is rid of all", lambda p=process, m=most: len(p.open_descriptors()) <= m)
        # No stream is left either: as many as there may be fit in, and not one more.
        with contextlib.ExitStack() as stack:
            for _ in range(streams):
                stack.enter_context(enter_and_wait(relay))
            with Wire.dial(("127.0.0.1", relay.port)) as one_more:
                one_more.send(upgrade(f"/c/{ROOM}/doc"))
                assert one_more.read_head().status == 429


@pytest.mark.slow
def test_clients_that_take_nothing_are_cut_and_cost_a_window_each() -> None:
    """A33: 40 of them, each with 4 MiB waiting for it."""
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
        with Innocent(relay, target, name="clients that take nothing"), contextlib.ExitStack() as stack:
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
        say("clients that take nothing", **{one.name: f"{size // KIB} KiB" for one, size in grown.items()})
        assert "(stalled)" in relay.output
        # A stream's window (256 KiB) and the transport's own buffer (64 KiB and one message more) each.
        assert grown[relay] < count * (256 + 2 * 64) * KIB
        assert grown[agent] < count * 3 * 64 * KIB + 4 * MIB
        settles(relay, "clients that take nothing", descriptors)


@pytest.mark.slow
def test_what_came_early_is_not_kept_for_the_life_of_a_connection() -> None:
    """60 KiB before the 101 (--early-bytes allows 64) are passed on, and then they are nobody's."""
    count, early = 200, b"e" * 60 * KIB
    with (
        EchoServer() as server,
        running_relay() as relay,
        running_agent(relay, ROOM, local_port=server.port),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(enter_and_wait(relay))
        before = relay.resident_bytes()
        for _ in range(count):
            client = stack.enter_context(Wire.dial(("127.0.0.1", relay.port)))
            client.send(upgrade(f"/c/{ROOM}/doc") + early)
            assert client.read_head().status == 101
            assert client.read_exactly(len(early)) == early
        grown = relay.resident_bytes() - before
        say("early bytes", kib_each=grown // KIB // count)
        assert grown < count * 60 * KIB
