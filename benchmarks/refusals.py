"""Upgrades for an unknown room that a relay refuses per second of its CPU time.

y-websocket reconnects every 2.5 s without jitter, so the clients of an absent host can send hundreds of
useless upgrades a second. The relay runs in a separate process, on loopback. Each upgrade is a new TCP
connection with a browser's request head, read until the relay has closed it. In the same run and in turn, the
program measures a server that consists of Autobahn only and refuses in ``onConnect``.

    python benchmarks/refusals.py                    both, and the ratio
    python benchmarks/refusals.py --against HEAD     this checkout, a commit, and Autobahn
    python benchmarks/refusals.py --only relay -n 50000
    python benchmarks/refusals.py --token            with keys, and clients that have a token
    python benchmarks/refusals.py --tls              over TLS, where nothing is refused before the handshake

CPU time is user and system time of the process, from ``/proc``. Compare only ratios of one run, not figures
of two runs or two machines.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.certificates import Authority  # noqa: E402  # the checkout is on the path now

ROOMS = 64
"""Number of room names, used in turn. A single room would reach its rate limit and get another refusal."""

HEAD = (
    "GET /c/nobody-{}/my-document{} HTTP/1.1\r\n"
    "Host: relay.example:8080\r\n"
    "Connection: Upgrade\r\n"
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"
    " Safari/537.36\r\n"
    "Upgrade: websocket\r\n"
    "Origin: http://relay.example:8080\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\n"
    "Sec-WebSocket-Key: 5f2p3wqkq0Vv6y1vAdJY9g==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    "\r\n"
)
"""Chromium's request head for ``new WebSocket``."""

AUTOBAHN = """
import sys
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet import reactor

class Refusing(WebSocketServerProtocol):
    def onConnect(self, request):
        raise ConnectionDeny(404, "Room not found (agent not connected)")

factory = WebSocketServerFactory()
factory.protocol = Refusing
if sys.argv[1:]:
    from twisted.internet.ssl import DefaultOpenSSLContextFactory
    context = DefaultOpenSSLContextFactory(sys.argv[2], sys.argv[1])
    port = reactor.listenSSL(0, factory, context, interface="127.0.0.1", backlog=1024)
else:
    port = reactor.listenTCP(0, factory, interface="127.0.0.1", backlog=1024)
print("starting on port", port.getHost().port, flush=True)
reactor.run()
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server to measure, and the folder of its code."""

    name: str
    argv: tuple[str, ...]
    tree: Path


@contextlib.contextmanager
def running(server: Server) -> Iterator[tuple[int, int]]:
    """Run the server as a process; yield its id and its port."""
    environment = {**os.environ, "PYTHONPATH": str(server.tree), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(  # noqa: S603  # ourselves
        server.argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=server.tree,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"starting on port (\d+)", line)
            if found:
                yield process.pid, int(found[1])
                return
        sys.exit(f"{server.name} did not start")
    finally:
        process.terminate()
        process.communicate()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def refuse(port: int, count: int, at_once: int, query: str, tls: ssl.SSLContext | None) -> None:
    """Ask ``count`` times, ``at_once`` together as such clients do, and check each response."""
    heads = [HEAD.format(number, query).encode() for number in range(ROOMS)]
    for begin in range(0, count, at_once):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(at_once)]
        if tls is not None:
            clients = [tls.wrap_socket(client, server_hostname="localhost") for client in clients]
        for number, client in enumerate(clients, begin):
            client.send(heads[number % ROOMS])
        for client in clients:
            answer = bytearray()
            with client:
                while data := client.recv(4096):
                    answer += data
            if not answer.startswith(b"HTTP/1.1 404 "):
                sys.exit(f"unexpected response: {bytes(answer)!r}")


def measure(server: Server, count: int, at_once: int, query: str, tls: ssl.SSLContext | None) -> float:
    """Return how many refusals one CPU second of a server gives."""
    with running(server) as (pid, port):
        refuse(port, count // 10, at_once, query, tls)
        time.sleep(0.1)
        before = cpu_seconds(pid)
        refuse(port, count, at_once, query, tls)
        time.sleep(0.1)
        return count / (cpu_seconds(pid) - before)


@contextlib.contextmanager
def unpacked(commit: str) -> Iterator[Path]:
    """Unpack a commit into a temporary folder."""
    argv = ["git", "archive", commit]
    packed = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603  # the user's own
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
        yield Path(folder)


def relay(name: str, tree: Path, keys: tuple[str, ...] = ()) -> Server:
    """Return a relay of the code in ``tree``."""
    listen = ("--listen", "tcp:0:interface=127.0.0.1:backlog=1024")
    return Server(name, (sys.executable, "-m", "seance", "relay", *listen, *keys), tree)


def new_key(folder: str) -> tuple[tuple[str, str], str]:
    """Make a key; return the relay's options for it, and a client's query with a token for every room."""
    path = str(Path(folder) / "key.json")
    seance = (sys.executable, "-m", "seance")
    subprocess.run([*seance, "keygen", "--out", path], cwd=ROOT, check=True, capture_output=True)  # noqa: S603  # ourselves
    token = [*seance, "token", "--key", path, "--room", "*", "--role", "client", "--ttl", "1h"]
    made = subprocess.run(token, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603  # ourselves
    return ("--auth-key", path), f"?access_token={made.stdout.strip()}"


def main() -> None:
    """Measure the servers in turn, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="measure the relay of a commit too")
    parser.add_argument("--only", choices=["relay", "autobahn"], help="measure only one")
    parser.add_argument("-n", "--count", type=int, default=10_000, help="refusals in each measurement")
    parser.add_argument("--at-once", type=int, default=100, help="connections at a time")
    parser.add_argument("--times", type=int, default=3, help="measurements of each")
    parser.add_argument("--token", action="store_true", help="a relay with keys, clients with a token")
    parser.add_argument("--tls", action="store_true", help="both with a certificate")
    told = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        keys, query, files = (), "", ()
        tls = None
        if told.token:
            keys, query = new_key(folder)
        if told.tls:
            authority = Authority(Path(folder))
            certificate = authority.issue("localhost")
            files = (str(certificate.chain), str(certificate.key))
            keys = (*keys, "--tls-cert", files[0], "--tls-key", files[1])
            tls = ssl.create_default_context(cafile=str(authority.file))
        servers = [relay("relay", ROOT, keys)]
        if told.against:
            servers.append(
                relay(f"relay of {told.against}", stack.enter_context(unpacked(told.against)), keys)
            )
        servers.append(Server("autobahn", (sys.executable, "-c", AUTOBAHN, *files), ROOT))
        servers = [one for one in servers if told.only in (None, one.name)]
        figures: dict[str, list[float]] = {one.name: [] for one in servers}
        for _ in range(told.times):
            for one in servers:
                figures[one.name].append(measure(one, told.count, told.at_once, query, tls))
    for name, several in figures.items():
        sys.stdout.write(f"{name}: {statistics.median(several):,.0f} refusals for one CPU second\n")
    if "autobahn" in figures and "relay" in figures:
        ratio = statistics.median(figures["relay"]) / statistics.median(figures["autobahn"])
        sys.stdout.write(f"relay / autobahn: {ratio:.1f}\n")


if __name__ == "__main__":
    main()
