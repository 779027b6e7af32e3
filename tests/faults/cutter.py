"""A proxy between agent and relay that breaks connections on command.

With real sockets and processes, and without root, it can: reset every connection; pass nothing in one or both
directions while connections stay open, with new ones unanswered; act at an exact byte; delay; and limit the
rate. A silent connection is like a cut cable: its ends do not notice when the other one closes. It cannot
lose packets below TCP; ``tests.faults.namespaces`` does that.

It records when the agent dials. This shows tests that a fault was noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import time
from collections.abc import Callable
from typing import Self

from tests.faults.loops import Loop

__all__ = ["Cutter", "Direction"]

CHUNK_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
ESTABLISHED = 1


class Direction(enum.Enum):
    """From the dialling side (up) or to it (down)."""

    UP = "up"
    DOWN = "down"


class Cutter:
    """Listens on a loopback port and forwards connections to ``target``, apart from the commanded faults.

    Tests may call every method from their thread; its effect is complete when it returns.

    Args:
        loop: The loop in which it runs.
        target: Host and port behind it. May be assigned.

    Attributes:
        port: The port of the proxy.
        dials: The times of connections to the proxy (``time.monotonic``), in order.
    """

    def __init__(self, loop: Loop, target: tuple[str, int]) -> None:
        self._loop = loop
        self.target = target
        self.port = 0
        self.dials: list[float] = []
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[Direction, asyncio.Event] = {}
        self._marks: list[tuple[Direction, int, Callable[[_Pair, bytes, int], bytes | None]]] = []
        self.delay_seconds = 0.0
        self.bytes_per_second: int | None = None

    # -- faults ----------------------------------------------------------------------------

    @property
    def pair_count(self) -> int:
        """The number of open connections."""
        return len(self._pairs)

    def reset(self) -> int:
        """Reset every connection at both ends; return their number."""
        return self._loop.call(self._reset)

    def _reset(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    def swallow(self, *directions: Direction) -> None:
        """Pass nothing from now on, in these directions or in both; the bytes are kept.

        Meanwhile new connections are accepted and get no answer.
        """
        for direction in directions or tuple(Direction):
            self._loop.call(self._open[direction].clear)

    def strand(self) -> None:
        """Pass nothing on the present connections; later ones pass. The old carrier is half-open then."""
        for pair in self._loop.call(lambda: list(self._pairs)):
            self._loop.call(pair.passes.clear)

    def heal(self) -> None:
        """Pass everything again, including the kept bytes."""
        for gate in self._open.values():
            self._loop.call(gate.set)
        for pair in self._loop.call(lambda: list(self._pairs)):
            self._loop.call(pair.passes.set)

    def cut_at(self, direction: Direction, count: int) -> None:
        """Reset the next connection after exactly ``count`` bytes of a direction."""

        def cut(pair: _Pair, data: bytes, until: int) -> None:
            pair.far_of(direction).send(data[:until])
            pair.reset()

        self._marks.append((direction, count, cut))

    def flip_at(self, direction: Direction, count: int) -> None:
        """Flip one bit of the byte after ``count`` bytes of a direction of the next connection."""

        def flip(_: _Pair, data: bytes, until: int) -> bytes:
            return data[:until] + bytes([data[until] ^ 0x10]) + data[until + 1 :]

        self._marks.append((direction, count, flip))

    def stop_listening(self) -> None:
        """Refuse connections from now on."""
        self._loop.call(self._listener.close)

    # -- from and to the network -----------------------------------------------------------

    def __enter__(self) -> Self:
        self._loop.call(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call(self._stop)

    def _start(self) -> None:
        self._open = {direction: asyncio.Event() for direction in Direction}
        for gate in self._open.values():
            gate.set()
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=1000)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._reset()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            asyncio.get_running_loop().remove_reader(self._listener)
            return
        self.dials.append(time.monotonic())
        near.setblocking(False)
        task = asyncio.create_task(self._serve(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far = socket.socket()
        far.setblocking(False)
        pair = _Pair(near, far)
        self._pairs.add(pair)
        marks, self._marks = self._marks, []
        try:
            await self._answer(near)
            await loop.sock_connect(far, self.target)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pumps = []
            for direction in Direction:
                mine = [mark[1:] for mark in marks if mark[0] is direction]
                pumps.append(asyncio.create_task(self._pump(pair, direction, mine)))
            pair.tasks = pumps
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            pair.reset()
            self._pairs.discard(pair)

    async def _answer(self, near: socket.socket) -> None:
        """Wait until everything passes; fail if the client has closed before that."""
        for gate in self._open.values():
            await gate.wait()
        if near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
            raise ConnectionAbortedError

    async def _pump(
        self,
        pair: _Pair,
        direction: Direction,
        marks: list[tuple[int, Callable[[_Pair, bytes, int], bytes | None]]],
    ) -> None:
        loop, gate = asyncio.get_running_loop(), self._open[direction]
        source, sink = pair.near_of(direction), pair.far_of(direction)
        passed = 0
        while True:
            await gate.wait()
            await pair.passes.wait()
            data = await loop.sock_recv(source, CHUNK_BYTES)
            await gate.wait()
            await pair.passes.wait()
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            for at, act in [mark for mark in marks if passed <= mark[0] < passed + len(data)]:
                changed = act(pair, data, at - passed)
                if changed is None:
                    return
                data = changed
            passed += len(data)
            if self.bytes_per_second:
                await self._dribble(sink, data, self.bytes_per_second)
            else:
                await loop.sock_sendall(sink, data)

    async def _dribble(self, sink: socket.socket, data: bytes, rate: int) -> None:
        piece_bytes = max(1, rate // 50)
        for start in range(0, len(data), piece_bytes):
            await asyncio.get_running_loop().sock_sendall(sink, data[start : start + piece_bytes])
            await asyncio.sleep(piece_bytes / rate)


class _Pair:
    """The two sockets of one connection through the proxy."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._near = near
        self._far = far
        self.tasks: list[asyncio.Task[None]] = []
        self.passes = asyncio.Event()
        self.passes.set()

    def near_of(self, direction: Direction) -> socket.socket:
        """Return the socket from which a direction reads."""
        return self._near if direction is Direction.UP else self._far

    def far_of(self, direction: Direction) -> socket.socket:
        """Return the socket to which a direction writes."""
        return self._far if direction is Direction.UP else self._near

    def reset(self) -> None:
        """Send RST to both ends; do nothing the second time."""
        for task in self.tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        for one in (self._near, self._far):
            if one.fileno() < 0:
                continue
            # Before the descriptor can be reused: otherwise the new socket would lose its callbacks.
            loop.remove_reader(one)
            loop.remove_writer(one)
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.close()
