"""A proxy that acts as a slow line: a limited rate, a delay, and small buffers.

It reads no faster than the rate, and its socket buffers are small, so the sender's kernel keeps the excess,
as with a narrow uplink with a short queue. Unlike ``tests.faults.emulator`` it needs no root and loses
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

__all__ = ["Throttle"]

PIECE_BYTES = 1448
UNREAD_BYTES = 4096
"""``SO_RCVBUF``; the kernel doubles it."""

LATE_SECONDS = 0.02


class Throttle:
    """Listens, and forwards each connection to ``target`` over the line. Call ``listen`` in a loop.

    Args:
        target: Host and port.
        up_bytes_per_second: For all connections together, towards the target; 0 for no limit.
        down_bytes_per_second: The other direction.
        round_trip_seconds: Delay of a byte, both directions together.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        up_bytes_per_second: float = 0.0,
        down_bytes_per_second: float = 0.0,
        round_trip_seconds: float = 0.04,
    ) -> None:
        self._target = target
        self._up = _Lane(up_bytes_per_second, round_trip_seconds / 2)
        self._down = _Lane(down_bytes_per_second, round_trip_seconds / 2)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []
        self.port = 0

    async def listen(self) -> None:
        listener = _small(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        self._sockets.append(listener)
        self.port = listener.getsockname()[1]
        self._start(self._accept(listener))

    async def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in self._sockets:
            one.close()

    def _start(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far = _small(socket.socket())
            far.setblocking(False)
            self._sockets += [near, far]
            await loop.sock_connect(far, self._target)
            self._start(self._up.carry(near, far))
            self._start(self._down.carry(far, near))


class _Lane:
    """Forward one direction."""

    def __init__(self, bytes_per_second: float, delay_seconds: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._delay_seconds = delay_seconds
        self._free_at = 0.0

    async def carry(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = loop.create_task(self._arrive(on_the_way, sink))
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(source, PIECE_BYTES if self._bytes_per_second else 65536):
                now = loop.time()
                if self._bytes_per_second:
                    # If the sleep was too long, the line was free in that time: send the difference now.
                    self._free_at = (
                        max(self._free_at, now - LATE_SECONDS) + len(data) / self._bytes_per_second
                    )
                    on_the_way.put_nowait((max(self._free_at, now) + self._delay_seconds, data))
                    if self._free_at > now:
                        await asyncio.sleep(self._free_at - now)
                else:
                    on_the_way.put_nowait((now + self._delay_seconds, data))
            on_the_way.put_nowait((loop.time() + self._delay_seconds, b""))
        try:
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(self, on_the_way: asyncio.Queue[tuple[float, bytes]], sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                due, data = await on_the_way.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(sink, data)


def _small(sock: socket.socket) -> socket.socket:
    """Set small buffers, and segments of Ethernet size."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, PIECE_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
