"""A relay and a distant agent, with a line between them that is narrow or long.

Two network namespaces and a ``Line`` in user space (``tests.faults``), with real processes and two kernels.
The line runs in its own process: it handles each packet, and must not wait for the measuring code. Used by
``tests/shaping`` and ``benchmarks/shaping.py``; needs root and ``ip``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.certificates import Authority
from tests.faults.emulator import Line
from tests.faults.loops import Loop
from tests.faults.namespaces import AGENT_ADDRESS, DEVICE, RELAY_ADDRESS, Namespace
from tests.processes import AgentProcess, Process, RelayProcess, environment, twistd
from tests.shaping.throttle import Throttle

__all__ = ["MBIT", "Far", "Link", "LocalAddress", "client", "far", "throttled"]

ROOM = "far"

MBIT = 1_000_000 / 8
"""Bytes per second of one Mbit/s."""


@dataclass(frozen=True, slots=True)
class Link:
    """The properties of the line.

    Attributes:
        up_mbit: From the agent to the relay; 0 for no limit.
        down_mbit: From the relay to the agent.
        round_trip_seconds: Without a queue.
        queue_bytes: Limit of the FIFO queue before the narrow line; packets beyond it are lost.
        send_buffer_bytes: Limit of the kernels' send buffer per connection; the default of Linux is 4 MiB.
        packet_bytes: The MTU. Large packets are for lines that are too fast for a Python program with small
            ones.
        congestion: Congestion control of all TCP connections over the line; empty for the kernel's default.
    """

    up_mbit: float = 0.0
    down_mbit: float = 0.0
    round_trip_seconds: float = 0.04
    queue_bytes: int = 64 * 1024
    send_buffer_bytes: int = 4 * 1024 * 1024
    packet_bytes: int = 1500
    congestion: str = ""


class LocalAddress:
    """Sends the requested number of bytes (``bytes N``), or at ``/stream`` endless messages of the requested
    size; discards input at ``/sink``, and echoes everything else.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def listen(self) -> None:
        server = await serve(self._serve, "127.0.0.1", 0, max_size=None, compression=None, ping_interval=None)
        self.port = server.sockets[0].getsockname()[1]
        self._server = server

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections += 1
        path = "" if connection.request is None else connection.request.path
        is_sink = path.startswith("/sink")
        with contextlib.suppress(ConnectionClosed):
            if path.startswith("/stream"):
                piece = bytes(int(await connection.recv()))
                while True:
                    await connection.send(piece)
            async for message in connection:
                if isinstance(message, str) and message.startswith("bytes "):
                    await connection.send(bytes(int(message.split()[1])))
                elif is_sink:
                    await connection.send(str(len(message)))
                else:
                    await connection.send(message)


