"""Latency and throughput over a narrow or long line between relay and agent.

    python benchmarks/shaping.py                 all rows, about eight minutes, one JSON line each
    python benchmarks/shaping.py keys-up tabs    some of them

The line is a slow proxy, or is emulated in user space between two network namespaces, which needs Linux,
root and ``ip``. Relay, agent, local server and clients are real processes and real sockets. The line
dominates the times: of 60 ms for a keystroke, 40 ms are its latency. Decision 15 describes the scheduling.

    keys    an echo of 100 bytes during a transfer of 4 MB at 1 Mbit/s, down to a client and up from one;
            "queue" is a line with a queue of 64 KiB, "tls" is with TLS on both legs
    tabs    eight clients that each load 5 MB over 8 Mbit/s, and give up after 30 s without a complete message
    long    one transfer over 100 Mbit/s and a round trip of 300 ms, and a bare connection beside it
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.certificates import Authority  # noqa: E402  # the checkout is on the path now
from tests.shaping.place import AgentLink, Far, client, far, throttled  # noqa: E402  # the checkout is on the path now

MIB = 1024 * 1024

Place = Callable[..., contextlib.AbstractContextManager[Far]]

KEY_SECONDS = 0.137
KEY_BYTES = 100
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 3.0
"""Interval at which y-websocket checks its timeout."""


def report(row: str, **figures: object) -> None:
    """Print one row."""
    for name, value in figures.items():
        if isinstance(value, float):
            figures[name] = round(value, 3)
    print(json.dumps({"row": row, **figures}), flush=True)  # noqa: T201


@contextlib.contextmanager
def over_tls(link: AgentLink) -> Iterator[Far]:
    """Return a slow proxy with TLS from client to relay and from agent to relay."""
    with tempfile.TemporaryDirectory() as folder, throttled(link, authority=Authority(Path(folder))) as stage:
        yield stage


def p99(seconds: list[float]) -> float:
    """Return the 99th percentile, in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1000


async def keystrokes(
    stage: Far, is_over: Callable[[], bool], every_seconds: float = KEY_SECONDS
) -> list[float]:
    """Echo 100 bytes repeatedly; return the duration of each echo in seconds."""
    took: list[float] = []
    typed: list[float] = []
    async with client(stage.url(), stage.trust) as connection:

        async def hear() -> None:
            async for _ in connection:
                took.append(time.perf_counter() - typed[len(took)])

        hearing = asyncio.create_task(hear())
        begin = time.perf_counter()
        while not is_over():
            typed.append(time.perf_counter())
            await connection.send(bytes(KEY_BYTES))
            await asyncio.sleep(max(0.0, begin + len(typed) * every_seconds - time.perf_counter()))
        while len(took) < len(typed):
            await asyncio.sleep(0.01)
        hearing.cancel()
    return took


def keys(
    place: Place, direction: str, *, size: int = 4_000_000, mbit: float = 1.0, queue: int = 65536
) -> None:
    """Measure echoes with and without a transfer."""
    link = AgentLink(up_mbit=mbit, down_mbit=mbit, queue_bytes=queue)
    frame_ms = 16384 / (mbit * 125)
    with place(link) as stage:

        async def run(transfer: bool) -> tuple[list[float], float]:
            begin = time.perf_counter()
            if not transfer:
                took = await keystrokes(stage, lambda: time.perf_counter() - begin > 27)
                return took, 0.0
            end: list[float] = []

            async def move() -> None:
                async with client(stage.url("sink"), stage.trust) as loader:
                    await loader.send(f"bytes {size}" if direction == "down" else bytes(size))
                    await loader.recv()
                    end.append(time.perf_counter() - begin)

            moving = asyncio.create_task(move())
            took = await keystrokes(stage, lambda: bool(end))
            await moving
            return took, end[0]

        idle, _ = stage.here.run(run(False), deadline_seconds=120)
        busy, seconds = stage.here.run(run(True), deadline_seconds=180)
    report(
        f"keys {direction} {place.__name__}",
        idle_p50_ms=statistics.median(idle) * 1000,
        idle_p99_ms=p99(idle),
        busy_p50_ms=statistics.median(busy) * 1000,
        busy_p99_ms=p99(busy),
        worst_ms=max(busy) * 1000,
        goal_p99_ms=p99(idle) + 50 + frame_ms,
        echoes=len(busy),
        transfer_seconds=seconds,
        path_share=size / (seconds * mbit * 125_000),
    )


async def tab(stage: Far, size: int, began: float, toll: dict[str, Any]) -> None:
    """Reconnect until the document is loaded, as y-websocket does."""
    while True:
        toll["dials"] += 1
        async with client(stage.url()) as connection:
            opened = time.perf_counter()
            await connection.send(f"bytes {size}")
            loading = asyncio.create_task(connection.recv())
            while time.perf_counter() - opened < PATIENCE_SECONDS:
                await asyncio.wait([loading], timeout=LOOK_SECONDS)
                if loading.done():
                    toll["done"].append(time.perf_counter() - began)
                    toll["took"].append(time.perf_counter() - opened)
                    return
            loading.cancel()
            connection.transport.abort()
        await asyncio.sleep(0.1)


