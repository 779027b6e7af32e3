"""Many clients that join a room at the same moment on a fast line; nothing is sent but the 101."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.e2e.wire import KEY, switching, upgrade
from tests.processes import DEADLINE_SECONDS, RelayProcess, running_agent, running_relay

ROOM = "crowd"

LATE_SECONDS = 9.0
"""A client that waits in the initial-sync queue without need waits for up to 15 s. 300 upgrades take some
seconds.
"""


class Crowd:
    """A local server that accepts every upgrade and sends nothing, and clients that stay connected."""

    def __init__(self) -> None:
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(switching(KEY))
            await reader.read()
        writer.close()

    async def join(self, relay: RelayProcess) -> float:
        """Connect one client; return the seconds until its 101."""
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        self._writers.append(writer)
        writer.write(upgrade(f"/c/{ROOM}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return time.perf_counter() - began

    async def leave(self) -> None:
        for writer in self._writers:
            writer.close()
        self._server.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def crowd_behind_tunnel(*options: str) -> AsyncIterator[tuple[Crowd, RelayProcess]]:
    crowd = Crowd()
    await crowd.listen()
    relay = running_relay(*options)
    agent = None
    try:
        process = await asyncio.to_thread(relay.__enter__)
        agent = running_agent(process, ROOM, local_port=crowd.port)
        await asyncio.to_thread(agent.__enter__)
        yield crowd, process
    finally:
        await crowd.leave()
        if agent is not None:
            await asyncio.to_thread(agent.__exit__, None, None, None)
        await asyncio.to_thread(relay.__exit__, None, None, None)


@pytest.mark.parametrize(
    ("offset_seconds", "count"),
    [
        (0.4, 30),
        pytest.param(0.05, 300, marks=[pytest.mark.slow, pytest.mark.alone]),
        pytest.param(0.15, 30, marks=[pytest.mark.slow, pytest.mark.alone]),
        pytest.param(0.6, 300, marks=[pytest.mark.slow, pytest.mark.alone]),
    ],
)
def test_clients_that_join_an_idle_link_together_do_not_queue(offset_seconds: float, count: int) -> None:
    """One client, a second one after the offset, then many at the same moment."""

    async def run() -> list[float]:
        async with crowd_behind_tunnel() as (crowd, relay):
            took = [await crowd.join(relay)]
            await asyncio.sleep(offset_seconds)
            took.append(await crowd.join(relay))
            async with asyncio.timeout(2 * DEADLINE_SECONDS):
                took += await asyncio.gather(*(crowd.join(relay) for _ in range(count)))
            return took

    assert max(asyncio.run(run())) < LATE_SECONDS
