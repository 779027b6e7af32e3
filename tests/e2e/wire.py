"""Raw TCP ends for tests that compare bytes: a client that sends any bytes, and a scripted local server.

No WebSocket library is between the test and the connection, so nothing is repaired on the way. The test's
thread writes at one end and reads at the other; every read has a deadline.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from seance.wsclient.frames import apply_mask, encode_header
from tests.processes import DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "KEY",
    "Exchange",
    "Head",
    "Listener",
    "Wire",
    "accept_for",
    "frame",
    "read_frame",
    "switching",
    "upgrade",
]

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
"""A fixed ``Sec-WebSocket-Key``."""


class Wire:
    """One end of a TCP connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE_SECONDS)
        self._socket = connection
        self._unread = b""

    @classmethod
    def dial(cls, address: tuple[str, int]) -> Self:
        return cls(socket.create_connection(address, DEADLINE_SECONDS))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_exactly(self, count: int) -> bytes:
        """Return the next ``count`` bytes; raise EOFError with the received bytes if there are fewer."""
        pieces, missing = [self._unread[:count]], count - len(self._unread[:count])
        self._unread = self._unread[count:]
        while missing > 0:
            piece = self._socket.recv(min(missing, 1 << 20))
            if not piece:
                raise EOFError(b"".join(pieces))
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def read_head(self) -> Head:
        """Return an HTTP head; the bytes behind it stay unread."""
        while b"\r\n\r\n" not in self._unread:
            piece = self._socket.recv(65536)
            if not piece:
                raise EOFError(self._unread)
            self._unread += piece
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        return Head.parse(head)

    def read_to_end(self) -> bytes:
        """Return all bytes up to the peer's FIN; raise ConnectionResetError if it resets instead."""
        pieces = [self._unread]
        self._unread = b""
        while piece := self._socket.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """Send FIN; the other direction stays open."""
        self._socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Send RST immediately."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Listener:
    """A local server that only accepts connections; the test plays the rest."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._socket.settimeout(DEADLINE_SECONDS)
        self.port: int = self._socket.getsockname()[1]

    def accept(self) -> Wire:
        return Wire(self._socket.accept()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request or an answer, unchanged."""

    first_line: bytes
    fields: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def parse(cls, head: bytes) -> Head:
        first_line, *lines = head.split(b"\r\n")
        split = [line.partition(b":") for line in lines]
        return cls(first_line, tuple((name, value.strip(b" \t")) for name, _, value in split))

    @property
    def target(self) -> bytes:
        return self.first_line.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.first_line.split(b" ")[1])

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of every field of that name, in order."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def without(self, *names: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """Return the fields in their order and spelling, without the fields of these names."""
        left_out = {name.lower() for name in names}
        return tuple((name, value) for name, value in self.fields if name.lower() not in left_out)


class Exchange:
    """A client and the local server at the two ends of one upgraded connection."""

    def __init__(self, client: Wire, server: Wire, request: Head, answer: Head) -> None:
        self.client = client
        self.server = server
        self.request = request
        self.answer = answer

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        address: tuple[str, int],
        target: str,
        listener: Listener,
        *,
        offered: bytes = b"",
        chosen: bytes = b"",
        after_request: bytes = b"",
        after_answer: bytes = b"",
    ) -> Iterator[Exchange]:
        """Complete the handshake; ``offered`` and ``chosen`` are header lines, the ``after_`` bytes follow
        in the same segment.
        """
        with Wire.dial(address) as client:
            client.send(upgrade(target, offered) + after_request)
            with listener.accept() as server:
                request = server.read_head()
                [key] = request.all(b"Sec-WebSocket-Key")
                server.send(switching(key, chosen) + after_answer)
                yield cls(client, server, request, client.read_head())


def upgrade(target: str, fields: bytes = b"", *, host: bytes = b"relay.example") -> bytes:
    """Return a client's upgrade request; ``fields`` are whole lines."""
    return (
        b"GET " + target.encode("latin-1") + b" HTTP/1.1\r\n"
        b"Host: " + host + b"\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n" + fields + b"\r\n"
    )


def switching(key: bytes, fields: bytes = b"") -> bytes:
    """Return a local server's 101."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_for(key) + b"\r\n" + fields + b"\r\n"
    )


def accept_for(key: bytes) -> bytes:
    """Return the accept value that proves that the key was read (RFC 6455, 4.2.2)."""
    magic = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(key + magic, usedforsecurity=False).digest())


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, rsv1: bool = False, masked: bool = False
) -> bytes:
    """Return one WebSocket frame; ``masked`` masks it with a random key, as clients must."""
    mask = os.urandom(4) if masked else None
    header = encode_header(opcode, len(payload), is_final=final, reserved=4 if rsv1 else 0, mask=mask)
    return header + (apply_mask(payload, mask) if mask else payload)


def read_frame(read: Callable[[int], bytes]) -> tuple[int, bytes]:
    """Read one frame; return its first byte and its unmasked payload."""
    first, second = read(2)
    length = second & 0x7F
    if length == 126:
        [length] = struct.unpack("!H", read(2))
    elif length == 127:
        [length] = struct.unpack("!Q", read(8))
    key = read(4) if second & 0x80 else b""
    payload = read(length)
    return first, apply_mask(payload, key) if key else payload
