"""Latency of running streams while other clients load the tunnel.

    python benchmarks/crowd.py crowd           a thousand upgrades to the same room at the same moment
    python benchmarks/crowd.py crowd-go        the same, through the yardstick's pair
    python benchmarks/crowd.py crowd-direct    the same without a tunnel: the effect of the machine
    python benchmarks/crowd.py refuse          a client that asks for 30 MB and does not read
    python benchmarks/crowd.py refuse-go       the same, through the yardstick's pair
    python benchmarks/crowd.py refuse-direct   the same without a tunnel: the local server's cost

Relay, agent, local server, the crowd and the measuring clients are separate processes. Phases with and
without the crowd alternate in one run, because other load on the machine affects both alike. Each phase
prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection

from idle import SAID, SAYS, head, local_server, more
from programs import ROOT, Running, Yardstick, cpu_seconds, ours, running_pair

from tests.shaping.place import LocalAddress

RUNNING = 20
EVERY_SECONDS = 0.02
PHASE_SECONDS = 6.0
PAIRS = 3
CROWD = 1000
ASKED = b"bytes 30000000"
YARDSTICK = ROOT.parent / "shared" / "yardstick"


def echoes(clients: list[socket.socket], seconds: float) -> list[float]:
    """Send a message on each client every 20 ms; return the times until the echoes, in seconds."""
    took: list[float] = []
    said = dict.fromkeys(clients, 0.0)
    due = {client: time.perf_counter() + EVERY_SECONDS * n / len(clients) for n, client in enumerate(clients)}
    end = time.perf_counter() + seconds
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client, selectors.EVENT_READ)
    while (now := time.perf_counter()) < end:
        for client, when in due.items():
            if when <= now and not said[client]:
                said[client] = now
                # Keep each client's own rhythm: clients that were late together would stay a burst.
                due[client] = when + EVERY_SECONDS * max(1, math.ceil((now - when) / EVERY_SECONDS))
                client.sendall(SAYS)
        wait = (
            min(when for client, when in due.items() if not said[client]) - now
            if not all(said.values())
            else 1
        )
        for key, _ in selector.select(max(0.0, min(wait, 0.02))):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            if client.recv(4096).endswith(SAID) and said[client]:
                took.append(time.perf_counter() - said[client])
                said[client] = 0.0
    while any(said.values()):
        for key, _ in selector.select(5.0):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            client.recv(4096)
            took.append(time.perf_counter() - said[client])
            said[client] = 0.0
    return took


def come_together(port: int, news: Connection) -> None:
    """Run the crowd: wait for the command, open all connections together, print the time, and disconnect."""
    while news.recv():
        begin = time.perf_counter()
        clients = []
        selector = selectors.DefaultSelector()
        for _ in range(CROWD):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            selector.register(client, selectors.EVENT_WRITE)
            clients.append(client)
        answered = 0
        refused = 0
        while answered < CROWD:
            for key, events in selector.select(20.0):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if events & selectors.EVENT_WRITE:
                    one.send(head(port))
                    selector.modify(one, selectors.EVENT_READ)
                else:
                    refused += not one.recv(4096).startswith(b"HTTP/1.1 101")
                    answered += 1
                    selector.unregister(one)
        seconds = time.perf_counter() - begin
        time.sleep(0.3)
        for client in clients:
            client.close()
        news.send((seconds, refused))


def refuse(port: int, news: Connection) -> None:
    """Request a large response and do not read it until the next command."""
    while news.recv():
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(head(port))
        client.recv(4096)
        client.sendall(b"\x81" + bytes([0x80 | len(ASKED)]) + bytes(4) + ASKED)
        news.recv()
        client.close()
        news.send((0.0, 0))


@contextmanager
def big_server() -> Iterator[int]:
    """Run a local server that sends the requested number of bytes, in a new process; yield its port."""
    here, there = multiprocessing.Pipe()

    async def serve() -> None:
        server = LocalAddress()
        await server.listen()
        there.send(server.port)
        await asyncio.Event().wait()

    process = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(serve()), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


@contextmanager
def direct(local: int) -> Iterator[Running]:
    """The local server in place of a pair."""
    yield Running(os.getpid(), os.getpid(), local)


def between(row: str, local: int) -> AbstractContextManager[Running]:
    """Return the pair between the measuring clients and the local server."""
    if row.endswith("-direct"):
        return direct(local)
    return running_pair(Yardstick.build(YARDSTICK).pair(None) if row.endswith("-go") else ours(), local)


def measure(row: str) -> None:
    """Measure pairs of phases, and print the figures."""
    refuses = row.startswith("refuse")
    other = refuse if refuses else come_together
    with (big_server if refuses else local_server)() as local, between(row, local) as pair:
        clients = more(pair, RUNNING, 20)
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=other, args=(pair.port, there), daemon=True
        )
        process.start()
        without: list[list[float]] = []
        beside: list[list[float]] = []
        told: list[tuple[float, int]] = []
        cpu: tuple[list[float], list[float]] = ([], [])
        for _ in range(PAIRS):
            begin = cpu_of(pair)
            without.append(echoes(clients, PHASE_SECONDS))
            cpu[0].append(cpu_of(pair) - begin)
            here.send(True)
            begin = cpu_of(pair)
            beside.append(echoes(clients, PHASE_SECONDS))
            cpu[1].append(cpu_of(pair) - begin)
            if refuses:
                here.send(True)
            told.append(here.recv())
            time.sleep(2.0)
        process.kill()
        report(row, without, beside, told, cpu)


def cpu_of(pair: Running) -> float:
    """Return the CPU seconds of relay and agent so far."""
    return cpu_seconds(pair.relay) + cpu_seconds(pair.agent)


def report(
    row: str,
    without: list[list[float]],
    beside: list[list[float]],
    told: list[tuple[float, int]],
    cpu: tuple[list[float], list[float]],
) -> None:
    """Print medians of the phases, in milliseconds."""

    def median(phases: list[list[float]], of: Callable[[list[float]], float]) -> float:
        return round(statistics.median(map(of, phases)) * 1000, 2)

    figures: dict[str, object] = {"row": row}
    for name, of in (
        ("p50", statistics.median),
        ("p99", lambda took: statistics.quantiles(took, n=100)[98]),
        ("worst", max),
    ):
        figures[f"{name}_without_ms"], figures[f"{name}_ms"] = median(without, of), median(beside, of)
    figures["cpu_without_seconds"], figures["cpu_seconds"] = (round(statistics.median(one), 2) for one in cpu)
    figures["echoes"] = sum(map(len, beside))
    figures["crowd_seconds"] = [round(seconds, 2) for seconds, _ in told]
    figures["refused"] = sum(refused for _, refused in told)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = ["crowd", "crowd-go", "crowd-direct", "refuse", "refuse-go", "refuse-direct"]
    parser.add_argument("rows", nargs="*", choices=rows, default=["crowd", "refuse"])
    for row in parser.parse_args().rows:
        measure(row)
