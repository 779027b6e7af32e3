"""Resident memory per idle client and per idle link.

    python benchmarks/memory.py                 a relay, an agent, 2,000 clients; then a relay and 100 links
    python benchmarks/memory.py --clients 9000

A client is a WebSocket that has connected and sends nothing. Each link is a separate agent on the relay;
all agents of the measurement run in one process. The first fifth is not counted, because a process fills
its allocator's caches and imports further modules with it. Resident memory is counted in pages, so a few
hundred clients are the minimum for a meaningful figure.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from programs import ROOM, ROOT, Running, free_port, ours, resident_bytes, running, running_pair

SETTLED = 0.2
SETTLE_SECONDS = 1.0

HEAD = (
    "GET /client?room={room} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

AGENTS = """
import sys
from twisted.internet import defer, reactor, task
from seance.agent.service import Agent
from seance.core.settings import AgentSettings

async def main(reactor, relay, count, step):
    for number in range(int(count)):
        agent = Agent(reactor, AgentSettings(room=f"room-{number}", relay=relay))
        agent.startService()
        await agent.when_connected()
        if number + 1 in (int(step), int(count)):
            print("there are", number + 1, flush=True)
            sys.stdin.readline()
    await defer.Deferred()

task.react(lambda reactor, *words: defer.ensureDeferred(main(reactor, *words)), sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Added:
    """Bytes for each client or link."""

    relay: float
    agent: float


def bytes_per_idle_client(pair: Running, count: int) -> Added:
    """Open idle clients, and return the memory per client of relay and agent."""
    head = HEAD.format(room=ROOM, port=pair.port).encode()
    settled = int(count * SETTLED)
    clients: list[socket.socket] = []
    seen = []
    try:
        for number in range(1, count + 1):
            client = socket.create_connection(("127.0.0.1", pair.port), 10)
            clients.append(client)
            client.sendall(head)
            answer = client.recv(4096)
            if not answer.startswith(b"HTTP/1.1 101"):
                sys.exit(f"client {number} was answered {answer[:80]!r}")
            if number in (settled, count):
                time.sleep(SETTLE_SECONDS)
                seen.append((resident_bytes(pair.relay), resident_bytes(pair.agent)))
    finally:
        for client in clients:
            client.close()
    (relay, agent), (relay_after, agent_after) = seen
    return Added((relay_after - relay) / (count - settled), (agent_after - agent) / (count - settled))


def bytes_per_link(count: int) -> Added:
    """Attach agents to our relay, and return the memory per link."""
    port = free_port()
    settled = int(count * SETTLED)
    relay_command = [word.format(relay=port, local=0) for word in ours().relay]
    seen = []
    with running(relay_command) as relay, agents(port, count, settled) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            if not line.startswith("there are"):
                continue
            time.sleep(SETTLE_SECONDS)
            seen.append((resident_bytes(relay), resident_bytes(process.pid)))
            if len(seen) == 2:
                break
            process.stdin.write("\n")
            process.stdin.flush()
    (first, first_agent), (last, last_agent) = seen
    return Added((last - first) / (count - settled), (last_agent - first_agent) / (count - settled))


@contextlib.contextmanager
def agents(port: int, count: int, step: int) -> Iterator[subprocess.Popen[str]]:
    """Run many agents in one process."""
    argv = [sys.executable, "-c", AGENTS, f"ws://127.0.0.1:{port}", str(count), str(step)]
    process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # ours
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--links", type=int, default=100)
    told = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "seance", "bench", "--serve", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = re.search(r"port (\d+)", server.stdout.readline())
        assert found is not None, "the local server did not start"
        with running_pair(ours(), int(found[1])) as pair:
            client = bytes_per_idle_client(pair, told.clients)
    finally:
        server.kill()
        server.communicate()
    link = bytes_per_link(told.links)
    for words, added in ((f"client, of {told.clients}", client), (f"link, of {told.links}", link)):
        sys.stdout.write(
            f"each idle {words}: relay {added.relay / 1024:.1f} KiB, agent {added.agent / 1024:.1f} KiB\n"
        )


if __name__ == "__main__":
    main()
