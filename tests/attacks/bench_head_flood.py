"""Measure by how much a flood of endless heads slows down other clients. Prints one line of JSON.

``python -m tests.attacks.bench_head_flood`` runs a relay, an agent and an echo server as processes. A client
repeatedly connects, upgrades, sends, gets its echo and disconnects. For some seconds it is the only client;
for some seconds another process sends heads over 20 connections, which it replaces when they are cut. The
flood has 100 MiB/s, about what a line of 1 Gbit/s carries. Both phases are compared within one run, so only
the ratio counts. As a test this would fail on a busy machine. docs/security.md has the results.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import sys
import time

from tests.attacks.parties import MIB, EchoServer, Innocent, say
from tests.attacks.test_head_floods import CONNECTIONS, FLOODS, START
from tests.processes import RelayProcess, running_agent, running_relay

__all__ = ["main"]


def flood(port: int, kind: str, rate: float, sent: multiprocessing.Value) -> None:  # type: ignore[valid-type]
    """Send this many bytes per second until the process is ended; replace each connection that is cut."""
    strangers: list[socket.socket] = []
    piece = FLOODS[kind](1) * 16
    began, already = time.monotonic(), sent.value
    while True:
        ahead = (sent.value - already) / rate - (time.monotonic() - began)
        if ahead > 0:
            time.sleep(ahead)
        while len(strangers) < CONNECTIONS:
            stranger = socket.create_connection(("127.0.0.1", port))
            stranger.sendall(START)
            stranger.setblocking(False)
            strangers.append(stranger)
        for stranger in list(strangers):
            try:
                sent.value += stranger.send(piece)
            except BlockingIOError:
                continue
            except OSError:
                strangers.remove(stranger)
                stranger.close()


def visits(innocent: Innocent, seconds: float) -> list[float]:
    """Return the duration of each visit, one after the other."""
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        innocent.visit()
        taken.append(time.monotonic() - began)
        time.sleep(0.005)
    return taken


def p99_ms(taken: list[float]) -> float:
    return 1000 * statistics.quantiles(taken, n=100)[98]


def measure(
    relay: RelayProcess, innocent: Innocent, kind: str, turns: int, seconds: float, rate: float
) -> None:
    idle: list[float] = []
    flooded: list[float] = []
    sent = multiprocessing.Value("q", 0)
    before = grown = relay.resident_bytes()
    for _ in range(turns):
        idle += visits(innocent, seconds)
        stranger = multiprocessing.Process(target=flood, args=(relay.port, kind, rate, sent), daemon=True)
        stranger.start()
        try:
            flooded += visits(innocent, seconds)
            grown = max(grown, relay.resident_bytes())
        finally:
            stranger.kill()
            stranger.join()
    say(
        f"head flood: {kind}",
        visits=[len(idle), len(flooded)],
        idle_p99_ms=round(p99_ms(idle), 2),
        flooded_p99_ms=round(p99_ms(flooded), 2),
        ratio=round(p99_ms(flooded) / p99_ms(idle), 2),
        sent_mib_per_second=round(sent.value / MIB / turns / seconds, 1),
        grown_kib=(grown - before) // 1024,
    )


def main(arguments: list[str]) -> None:
    """Measure each kind of flood in turn."""
    parser = argparse.ArgumentParser(prog="bench_head_flood", description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="with the flood and without it")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rate", type=float, default=100.0, help="of the flood, MiB a second")
    options = parser.parse_args(arguments)
    rates = ("--upgrades-per-room", "100000")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(EchoServer())
        relay = stack.enter_context(running_relay(*rates))
        stack.enter_context(running_agent(relay, "innocent", local_port=server.port))
        innocent = Innocent(relay, "/c/innocent/doc", name="bench")
        visits(innocent, 1.0)
        for kind in FLOODS:
            measure(relay, innocent, kind, options.turns, options.seconds, options.rate * MIB)


if __name__ == "__main__":
    main(sys.argv[1:])
