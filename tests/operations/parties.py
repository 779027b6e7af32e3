"""Both ends of what passes a proxy: plain WebSocket clients in threads, and an echo server in one.

They are the ``websockets`` library's, which we have nothing to do with: whatever a proxy or the tunnel
does to them, a stranger's client would see too.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.processes import DEADLINE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PATIENCE_SECONDS", "EchoServer", "Talker", "dial", "talkers"]

PATIENCE_SECONDS = 60.0
"""For a crowd on a slow machine; no speed is asserted with it."""


class EchoServer:
    """The local server: sends back what it gets, and keeps the heads of the requests.

    Args:
        ping_seconds: How often it pings who is connected; None for never.
    """

    def __init__(self, ping_seconds: float | None = None) -> None:
        self.heads: list[Mapping[str, str]] = []
        self._server = serve(self._echo, "127.0.0.1", 0, ping_interval=ping_seconds, compression=None)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _echo(self, client: ServerConnection) -> None:
        assert client.request is not None
        self.heads.append(dict(client.request.headers.raw_items()))
        with contextlib.suppress(ConnectionClosed):
            for message in client:
                client.send(message)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE_SECONDS)


@contextlib.contextmanager
def dial(
    url: str, context: ssl.SSLContext | None, *, claims: str | None = None, **options: Any
) -> Iterator[ClientConnection]:
    """A WebSocket for the time of a ``with`` block.

    Args:
        url: Its address.
        context: By what to believe the certificate; None without TLS.
        claims: The address that a PROXY line in front says; None for no such line.
        options: The library's. It sends no pings of its own unless told to.
    """
    options = {"ping_interval": None, "compression": None, "open_timeout": DEADLINE_SECONDS, **options}
    if claims is not None:
        port = int(url.split(":")[2].partition("/")[0])
        options["sock"] = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        options["sock"].sendall(f"PROXY TCP4 {claims} 127.0.0.1 1024 {port}\r\n".encode())
    with connect(url, ssl=context, proxy=None, **options) as connection:
        yield connection


class Talker:
    """A client that says one number after the other, each when the one before it has come back.

    ``stop()`` says what became of it: how many came back, and by what it was ended if it was.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        self.count = 0
        self.trouble: str | None = None
        self._where = url, context
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        try:
            with dial(*self._where) as connection:
                while not self._is_over.wait(0.02):
                    connection.send(str(self.count))
                    heard = connection.recv(PATIENCE_SECONDS)
                    assert heard == str(self.count), f"{heard!r} came back for {self.count}"
                    self.count += 1
        except (WebSocketException, OSError, TimeoutError, AssertionError) as error:
            self.trouble = f"{type(error).__name__} after {self.count}: {error}"

    def stop(self) -> str | None:
        self._is_over.set()
        self._thread.join(2 * PATIENCE_SECONDS)
        return self.trouble


@contextlib.contextmanager
def talkers(count: int, url: str, context: ssl.SSLContext | None) -> Iterator[list[Talker]]:
    """Several of them; at the end of the ``with`` block none may have had trouble."""
    crowd = [Talker(url, context) for _ in range(count)]

    def talk() -> bool:
        return all(talker.count or talker.trouble for talker in crowd)

    until("all talk", talk, deadline_seconds=PATIENCE_SECONDS)
    yield crowd
    troubles = [trouble for talker in crowd if (trouble := talker.stop())]
    assert not troubles, "\n".join(troubles)
