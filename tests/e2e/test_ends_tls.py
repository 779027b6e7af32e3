"""The last message before a reset arrives, with TLS on the client, on the carrier and on the local server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Authority
from tests.processes import AgentProcess, running_relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRIES = 5
SECONDS = 10
BYTES = 400_000
UPLOADED_BYTES = 100_000
RESET = struct.pack("ii", 1, 0)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE = b"\x88\x02" + struct.pack(">H", 4403)
LAST = b"\x82\x84\0\0\0\0LAST"


def read_head(connection: ssl.SSLSocket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        more = connection.recv(65_536)
        assert more, head
        head += more
    return head


def read_rest(connection: ssl.SSLSocket) -> bytes:
    received = b""
    with contextlib.suppress(OSError):
        while more := connection.recv(65_536):
            received += more
    return received


def reset(connection: ssl.SSLSocket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


class LocalAddress:
    """A document server with TLS. ``/down`` sends a document and reads; ``/up`` resets a client that
    sends.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received: list[bytes] = []
        self._news = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def wait(self, count: int) -> bytes:
        with self._news:
            assert self._news.wait_for(lambda: len(self.received) >= count, SECONDS), "nothing arrived"
            return self.received[count - 1]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(SECONDS)
        connection = self._context.wrap_socket(raw, server_side=True)
        head = read_head(connection)
        [key] = [
            line.split()[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        ]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        if b" /up" in head.partition(b"\r\n")[0]:
            connection.recv(1024)  # the upload has begun
            connection.sendall(CLOSE)
            reset(connection)
            return
        with contextlib.suppress(OSError):
            connection.sendall(b"\x82\x7f" + struct.pack(">Q", BYTES) + b"y" * BYTES)
        received = read_rest(connection)
        connection.close()
        with self._news:
            self.received.append(received)
            self._news.notify_all()


@pytest.fixture(scope="module")
def tunnel(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[LocalAddress, Callable[[str], ssl.SSLSocket]]]:
    """Start the local server, and return a function that opens a WebSocket to it through the tunnel."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    files = authority.issue("localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.both)
    client = ssl.create_default_context(cafile=str(authority.file))
    local = LocalAddress(server)
    cert = ("--tls-cert", str(files.chain), "--tls-key", str(files.key))
    with (
        running_relay(*cert) as relay,
        AgentProcess(
            "ends",
            *("--relay", f"wss://localhost:{relay.port}", "--tls-ca", str(authority.file)),
            *("--local", f"tls://localhost:{local.port}", "--local-ca", str(authority.file)),
        ) as agent,
    ):
        agent.when_connected()

        def dial(target: str) -> ssl.SSLSocket:
            raw = socket.create_connection(("127.0.0.1", relay.port), SECONDS)
            connection = client.wrap_socket(raw, server_hostname="localhost")
            head = (
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            )
            head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            connection.sendall(head.encode())
            return connection

        yield local, dial
    local.close()


FORMS = ["/c/ends{path}", "/client{path}?room=ends"]


@pytest.mark.parametrize("form", FORMS, ids=["share link", "parameter"])
def test_last_message_of_a_client_that_resets_arrives(
    tunnel: tuple[LocalAddress, Callable[[str], ssl.SSLSocket]], form: str
) -> None:
    local, dial = tunnel
    for _ in range(TRIES):
        count = len(local.received) + 1
        client = dial(form.format(path="/down"))
        assert b" 101 " in read_head(client)
        client.sendall(LAST)
        reset(client)
        assert local.wait(count).endswith(b"LAST")


@pytest.mark.parametrize("form", FORMS, ids=["share link", "parameter"])
def test_close_frame_of_a_local_server_that_resets_arrives(
    tunnel: tuple[LocalAddress, Callable[[str], ssl.SSLSocket]], form: str
) -> None:
    _, dial = tunnel
    for _ in range(TRIES):
        client = dial(form.format(path="/up"))
        received = read_head(client)
        assert b" 101 " in received

        # It fits into the buffers of the path: OpenSSL reads no more after a failed write.
        client.sendall(b"\x82\xff" + struct.pack(">Q", BYTES) + b"\0\0\0\0" + b"x" * UPLOADED_BYTES)
        received += read_rest(client)
        client.close()
        assert received.endswith(CLOSE)
