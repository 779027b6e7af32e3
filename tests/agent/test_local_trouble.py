"""Failed dials of the local server: a correct message, a fitting status, and a short log."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from seance.agent.local_trouble import DialLog, LocalTrouble, trouble_of
from seance.core.local_address import LocalAddress
from seance.errors import Gone
from seance.net import descriptors
from seance.net.log_limiter import INTERVAL_SECONDS
from tests.processes import Process, environment, running_agent, running_relay

LOCAL = LocalAddress.from_text("127.0.0.1:1234")
BY_NAME = LocalAddress.from_text("localhost:1234")


def trouble(error: Exception, local: LocalAddress = LOCAL) -> LocalTrouble:
    return trouble_of(Failure(error), local, 5.0)


REASONS = {
    "refused": ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    "timeout": TimeoutError(),
    "too late": DeferredTimeoutError(),
    "no such name": DNSLookupError("no results for hostname lookup: local.example"),
    "no such path": ConnectError(errno.ENOENT, "No such file or directory"),
    "tls": Gone("The certificate of the local server is self-signed.", code="tls"),
    "no descriptor": ConnectBindError(errno.EMFILE, "Too many open files"),
    "no port": ConnectError(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
}


@contextmanager
def lines() -> Iterator[list[str]]:
    found: list[str] = []

    def keep(event: LogEvent) -> None:
        if str(event.get("event", "")).startswith("local."):
            found.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(keep)
    try:
        yield found
    finally:
        globalLogPublisher.removeObserver(keep)


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_one_line_a_minute(reason: str) -> None:
    clock = Clock()
    log = DialLog(clock)
    with lines() as found:
        notified = [log.note(trouble(REASONS[reason])) for _ in range(200)]
        assert notified == [True, *[False] * 199]
        assert len(found) == 1
        clock.advance(INTERVAL_SECONDS)
        assert log.note(trouble(REASONS[reason]))
        assert len(found) == 2
        assert found[1].endswith("(199 more since the last such line)")
        assert log.note(None)
        assert "takes connections again; 201 clients were refused" in found[2]


def test_alternating_reasons_and_a_flapping_server_do_not_flood_the_log() -> None:
    log = DialLog(Clock())
    with lines() as found:
        for _ in range(100):
            for reason in ("refused", "timeout"):
                log.note(trouble(REASONS[reason]))
            log.note(None)
        assert len(found) == 3


def test_status_listeners_get_each_start_and_end() -> None:
    log = DialLog(Clock())
    refused = trouble(REASONS["refused"])
    assert [log.note(one) for one in (None, refused, refused, None, None, refused, None)] == [
        False,
        True,
        False,
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EMFILE, r"this process has no file descriptor left, of \d+; raise the limit \(ulimit -n"),
        (errno.ENFILE, "this machine has no file descriptor left; raise fs.file-max"),
        (errno.EADDRNOTAVAIL, "this machine has no free port left; widen net.ipv4.ip_local_port_range"),
        (errno.ENOBUFS, "this machine has no memory left"),
        (errno.ENOMEM, "this machine has no memory left"),
    ],
)
@pytest.mark.parametrize("kind", [ConnectBindError, ConnectError])
def test_a_limit_of_the_agent_is_not_reported_as_a_fault_of_the_local_server(
    kind: type[ConnectError], number: int, message: str
) -> None:
    found = trouble(kind(number, os.strerror(number)))
    assert re.search(message, found.message)
    assert "does not take connections" not in found.message
    assert (found.refusal.status, found.refusal.code) == (503, "agent_limit")


def test_a_failed_look_up_without_descriptors_is_reported_as_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(descriptors.socket, "socket", no_socket)
    assert trouble(REASONS["no such name"], BY_NAME).refusal.code == "agent_limit"


def test_an_unavailable_address_is_not_reported_as_a_lack_of_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(socket.socket):
        def connect(self, address: object) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(descriptors.socket, "socket", Probe)
    error = ConnectError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
    for local in (BY_NAME, LocalAddress.from_text("[::1]:1234")):
        assert trouble(error, local).refusal.code == "local_server_refused"
    assert trouble(error).refusal.code == "agent_limit"


# A process with few descriptors


def dial(port: int) -> tuple[socket.socket, bytes]:
    client = socket.create_connection(("127.0.0.1", port), 10)
    client.sendall(
        b"GET /client?room=test HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    return client, client.recv(65536)


@contextmanager
def local_server() -> Iterator[int]:
    """A local server that answers 101 to all requests, in another process with enough descriptors."""
    code = r"""
