"""The local server or a client fails; the link between agent and relay stays up.

The local server dies, refuses, hangs or drops some of its clients. Clients are killed in large numbers, never
read, or read a few bytes per second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from collections.abc import Iterator

import pytest

from tests.attacks.parties import EchoServer
from tests.e2e.wire import KEY, Wire, switching, upgrade
from tests.faults.figures import Stopwatch, report
from tests.faults.stage import ROOM, Stage, settles
from tests.processes import DEADLINE_SECONDS, running_agent, until

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


def status_of(stage: Stage, target: str = f"/c/{ROOM}/0") -> int:
    """Return the status that a client gets."""
    with Wire.dial(stage.relay_address) as client:
        client.send(upgrade(target))
        return client.read_head().status


def test_clients_dropped_by_the_local_server_are_disconnected_and_others_stay() -> None:
    with Stage(clients=20) as stage:
        stage.let_clients_in()
        assert stage.load.drop_at_server(lambda number: number % 2 == 0) == 10
        until("they were disconnected", lambda: stage.load.toll().clients_disconnected == 10)
        restore = stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        report("F13 half dropped", restore_s=restore, **dataclasses.asdict(toll), **stage.figures())
        assert toll.clients_disconnected == 10
        assert not any(list(toll.fates.values())[1:]), toll
        assert stage.cutter.pair_count == 1


def test_the_death_of_the_local_server_disconnects_clients_but_not_the_link() -> None:
    """A client that connects in the meantime is refused before any 101."""
    with Stage(clients=20) as stage:
        stage.let_clients_in()
        dials = len(stage.cutter.dials)
        stage.load.stop_listening()
        until("all were disconnected", lambda: stage.load.connected_count == 0)
        assert status_of(stage) == 502
        stage.load.resume_listening()
        restore = stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        report("F13 killed", restore_s=restore, **dataclasses.asdict(toll), **stage.figures())
        assert set(stage.load.refusals) <= {502}
        assert toll.clients_disconnected == 20
        assert not any(list(toll.fates.values())[1:]), toll
        assert len(stage.cutter.dials) == dials


def test_a_hanging_local_server_is_502_after_the_timeout() -> None:
    """The kernel accepts the connection, and the server does not answer."""
    with (
        Stage(clients=5, relay_options=("--upgrade-seconds", "2")) as stage,
        socket.create_server(("127.0.0.1", 0)) as hung,
        running_agent(stage.relay, "hung", local_port=hung.getsockname()[1]) as agent,
    ):
        stage.let_clients_in()
        before = len(agent.open_descriptors())
        watch = Stopwatch()
        assert status_of(stage, "/c/hung") == 502
        report("F13 hangs", answered_s=watch.seconds)
        stage.when_messages_pass()
        settles(agent, before)


@contextlib.contextmanager
def full_backlog() -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """Make a local server with a full backlog, whose kernel answers no further SYN.

    Yields:
        The server, and the connections in its backlog.
    """
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        waiting: list[socket.socket] = []
        while len(waiting) < 8:
            dialled = stack.enter_context(socket.socket())
            dialled.settimeout(0.3)
            try:
                dialled.connect(server.getsockname())
            except TimeoutError:
                dialled.close()  # otherwise its SYN is repeated before that of the agent
                break
            waiting.append(dialled)
        assert len(waiting) < 8, "this kernel accepts more connections than the backlog"
        yield server, waiting


def test_a_local_server_with_a_full_backlog_is_502_after_the_timeout() -> None:
    """With a full backlog not even TCP answers."""
    with (
        Stage(clients=5) as stage,
        full_backlog() as (server, _),
        running_agent(
            stage.relay, "full", "--local-dial-seconds", "1.5", local_port=server.getsockname()[1]
        ) as agent,
    ):
        stage.let_clients_in()
        before = len(agent.open_descriptors())
        watch = Stopwatch()
        assert status_of(stage, "/c/full") == 502
        report("F13 does not accept", answered_s=watch.seconds)
        stage.when_messages_pass()
        settles(agent, before)


def test_a_client_waits_for_a_local_server_that_accepts_late() -> None:
    """The client's upgrade waits while the kernel repeats its SYN."""
    with (
        Stage(clients=5) as stage,
        full_backlog() as (server, waiting),
        running_agent(stage.relay, "late", local_port=server.getsockname()[1]),
        Wire.dial(stage.relay_address) as client,
    ):
        stage.let_clients_in()
        watch = Stopwatch()
        client.send(upgrade("/c/late"))
        stage.when_messages_pass()
        for _ in waiting:
            server.accept()[0].close()
        server.settimeout(DEADLINE_SECONDS)
        with Wire(server.accept()[0]) as local:
            local.read_head()
            local.send(switching(KEY))
            assert client.read_head().status == 101
            report("F13 accepts late", answered_s=watch.seconds)
            client.send(b"to the end")
            assert local.read_exactly(10) == b"to the end"


@pytest.mark.slow
def test_many_clients_that_are_killed_or_do_not_read_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred clients are killed together; others read nothing or little of 4 MiB each.

    Twice, because Python keeps memory that it has used once: the second time must not cost what the first
    did, which is the windows of a hundred streams, about 30 MiB. The environment makes the allocator return
    large pieces, which it does not by default (docs/operations.md, "Memory"); holes in the heap would hide a
    leak, or look like one.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with (
        Stage(clients=10, relay_options=("--stalled-seconds", "3"), slack_bytes=64 * MIB) as stage,
        EchoServer(pour_bytes=4 * MIB) as pouring,
        running_agent(stage.relay, "poured", local_port=pouring.port) as agent,
    ):
        stage.let_clients_in()
        processes = (stage.relay, agent)
        descriptors = [len(process.open_descriptors()) for process in processes]
        held = []
        for _ in range(2):
            a_crowd_comes_and_goes(stage)
            until("the local server has been left", lambda: pouring.open_count == 0)
            for process, before in zip(processes, descriptors, strict=True):
                settles(process, before)
            held.append([process.resident_bytes() for process in processes])
        stage.when_messages_pass()
        stage.load.settle()
        toll = stage.load.toll()
        grown = [after - before for before, after in zip(*held, strict=True)]
        report("F14", grown_mib=[one // MIB for one in grown], **dataclasses.asdict(toll), **stage.figures())
        assert not any(toll.fates.values()), toll
        assert max(grown) < 16 * MIB


def a_crowd_comes_and_goes(stage: Stage) -> None:
    with contextlib.ExitStack() as stack:

        def joined() -> Wire:
            client = stack.enter_context(Wire.dial(stage.relay_address))
            client.send(upgrade("/c/poured"))
            assert client.read_head().status == 101
            return client

        killed, deaf, slow = ([joined() for _ in range(count)] for count in (100, 10, 3))
        for client in killed:
            client.cut()
        end = time.monotonic() + 4
        while time.monotonic() < end:
            for client in slow:
                with contextlib.suppress(ConnectionError):
                    client.read_exactly(1)
            time.sleep(1)
        for client in (*deaf, *slow):
            client.cut()
