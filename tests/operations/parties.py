"""Both ends of a connection through a proxy: WebSocket clients in threads, and an echo server.

They use the ``websockets`` library, which is independent of this project: an error that a proxy or the tunnel
causes here also affects other clients.
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
"""For many clients on a slow machine; the tests assert no speed with it."""


class EchoServer:
    """The local server: an echo server that records the heads of requests.

    Args:
        ping_seconds: Interval of its pings to clients; None for no pings.
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
    """A WebSocket connection for a ``with`` block.

    Args:
        url: Its address.
        context: TLS context; None without TLS.
        claims: Client address in a PROXY line before the handshake; None for no such line.
        options: Options of the library. It sends no pings unless they say so.
    """
    options = {"ping_interval": None, "compression": None, "open_timeout": DEADLINE_SECONDS, **options}
    if claims is not None:
        port = int(url.split(":")[2].partition("/")[0])
        options["sock"] = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        options["sock"].sendall(f"PROXY TCP4 {claims} 127.0.0.1 1024 {port}\r\n".encode())
    with connect(url, ssl=context, proxy=None, **options) as connection:
        yield connection


class Talker:
    """A client that sends one number after the other, each when the one before it has been echoed.

    ``stop()`` returns None, or the error that ended the connection.
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
    """Several talkers; none may have had an error at the end of the ``with`` block."""
    crowd = [Talker(url, context) for _ in range(count)]

    def talk() -> bool:
        return all(talker.count or talker.trouble for talker in crowd)

    until("all have answers", talk, deadline_seconds=PATIENCE_SECONDS)
    yield crowd
    troubles = [trouble for talker in crowd if (trouble := talker.stop())]
    assert not troubles, "\n".join(troubles)