@dataclass
class Far:
    """The running parts.

    Attributes:
        here: A loop on the relay's machine, for clients.
        there: A loop on the agent's machine.
        trust: The TLS context of clients; None without TLS.
        line: Receives new rates for ``set_rate``; None with a slow proxy.
    """

    relay: Process
    agent: Process
    here: Loop
    there: Loop
    server: LocalAddress
    relay_address: tuple[str, int]
    trust: ssl.SSLContext | None = None
    line: Connection | None = None

    def url(self, path: str = "doc") -> str:
        """Return the URL for a client on the relay's machine."""
        host, port = self.relay_address
        return f"{'wss' if self.trust else 'ws'}://{host}:{port}/c/{ROOM}/{path}"

    def set_rate(self, mbit: float) -> None:
        """Change the rate of the line, in both directions."""
        assert self.line is not None
        self.line.send(mbit * MBIT)

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of relay and agent."""
        return _cpu_seconds(self.relay.pid), _cpu_seconds(self.agent.pid)


@contextlib.asynccontextmanager
async def client(url: str, trust: ssl.SSLContext | None = None) -> AsyncIterator[ClientConnection]:
    """A client that accepts messages of any size and sends no pings."""
    async with connect(
        url, ssl=trust, max_size=None, compression=None, ping_interval=None, open_timeout=60, proxy=None
    ) as connection:
        yield connection


@contextlib.contextmanager
def throttled(
    link: Link,
    *,
    relay_options: tuple[str, ...] = (),
    agent_options: tuple[str, ...] = (),
    authority: Authority | None = None,
) -> Iterator[Far]:
    """The same on one machine, with a slow proxy; needs no root, and ``link.queue_bytes`` is ignored. With
    an ``authority`` all connections use TLS.
    """
    scheme, host, trust = "ws", "127.0.0.1", None
    with contextlib.ExitStack() as stack:
        if authority is not None:
            scheme, host, trust = "wss", "localhost", ssl.create_default_context(cafile=str(authority.file))
            certificate = authority.issue("localhost")
            files = ("--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key))
            relay_options = (*relay_options, *files)
            agent_options = (*agent_options, "--tls-ca", str(authority.file))
        here, there = stack.enter_context(Loop()), stack.enter_context(Loop())
        server = LocalAddress()
        there.run(server.listen())
        stack.callback(lambda: there.run(server.close()))
        relay = stack.enter_context(RelayProcess(*relay_options))
        throttle = Throttle(
            ("127.0.0.1", relay.port),
            up_bytes_per_second=link.up_mbit * MBIT,
            down_bytes_per_second=link.down_mbit * MBIT,
            round_trip_seconds=link.round_trip_seconds,
        )
        line = stack.enter_context(Loop())
        line.run(throttle.listen())
        stack.callback(lambda: line.run(throttle.close()))
        told = ("--relay", f"{scheme}://{host}:{throttle.port}", "--local", f"127.0.0.1:{server.port}")
        agent = stack.enter_context(AgentProcess(ROOM, *told, *agent_options))
        agent.when_connected()
        yield Far(relay, agent, here, there, server, (host, relay.port), trust)
    for process in (relay, agent):
        process.check_quiet()


@contextlib.contextmanager
def far(link: Link, *, relay_options: tuple[str, ...] = (), is_tls: bool = False) -> Iterator[Far]:
    """Start a relay, an agent and a local server for a ``with`` block."""
    with contextlib.ExitStack() as stack:
        places = []
        for role, address in (("home", AGENT_ADDRESS), ("relay", RELAY_ADDRESS)):
            place = Namespace(f"shaping-{os.getpid()}-{role}", address)
            stack.callback(place.remove)
            place.ip("link", "set", DEVICE, "mtu", str(link.packet_bytes), "txqueuelen", "20000")
            if link.congestion:
                # Only the first namespace may change the default, but a route can name any of them.
                route = ("192.0.2.0/24", "dev", DEVICE, "src", address, "congctl", link.congestion)
                place.ip("route", "replace", *route)
            buffers = f"net.ipv4.tcp_wmem=4096 16384 {link.send_buffer_bytes}"
            subprocess.run(place.argv(["sysctl", "-qw", buffers]), check=True)
            places.append(place)
        home, away = places
        line = stack.enter_context(_line(home, away, link))
        here = stack.enter_context(Loop(away.enter))
        there = stack.enter_context(Loop(home.enter))
        server = LocalAddress()
        there.run(server.listen())
        stack.callback(lambda: there.run(server.close()))
        agent_options: tuple[str, ...] = ()
        scheme, trust = "ws", None
        if is_tls:
            authority = Authority(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            certificate = authority.issue(RELAY_ADDRESS)
            scheme, trust = "wss", ssl.create_default_context(cafile=str(authority.file))
            files = ("--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key))
            relay_options = (*relay_options, *files)
            agent_options = ("--tls-ca", str(authority.file))
        relay = stack.enter_context(_relay(away, relay_options))
        port = int(relay.when_line(r"starting on port (\d+)")[1])
        told = ("--relay", f"{scheme}://{RELAY_ADDRESS}:{port}", "--local", f"127.0.0.1:{server.port}")
        agent = stack.enter_context(_agent(home, (*told, *agent_options)))
        agent.when_connected()
        yield Far(relay, agent, here, there, server, (RELAY_ADDRESS, port), trust, line)
    for process in (relay, agent):
        try:
            process.check_quiet()
        except AssertionError as error:  # reported, but the figures of many minutes are kept
            sys.stderr.write(f"{error}\n")


@contextlib.contextmanager
def _line(home: Namespace, away: Namespace, link: Link) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()

    def carry() -> None:
        line = Line(home.device, away.device)
        line.up.bytes_per_second, line.down.bytes_per_second = link.up_mbit * MBIT, link.down_mbit * MBIT
        line.up.queue_bytes = line.down.queue_bytes = link.queue_bytes
        line.delay_seconds = link.round_trip_seconds / 2

        def follow() -> None:
            while True:
                line.up.bytes_per_second = line.down.bytes_per_second = theirs.recv()

        threading.Thread(target=follow, daemon=True).start()
        line.run()

    process = multiprocessing.get_context("fork").Process(target=carry, daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


class _Relay(RelayProcess):
    def __init__(self, argv: list[str]) -> None:
        Process.__init__(self, argv, name="relay", env=environment())


class _Agent(AgentProcess):
    def __init__(self, argv: list[str]) -> None:
        self.room = ROOM
        Process.__init__(self, argv, name="agent", env=environment())


def _relay(place: Namespace, options: tuple[str, ...]) -> _Relay:
    listen = ("--listen", f"tcp:0:interface={place.address}")
    return _Relay(place.argv(twistd("seance-relay", *listen, "--open", *options)))


def _agent(place: Namespace, options: tuple[str, ...]) -> _Agent:
    return _Agent(place.argv(twistd("seance-agent", "--room", ROOM, *options)))


def _cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
