"""What a narrow line does to the people behind it, with real processes: the tunnel's part in it.

No speed of this machine is asserted: the line is what is slow. Its figures are those of
``benchmarks/shaping.py``, which takes longer and says more; here the bounds are wide enough for a busy
machine, and still such that a tunnel without a scheduler, or without held upgrades, misses them."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.shaping.place import Far, Link, client, throttled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KEY_SECONDS = 0.1


async def keystrokes(stage: Far, count: int) -> list[float]:
    took = []
    async with client(stage.url(), stage.trust) as connection:
        for _ in range(count):
            begin = time.perf_counter()
            await connection.send(bytes(100))
            await connection.recv()
            took.append(time.perf_counter() - begin)
            await asyncio.sleep(KEY_SECONDS)
    return took


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_keystroke_passes_a_transfer_in_either_direction(
    direction: str, scheme: str, tmp_path: Path
) -> None:
    """2 MB at 1 Mbit/s are 16 s; whoever waits behind what the tunnel holds of them waits for a second and
    more."""
    authority = Authority(tmp_path) if scheme == "wss" else None
    with throttled(Link(up_mbit=1.0, down_mbit=1.0), authority=authority) as stage:

        async def run() -> tuple[list[float], list[float]]:
            idle = await keystrokes(stage, 30)
            async with client(stage.url("sink"), stage.trust) as loader:
                await loader.send("bytes 2000000" if direction == "down" else bytes(2_000_000))
                await asyncio.sleep(2.0)  # by now the path is known
                moving = asyncio.create_task(loader.recv())
                busy = await keystrokes(stage, 40)
                assert not moving.done(), "the transfer was there all the time"
                moving.cancel()
            return idle, busy

        idle, busy = stage.here.run(run(), deadline_seconds=120)
    assert statistics.median(busy) <= statistics.median(idle) + 0.181


def test_fresh_clients_on_a_slow_line_all_have_their_document_and_none_dials_twice() -> None:
    """Six times 2.5 MB over 8 Mbit/s, in their turn: with 15 s of the path, and 10 s of patience for each."""
    size, count, patience_seconds = 2_500_000, 6, 10.0
    with throttled(Link(up_mbit=8.0, down_mbit=8.0)) as stage:

        async def load() -> float:
            async with client(stage.url()) as connection:
                begin = time.perf_counter()
                await connection.send(f"bytes {size}")
                assert len(await connection.recv()) == size
                return time.perf_counter() - begin

        async def run() -> list[float]:
            return await asyncio.gather(*(load() for _ in range(count)))

        took = stage.here.run(run(), deadline_seconds=120)
    assert max(took) <= patience_seconds


def test_who_does_not_read_is_nobody_elses_trouble() -> None:
    """30 MB for a client that takes none of it: relay and agent hold a window or two, and others are
    answered."""
    with throttled(Link(round_trip_seconds=0.0)) as stage:

        async def run() -> tuple[list[float], list[float]]:
            async with client(stage.url("stream")) as deaf:
                before_it = await keystrokes(stage, 30)
                before = stage.relay.resident_bytes() + stage.agent.resident_bytes()
                deaf.transport.pause_reading()
                await deaf.send("begin")
                took = await keystrokes(stage, 30)
                grown = stage.relay.resident_bytes() + stage.agent.resident_bytes() - before
                assert grown < 16_000_000
                deaf.transport.abort()
            return before_it, took

        before_it, took = stage.here.run(run(), deadline_seconds=60)
    # Both in one run, so that a slow machine is slow in both; who waits for 30 MB waits seconds.
    assert statistics.median(took) < 10 * statistics.median(before_it) + 0.05
