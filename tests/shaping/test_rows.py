"""Latency and fairness on a slow line, with real processes.

The line is the bottleneck, not this machine. The links are those of ``benchmarks/shaping.py``, which runs
longer and reports more. The bounds here are wide enough for a busy machine, and a tunnel without a scheduler,
or without queued initial syncs, exceeds them.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.shaping.place import Far, Link, client, throttled

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240)]

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


@pytest.mark.parametrize(("direction", "scheme"), [("down", "ws"), ("up", "wss")])
def test_a_keystroke_overtakes_a_transfer(direction: str, scheme: str, tmp_path: Path) -> None:
    """2 MB at 1 Mbit/s take 16 s. A keystroke behind the buffered part waits for a second or more."""
    authority = Authority(tmp_path) if scheme == "wss" else None
    with throttled(Link(up_mbit=1.0, down_mbit=1.0), authority=authority) as stage:

        async def run() -> tuple[list[float], list[float]]:
            idle = await keystrokes(stage, 30)
            async with client(stage.url("sink"), stage.trust) as loader:
                await loader.send("bytes 2000000" if direction == "down" else bytes(2_000_000))
                await asyncio.sleep(2.0)  # until the path has been measured
                moving = asyncio.create_task(loader.recv())
                busy = await keystrokes(stage, 40)
                assert not moving.done(), "the transfer ended before the keystrokes"
                moving.cancel()
            return idle, busy

        idle, busy = stage.here.run(run(), deadline_seconds=120)
    assert statistics.median(busy) <= statistics.median(idle) + 0.181


def test_six_initial_syncs_on_a_slow_line_each_finish_in_10_s() -> None:
    """Six times 2.5 MB over 8 Mbit/s take 15 s. Clients that wait in the queue have not been answered yet."""
    size, count, max_seconds = 2_500_000, 6, 10.0
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
    assert max(took) <= max_seconds


def test_a_client_that_does_not_read_does_not_slow_down_others() -> None:
    """30 MB for a client that reads none of it: relay and agent buffer a window or two, and others are
    answered.
    """
    with throttled(Link(round_trip_seconds=0.0)) as stage:

        async def run() -> tuple[list[float], list[float]]:
            async with client(stage.url("stream")) as deaf:
                before_it = await keystrokes(stage, 30)
                before = stage.relay.resident_bytes() + stage.agent.resident_bytes()
                deaf.transport.pause_reading()
                await deaf.send("65536")
                took = await keystrokes(stage, 30)
                grown = stage.relay.resident_bytes() + stage.agent.resident_bytes() - before
                assert grown < 16_000_000
                deaf.transport.abort()
            return before_it, took

        before_it, took = stage.here.run(run(), deadline_seconds=60)
    # Compared within one run, so the speed of the machine does not matter. Waiting for 30 MB takes seconds.
    assert statistics.median(took) < 10 * statistics.median(before_it) + 0.05
