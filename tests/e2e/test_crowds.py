"""Crowds that join a room on a fast line: real processes, raw sockets, and nothing sent but the 101."""

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
"""A needlessly held client waits for up to 15 s; a very busy machine needs some for 300 upgrades."""


class Crowd:
    """A local server that accepts every upgrade and says nothing, and clients that stay."""

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
        """Connects one client; gives the seconds until its 101."""
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
async def a_room(*options: str) -> AsyncIterator[tuple[Crowd, RelayProcess]]:
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
        (0.05, 300),
        *(pytest.param(offset, 30, marks=pytest.mark.slow) for offset in (0.05, 0.15, 0.3, 0.6)),
        *(pytest.param(offset, 300, marks=pytest.mark.slow) for offset in (0.3, 0.6)),
    ],
)
def test_a_crowd_that_joins_an_idle_link_is_not_held(offset_seconds: float, count: int) -> None:
    """One client, a second one some time later, then many at the same moment."""

    async def run() -> list[float]:
        async with a_room() as (crowd, relay):
            took = [await crowd.join(relay)]
            await asyncio.sleep(offset_seconds)
            took.append(await crowd.join(relay))
            async with asyncio.timeout(2 * DEADLINE_SECONDS):
                took += await asyncio.gather(*(crowd.join(relay) for _ in range(count)))
            return took

    assert max(asyncio.run(run())) < LATE_SECONDS
