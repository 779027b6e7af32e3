"""Memory of ten thousand idle clients on one relay and one agent.

    python benchmarks/idle.py                       10,000 clients of ours
    python benchmarks/idle.py --count 2000 --go DIR
                                                    ours and the yardstick's, built in DIR, and the ratio

A client is a WebSocket that has connected and sent a few messages. The first fifth of the clients is not
counted, because a process fills its caches with them. The program raises the soft limit on open files to the
hard one, which must be above the count. It prints one JSON line for each pair.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import multiprocessing
import resource
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from programs import ROOM, Pair, Running, cpu_seconds, ours, resident_bytes, running_pair

AT_ONCE = 25
SETTLED = 0.2
SETTLE_SECONDS = 3.0
MIB = 1024 * 1024

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324  # RFC 6455
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
)

SAYS = b"\x82\x84\x00\x00\x00\x00says"
SAID = b"\x82\x04says"
"""A message with a mask of zeros, and its echo."""


def head(port: int) -> bytes:
    """Return a client's request."""
    return (
        (
            f"GET /client?room={ROOM} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        ).encode()
        + KEY
        + b"\r\n\r\n"
    )


def serve(listener: socket.socket) -> None:
    """Answer each connection's request, and keep the connection open."""
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
                continue
            try:
                data = sock.recv(4096)
            except OSError:
                data = b""
            if b"\r\n\r\n" in data:
                sock.sendall(ANSWER)
            elif data:
                sock.sendall(SAID * data.count(SAYS))
            else:
                selector.unregister(sock)
                sock.close()


@contextmanager
def local_server() -> Iterator[int]:
    """Run a local server in a new process for the duration of a ``with`` block; yield its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    process.start()
    port: int = listener.getsockname()[1]
    listener.close()
    try:
        yield port
    finally:
        process.kill()
        process.join()


def measure(pair: Pair, count: int, messages: int) -> dict[str, float]:
    """Open the clients; return MiB in total and KiB per client, of relay and agent."""
    with local_server() as local, running_pair(pair, local) as running:
        clients: list[socket.socket] = []
        first = (0, 0)
        fresh = (resident_bytes(running.relay), resident_bytes(running.agent))
        try:
            while len(clients) < count:
                clients += more(running, AT_ONCE, messages)
                if first == (0, 0) and len(clients) >= count * SETTLED:
                    time.sleep(SETTLE_SECONDS)
                    settled = len(clients)
                    first = (resident_bytes(running.relay), resident_bytes(running.agent))
            time.sleep(SETTLE_SECONDS)
            cpu = cpu_seconds(running.relay) + cpu_seconds(running.agent)
            last = (resident_bytes(running.relay), resident_bytes(running.agent))
            time.sleep(SETTLE_SECONDS)
            cpu = cpu_seconds(running.relay) + cpu_seconds(running.agent) - cpu
        finally:
            for client in clients:
                client.close()
    added = len(clients) - settled
    return {
        "clients": len(clients),
        "relay_mib": last[0] / MIB,
        "agent_mib": last[1] / MIB,
        "fresh_relay_mib": fresh[0] / MIB,
        "fresh_agent_mib": fresh[1] / MIB,
        "relay_kib_each": (last[0] - first[0]) / added / 1024,
        "agent_kib_each": (last[1] - first[1]) / added / 1024,
        "idle_cpu_share": cpu / SETTLE_SECONDS,
    }


def more(running: Running, count: int, messages: int = 0) -> list[socket.socket]:
    """Open some clients concurrently; each sends a few messages first."""
    clients = [socket.create_connection(("127.0.0.1", running.port), 20) for _ in range(count)]
    for client in clients:
        client.sendall(head(running.port))
    for client in clients:
        if not (answer := client.recv(4096)).startswith(b"HTTP/1.1 101"):
            sys.exit(f"a client was answered {answer[:80]!r}")
    for _ in range(messages):
        for client in clients:
            client.sendall(SAYS)
        for client in clients:
            client.recv(4096)
    return clients


def go(folder: Path) -> Pair:
    """Return the yardstick's pair, from programs that are already built."""
    return Pair(
        "Go",
        (str(folder / "relay"), "-addr", "127.0.0.1:{relay}"),
        (
            str(folder / "agent"),
            "-url",
            f"ws://127.0.0.1:{{relay}}/agent?room={ROOM}",
            "-local",
            "127.0.0.1:{local}",
        ),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument(
        "--messages", type=int, default=5, help="echoes that each client receives before it is idle"
    )
    parser.add_argument("--go", type=Path)
    told = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pairs = [ours()] if told.go is None else [go(told.go), ours()]
    each = {}
    for pair in pairs:
        figures = measure(pair, told.count, told.messages)
        each[pair.name] = figures["relay_kib_each"] + figures["agent_kib_each"]
        print(json.dumps({"row": f"idle {pair.name}", **{k: round(v, 2) for k, v in figures.items()}}))  # noqa: T201
    if told.go is not None:
        print(json.dumps({"row": "idle ratio", "each": round(each["Seance"] / each["Go"], 3)}))  # noqa: T201


if __name__ == "__main__":
    main()