def tabs(*options: str, count: int = 8, size: int = 5_000_000, mbit: float = 8.0) -> None:
    """Measure the time until eight clients that start together have all loaded their document."""
    with far(AgentLink(up_mbit=mbit, down_mbit=mbit), relay_options=options) as stage:
        toll: dict[str, Any] = {"dials": 0, "done": [], "took": []}

        async def run() -> None:
            began = time.perf_counter()
            async with asyncio.timeout(110):
                await asyncio.gather(*(tab(stage, size, began, toll) for _ in range(count)))

        with contextlib.suppress(TimeoutError):
            stage.here.run(run(), deadline_seconds=150)
    report(
        "tabs",
        options=" ".join(options),
        synced=len(toll["done"]),
        all_after_seconds=max(toll["done"], default=0.0),
        dials=toll["dials"],
        at_seconds=[round(one, 1) for one in sorted(toll["done"])],
        slowest_seconds=max(toll["took"], default=0.0),
        path_seconds=count * size / (mbit * 125_000),
    )


def share_of(marks: list[tuple[float, int]], begin: float, end: float) -> float:
    """Return Mbit/s between two times, from pairs of time and received bytes."""
    part = [mark for mark in marks if begin <= mark[0] <= end]
    return (part[-1][1] - part[0][1]) / (part[-1][0] - part[0][0]) / 125_000


async def bare_transfer(stage: Far, seconds: float) -> list[tuple[float, int]]:
    """Send bytes over the line from the agent's machine, over one plain TCP connection."""
    marks: list[tuple[float, int]] = []
    begin = time.perf_counter()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(1 << 20):
            total += len(data)
            marks.append((time.perf_counter() - begin, total))
        writer.close()

    host, _ = stage.relay_address
    server = await asyncio.start_server(take, host, 0, limit=1 << 22)
    port = server.sockets[0].getsockname()[1]

    async def give() -> None:
        _, writer = await asyncio.open_connection(host, port)
        while time.perf_counter() - begin < seconds:
            writer.write(bytes(65536))
            await writer.drain()
        writer.transport.abort()

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(give(), stage.there.loop))
    server.close()
    return marks


def long(direction: str, *, seconds: float = 20.0, buffers: int = 16 * MIB) -> None:
    """Measure one stream on a long wide line, and a bare connection on the same."""
    mbit = 100.0
    link = AgentLink(mbit, mbit, 0.3, queue_bytes=4_000_000, send_buffer_bytes=buffers, packet_bytes=9000)
    with far(link) as stage:

        async def down() -> list[tuple[float, int]]:
            marks: list[tuple[float, int]] = []
            total = 0
            async with client(stage.url("stream")) as connection:
                begin = time.perf_counter()
                await connection.send("begin")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        async for message in connection:
                            total += len(message)
                            marks.append((time.perf_counter() - begin, total))
                connection.transport.abort()
            return marks

        async def up() -> list[tuple[float, int]]:
            marks: list[tuple[float, int]] = []
            async with client(stage.url("sink")) as connection:
                begin = time.perf_counter()

                async def hear() -> None:
                    total = 0
                    async for count in connection:
                        total += int(count)
                        marks.append((time.perf_counter() - begin, total))

                hearing = asyncio.create_task(hear())
                while time.perf_counter() - begin < seconds:
                    await connection.send(bytes(65536))
                hearing.cancel()
                connection.transport.abort()
            return marks

        bare = (
            stage.here.run(bare_transfer(stage, seconds), deadline_seconds=120) if direction == "down" else []
        )
        before = stage.cpu_seconds()
        marks = stage.here.run({"down": down, "up": up}[direction](), deadline_seconds=120)
        cpu = [after - one for one, after in zip(before, stage.cpu_seconds(), strict=True)]
    report(
        f"long {direction}",
        send_buffer_mib=buffers // MIB,
        mbit=share_of(marks, seconds / 2, seconds),
        bare_mbit=share_of(bare, seconds / 2, seconds) if bare else None,
        share=share_of(marks, seconds / 2, seconds) / mbit,
        first_half_mbit=share_of(marks, 0.0, seconds / 2),
        bare_first_half_mbit=share_of(bare, 0.0, seconds / 2) if bare else None,
        relay_cpu_share=cpu[0] / seconds,
        agent_cpu_share=cpu[1] / seconds,
    )


ROWS: dict[str, Callable[[], None]] = {
    "keys-down": lambda: keys(throttled, "down"),
    "keys-up": lambda: keys(throttled, "up"),
    "keys-down-tls": lambda: keys(over_tls, "down"),
    "keys-up-tls": lambda: keys(over_tls, "up"),
    "keys-down-queue": lambda: keys(far, "down"),
    "keys-up-queue": lambda: keys(far, "up"),
    "tabs": tabs,
    "long-down": lambda: long("down"),
    "long-up": lambda: long("up"),
    "long-down-4mib": lambda: long("down", buffers=4 * MIB),
    "tabs-without-holding": lambda: tabs("--hold-seconds", "0"),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="rows to measure; default: all")
    for row in parser.parse_args().rows or ROWS:
        ROWS[row]()
