"""TLS with relay and agent as processes, standard clients, signals and exit statuses."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.certificates import Authority
from tests.processes import (
    DEADLINE_SECONDS,
    AgentProcess,
    Process,
    RelayProcess,
    environment,
    running_relay,
    twistd,
    until,
)
from tests.tls_in_threads import safe_in_threads, trusting
from tests.tools import require

pytestmark = pytest.mark.slow

SEANCE = (sys.executable, "-m", "seance")


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def echo_server(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A standard WebSocket server on a free port."""
    with serve(echo, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def client(authority: Authority, port: int, room: str) -> ClientConnection:
    url = f"wss://localhost:{port}/c/{room}/document"
    return connect(url, ssl=trusting(authority.file), max_size=None, open_timeout=DEADLINE_SECONDS)


def serial(authority: Authority, port: int) -> int:
    """Return the serial number of the present certificate."""
    with (
        socket.create_connection(("localhost", port), DEADLINE_SECONDS) as plain,
        trusting(authority.file).wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return int(secured.getpeercert()["serialNumber"], 16)  # type: ignore[index, arg-type]


def test_a_tunnel_with_tls_everywhere_and_a_renewed_certificate(authority: Authority) -> None:
    files = authority.issue("localhost")
    first = files.certificate.serial_number
    local_files = authority.issue("localhost", file="local")
    local_context = safe_in_threads(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    local_context.load_cert_chain(local_files.chain, local_files.key)
    with (
        echo_server(local_context) as local_port,
        running_relay("--tls-cert", str(files.chain), "--tls-key", str(files.key)) as relay,
        AgentProcess(
            "my-room",
            *("--relay", f"wss://localhost:{relay.port}", "--tls-ca", str(authority.file)),
            *("--local", f"tls://localhost:{local_port}", "--local-ca", str(authority.file)),
        ) as agent,
    ):
        assert f"Client endpoint: wss://localhost:{relay.port}/client?room=<room-id>" in relay.output
        agent.when_connected()
        with client(authority, relay.port, "my-room") as socket:
            message = bytes(range(256)) * 4 * 1024 * 5
            socket.send(message)
            assert socket.recv(DEADLINE_SECONDS) == message
            assert serial(authority, relay.port) == first
            renewed = authority.issue("localhost").certificate.serial_number
            relay.signal(signal.SIGHUP)
            relay.when_line("SIGHUP: files are read again")
            until("the new one is shown", lambda: serial(authority, relay.port) == renewed)
            socket.send("still here")
            assert socket.recv(DEADLINE_SECONDS) == "still here"
        agent.signal(signal.SIGHUP)
        agent.when_line("SIGHUP")
        assert "Disconnected" not in agent.output
    agent.check_quiet()


def test_seance_relay_loads_a_changed_certificate_but_not_an_invalid_one(
    authority: Authority,
) -> None:
    files = authority.issue("localhost")
    listen = ("--listen", "tcp:0:interface=127.0.0.1", "--tls-cert", str(files.both))
    argv = [*SEANCE, "relay", *listen]
    with Process(argv, name="seance relay", env=environment()) as relay:
        port = int(relay.when_line(r"starting on port (\d+)")[1])
        files.both.write_text("nonsense")
        relay.when_line(r"contains no certificate in PEM format; the previous content stays in use\.")
        assert serial(authority, port) == files.certificate.serial_number
        relay.signal(signal.SIGHUP)
        relay.when_line("SIGHUP")
        relay.when_line(r"the previous content stays in use\.")
        renewed = authority.issue("localhost")
        relay.when_line("The certificate was read again and holds from now on")
        assert serial(authority, port) == renewed.certificate.serial_number
    relay.check_quiet()


def test_openssl_resumes_its_session(authority: Authority, tmp_path: Path) -> None:
    require("openssl")
    files = authority.issue("localhost")
    with running_relay("--tls-cert", str(files.chain), "--tls-key", str(files.key)) as relay:

        def connect_with(*options: str) -> str:
            argv = ["openssl", "s_client", "-connect", f"localhost:{relay.port}", "-CAfile", authority.file]
            request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            done = subprocess.run(
                [*argv, "-ign_eof", *options],
                input=request,
                cwd=tmp_path,
                timeout=DEADLINE_SECONDS,
                capture_output=True,
            )
            assert b"HTTP/1.1 200 OK" in done.stdout
            return done.stdout.decode()

        assert "\nNew, TLSv1.3" in connect_with("-sess_out", "session")
        assert "\nReused, TLSv1.3" in connect_with("-sess_in", "session")
    relay.check_quiet()


def test_a_relay_logs_the_client_that_rejected_its_certificate(authority: Authority, tmp_path: Path) -> None:
    files = Authority(tmp_path, "stranger").issue("localhost")
    with RelayProcess("--tls-cert", str(files.both)) as relay:
        options = ("--relay", f"wss://localhost:{relay.port}", "--tls-ca", str(authority.file))
        with AgentProcess("my-room", *options) as agent:
            agent.when_line(
                rf"\[Agent\] The certificate of the relay at localhost:{relay.port} "
                r"comes from an authority that is not trusted here\."
            )
            agent.when_line("Next attempt in")
        agent.check_quiet()
        relay.when_line("A TLS handshake with 127.0.0.1 failed: .*unknown ca")
    relay.check_quiet()


@pytest.mark.parametrize(
    "argv",
    [
        twistd("seance-relay", "--tls-cert", "nowhere.pem"),
        [*SEANCE, "relay", "--tls-cert", "nowhere.pem"],
        twistd("seance-agent", "--room", "r", "--relay", "wss://localhost", "--tls-ca", "nowhere.pem"),
        [
            *[sys.executable, "-m", "seance", "agent", "--room", "r", "--relay", "wss://relay.example"],
            "--tls-insecure",
        ],
    ],
    ids=["twistd relay", "seance relay", "twistd agent", "seance agent"],
)
def test_invalid_files_are_one_message_and_status_1(argv: list[str]) -> None:
    with Process(argv, name="it", env=environment()) as process:
        assert process.when_exited() == 1
        is_file = "nowhere.pem" in argv
        wanted = "nowhere.pem cannot be read" if is_file else "relay.example must be checked"
        [line] = [
            line for line in process.output.splitlines() if line.startswith("seance") and wanted in line
        ]
        assert line.endswith(".")
        process.check_quiet()
