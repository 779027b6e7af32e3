"""Participants of an attack on real processes: a local server, an ordinary client, a raw agent.

All of them use raw TCP. A library would repair what an attacker sends, and would hide how it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

from tests.e2e.wire import Wire, frame, read_frame, switching, upgrade
from tests.processes import DEADLINE_SECONDS, RelayProcess, running_agent, until
from tests.yamux.frame_bytes import ACK, PING, SYN, WireFrame, read_frames, window

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MIB",
    "EchoServer",
    "Innocent",
    "RawAgent",
    "dial_quietly",
    "innocent_room",
    "say",
    "settles",
]

MIB = 1024 * 1024
TEXT = 1


class EchoServer:
    """A local server that accepts every upgrade, then echoes, and records what it received.

    Args:
        keeps: Whether to record the bytes behind the heads.
        pour_bytes: Number of bytes sent to each client behind the 101.

    Attributes:
        heads: The heads, one per connection.
        received: The bytes behind the heads, if ``keeps`` is set.
        transports: The open connections.
    """

    def __init__(self, *, keeps: bool = False, pour_bytes: int = 0) -> None:
        self.heads: list[bytes] = []
        self.received = bytearray()
        self.transports: set[asyncio.Transport] = set()
        self.keeps = keeps
        self.pour = b"x" * pour_bytes
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(lambda: _Echo(self), "127.0.0.1", 0, backlog=1000)
        self._server = self._loop.run_until_complete(listening)
        self.port = self._server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        self._server.close()
        for transport in list(self.transports):
            transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    @property
    def open_count(self) -> int:
        return len(self.transports)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(DEADLINE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_SECONDS)


class _Echo(asyncio.Protocol):
    def __init__(self, server: EchoServer) -> None:
        self._server = server
        self._head: bytes | None = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = None
            self._server.heads.append(head + end)
            key = head.lower().partition(b"sec-websocket-key: ")[2]
            start = len(head) - len(key)
            self._transport.write(switching(head[start:].partition(b"\r\n")[0]))
            self._transport.write(self._server.pour)
        if self._server.keeps:
            self._server.received += data
        self._transport.write(data)


class Innocent:
    """An ordinary client that repeatedly connects, sends a message, gets its echo and disconnects.

    Used as ``with Innocent(relay, target, name=...):`` around an attack. At its end every visit must have
    succeeded, and there must be at least one. Durations are printed, not asserted.
    """

    def __init__(self, relay: RelayProcess, target: str, *, name: str) -> None:
        self._address = ("127.0.0.1", relay.port)
        self._target = target
        self._name = name
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def _run(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            try:
                self.visit()
            except Exception as error:  # a visit must not fail at all
                self.failures.append(repr(error))
            self.seconds.append(time.monotonic() - began)
            self._is_over.wait(0.02)

    def visit(self) -> None:
        """Connect, exchange one message, disconnect."""
        with Wire.dial(self._address) as client:
            client.send(upgrade(self._target))
            head = client.read_head()
            assert head.status == 101, head
            client.send(frame(TEXT, b"hello", masked=True))
            first, payload = read_frame(client.read_exactly)
            assert (first, payload) == (0x80 | TEXT, b"hello")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._is_over.set()
        self._thread.join(2 * DEADLINE_SECONDS)
        if kind is None:
            assert self.failures == []
            assert self.seconds
        ordered = sorted(self.seconds) or [0.0]
        figures = {
            f"p{share}_ms": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)
            for share in (50, 90, 99)
        }
        say(self._name, visits=len(self.seconds), **figures)


@contextlib.contextmanager
def innocent_room(relay: RelayProcess, *options: str) -> Iterator[str]:
    """Provide a separate room with an agent and a local server; yield its target."""
    with EchoServer() as server, running_agent(relay, "innocent", *options, local_port=server.port):
        yield "/c/innocent/doc"


class RawAgent:
    """An agent controlled by the test: a real WebSocket connection that carries yamux frames."""

    def __init__(self, relay: RelayProcess, room: str, fields: bytes = b"") -> None:
        self._wire = Wire.dial(("127.0.0.1", relay.port))
        self._wire.send(upgrade(f"/agent?room={room}", fields))
        self.head = self._wire.read_head()
        self._octets = b""
        self._frames: list[WireFrame] = []

    @property
    def wire(self) -> Wire:
        return self._wire

    def say(self, *frames: bytes) -> None:
        """Send yamux frames in one WebSocket message."""
        self._wire.send(frame(2, b"".join(frames), masked=True))

    def say_text(self, payload: bytes) -> None:
        """Send a link control message."""
        self._wire.send(frame(TEXT, payload, masked=True))

    def hear(self) -> WireFrame | None:
        """Return the next yamux frame; None once the relay has sent a close frame or ended the connection."""
        while not self._frames:
            try:
                first, payload = read_frame(self._wire.read_exactly)
            except (EOFError, ConnectionError):
                return None
            if first & 15 == 8:
                return None
            self._frames, self._octets = read_frames(self._octets + payload)
        return self._frames.pop(0)

    def take_stream(self) -> int:
        """Wait for a client's stream and accept it."""
        heard = self.hear()
        while heard is not None and (heard.kind == PING or not heard.flags & SYN):
            heard = self.hear()
        assert heard is not None, "the relay has disconnected"
        self.say(window(heard.stream_id, ACK))
        return heard.stream_id

    def lingering_close(self) -> list[WireFrame]:
        """Return the frames that the relay sends before it ends the connection, which it must."""
        said = []
        while heard := self.hear():
            said.append(heard)
        with contextlib.suppress(OSError):
            self._wire.send(frame(8, b"\x03\xe8", masked=True))
        with contextlib.suppress(ConnectionError):
            self._wire.read_to_end()
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()


def say(name: str, **figures: object) -> None:
    """Print figures as one line of JSON; pytest shows it with -s or -rP."""
    print(json.dumps({"name": name, **figures}))


def dial_quietly(relay: RelayProcess) -> socket.socket:
    """Open a connection that sends nothing yet."""
    return socket.create_connection(("127.0.0.1", relay.port), DEADLINE_SECONDS)


def settles(relay: RelayProcess, what: str, before: int) -> None:
    """Wait until a relay has no more descriptors than before."""
    until(f"{what}: descriptors as before", lambda: len(relay.open_descriptors()) <= before)