import asyncio, base64, hashlib
async def one(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)
    key = fields[b"sec-websocket-key"].upper()  # of one letter only, in upper case
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    await reader.read()
    writer.close()
async def main():
    server = await asyncio.start_server(one, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
    with Process([sys.executable, "-c", code], name="local server") as process:
        yield int(process.when_line(r"port (\d+)")[1])


@pytest.mark.parametrize("soft", [30, 48])
def test_an_agent_with_few_descriptors_limits_its_clients_and_logs_it(soft: int) -> None:
    with running_relay() as relay, local_server() as port:
        argv = [sys.executable, "-m", "seance", "agent", "--relay", relay.url, "--room", "test"]
        argv += ["--local", f"127.0.0.1:{port}"]
        shell = ["sh", "-c", f'ulimit -n {soft}; exec "$0" "$@"', *argv, "--streams", "1000"]
        with Process(shell, name="agent", env=environment()) as agent:
            expected = soft - descriptors.AGENT_RESERVE
            agent.when_line(rf"--streams is \d+, but {soft} file descriptors allow {expected} only")
            agent.when_line("Connected to relay")
            clients = [dial(relay.port) for _ in range(soft + 20)]
            statuses = [answer[9:12].decode() for _, answer in clients]
            assert statuses == ["101"] * expected + ["503"] * (soft + 20 - expected)
            assert b"limit of its process or machine" in clients[-1][1]
            agent.when_line(rf"{expected} clients are connected, the limit of this agent \(--streams\)")
            for client, _ in clients:
                client.close()
            assert "does not take connections" not in agent.output
            assert "network" not in agent.output


def test_an_agent_without_descriptors_does_not_blame_the_local_server() -> None:
    """In a program that embeds the agent, other files may use the descriptors meant for clients."""
    script = """
import os, sys
from seance.net import descriptors
from seance import agent_tap
agent_tap.agent_stream_limit = lambda: None  # as in a program that embeds the agent
from seance.cli import main
sys.exit(main(sys.argv[1:]))
"""
    with running_relay() as relay, local_server() as port:
        argv = [sys.executable, "-c", script, "agent", "--relay", relay.url, "--room", "test"]
        argv += ["--local", f"127.0.0.1:{port}"]
        shell = ["sh", "-c", 'ulimit -n 30; exec "$0" "$@"', *argv]
        with Process(shell, name="agent", env=environment()) as agent:
            agent.when_line("Connected to relay")
            clients = [dial(relay.port) for _ in range(40)]
            assert clients[-1][1].startswith(b"HTTP/1.1 503 ")
            agent.when_line("this process has no file descriptor left, of 30; raise the limit")
            time.sleep(2.5)  # two checks of the agent's WakeDetector
            for client, _ in clients:
                client.close()
            time.sleep(2.5)
            assert "does not take connections" not in agent.output
            assert "network" not in agent.output


def test_a_relay_with_few_descriptors_logs_it() -> None:
    argv = [sys.executable, "-m", "seance", "relay", "--listen", "tcp:0:interface=127.0.0.1"]
    shell = ["sh", "-c", 'ulimit -n 100; exec "$0" "$@"', *argv, "--connections", "5000"]
    with Process(shell, name="relay", env=environment()) as relay:
        relay.when_line(
            "--connections and --reserved-connections is 5200, but 100 file descriptors allow 80 only"
        )


def test_two_hundred_refused_clients_are_logged_in_one_line(tmp_path: Path) -> None:
    with running_relay() as relay:
        for local in ("127.0.0.1:1", f"unix:{tmp_path / 'none'}"):
            with running_agent(relay, "test", local=local) as agent:
                for _ in range(50):
                    client, answer = dial(relay.port)
                    client.close()
                    assert answer.startswith(b"HTTP/1.1 502 ")
                assert agent.output.count("does not take connections") == 1
