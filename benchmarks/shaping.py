"""Latency and throughput over a narrow or long line between relay and agent.

    python benchmarks/shaping.py                        all rows, one JSON line each; about 20 minutes
    python benchmarks/shaping.py 'keys-*-512k' rate-up-64k
                                                        some of them
    python benchmarks/shaping.py --tables ROWS --write PAGE
                                                        put tables of a file's rows between a page's marks

The line is emulated in user space between two network namespaces, which needs Linux, root and ``ip``. Each
direction has a FIFO queue of that many bytes, a rate, and a delay of 20 ms. Relay, agent, local server,
clients and kernels are real. The line dominates the times. Decision 15 describes the scheduling.

    keys-down-64k   echoes of 100 bytes beside a transfer to a client over 1 Mbit/s with a queue of 64 KiB.
                    "up" is a transfer from a client, "tls" has TLS on both legs. With "foreign", a TCP
                    connection beside the tunnel also fills the line, at first without our transfer: its delay
                    is part of the goal
    rate-down-64k   the same, while the rate drops from 8 to 1 Mbit/s and returns
    tabs            eight clients that each load 5 MB over 8 Mbit/s, and give up after 30 s without a complete
                    message
    long-down       one transfer over 100 Mbit/s and a round trip of 300 ms, and a bare connection before it
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import contextlib
import fnmatch
import itertools
import json
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from programs import table, write_between_marks
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from tests.faults.loops import Loop
from tests.faults.namespaces import AGENT_ADDRESS
from tests.shaping.place import Far, Link, client, far

MIB = 1024 * 1024

KEY_SECONDS = 0.137
KEY_BYTES = 100
PIECE_BYTES = 16384
"""Size of a transfer's messages. A frame has the same size."""

IDLE_SECONDS = 14.0
FILL_SECONDS = 12.0
"""Time in which a foreign connection fills a queue of 1 MB at 1 Mbit/s."""

BUSY_SECONDS = 32.0
"""4 MB at 1 Mbit/s."""

MARGIN_SECONDS = 0.05
SETTLE_SECONDS = 3.0
STALL_SECONDS = 2.0

PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 3.0
"""Interval at which y-websocket checks its timeout."""

QUEUES_KIB = (8, 64, 512, 1024)
JOBS = 4

Row = dict[str, Any]
Result = TypeVar("Result")


class Echo(NamedTuple):
    """One keystroke: when it was typed, and how long its echo took."""

    typed_at: float
    seconds: float


class Mark(NamedTuple):
    """Bytes that had been received at a time."""

    at: float
    total: int


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Return a percentile; with few values it is the largest."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def during(echoes: Sequence[Echo], begin: float, end: float) -> list[float]:
    """Return the durations of the echoes that were typed between two times."""
    return [echo.seconds for echo in echoes if begin <= echo.typed_at < end]


def mbit_between(marks: Sequence[Mark], begin: float, end: float) -> float:
    """Return the received Mbit/s between two times."""
    totals = [0, *(mark.total for mark in marks)]
    times = [mark.at for mark in marks]
    received = totals[bisect.bisect(times, end)] - totals[bisect.bisect(times, begin)]
    return received / (end - begin) / 125_000


def longest_gap(marks: Sequence[Mark], begin: float, end: float) -> float:
    """Return the longest time without received bytes between two times."""
    times = [begin, *(mark.at for mark in marks if begin < mark.at < end), end]
    return max(after - before for before, after in itertools.pairwise(times))


def frame_seconds(mbit: float) -> float:
    """Return the time that one frame takes on the line."""
    return PIECE_BYTES / (mbit * 125_000)


def settled_after(echoes: Sequence[Echo], begin: float, end: float, bound: float) -> float:
    """Return the time from a change until keystrokes stay within a bound."""
    return max(
        (echo.typed_at - begin for echo in echoes if begin <= echo.typed_at < end and echo.seconds > bound),
        default=0.0,
    )


def latency(name: str, seconds: Sequence[float]) -> Row:
    """Return the columns for one phase of a row, in milliseconds."""
    return {
        f"{name}_{percent}_ms": percentile(seconds, number) * 1000
        for percent, number in (("p50", 50), ("p99", 99))
    }


async def run_in(loop: Loop, work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in the loop of a machine."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop.loop))


@contextlib.asynccontextmanager
async def typing(stage: Far) -> AsyncIterator[list[Echo]]:
    """Echo 100 bytes repeatedly during a block; the yielded list is complete after the block."""
    echoes: list[Echo] = []
    typed: list[float] = []
    async with client(stage.url(), stage.trust) as connection:

        async def hear() -> None:
            async for _ in connection:
                at = typed[len(echoes)]
                echoes.append(Echo(at, time.perf_counter() - at))

        async def type_keys() -> None:
            begin = time.perf_counter()
            while True:
                typed.append(time.perf_counter())
                await connection.send(bytes(KEY_BYTES))
                await asyncio.sleep(max(0.0, begin + len(typed) * KEY_SECONDS - time.perf_counter()))

        hearing, keys = asyncio.create_task(hear()), asyncio.create_task(type_keys())
        try:
            yield echoes
            keys.cancel()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(echoes) < len(typed) and not hearing.done():
                    await asyncio.sleep(0.01)
            if hearing.done():
                hearing.result()
        finally:
            for task in (hearing, keys):
                task.cancel()
                task.add_done_callback(lambda task: task.cancelled() or task.exception())


@contextlib.asynccontextmanager
async def transferring(
    stage: Far, direction: str, piece_bytes: int = PIECE_BYTES
) -> AsyncIterator[list[Mark]]:
    """Transfer messages down to a client or up from one during a block; yield the list of marks."""
    marks: list[Mark] = []

    async def receive(connection: ClientConnection) -> None:
        total = 0
        async for message in connection:
            total += len(message) if direction == "down" else int(message)
            marks.append(Mark(time.perf_counter(), total))

    async def send(connection: ClientConnection) -> None:
        while True:
            await connection.send(bytes(piece_bytes))

    async with client(stage.url({"down": "stream", "up": "sink"}[direction]), stage.trust) as connection:
        tasks = [asyncio.create_task(receive(connection))]
        if direction == "down":
            await connection.send(str(piece_bytes))
        else:
            tasks.append(asyncio.create_task(send(connection)))
        try:
            yield marks
        finally:
            for task in tasks:
                task.cancel()
            connection.transport.abort()


@contextlib.asynccontextmanager
async def bare_transfer(stage: Far, direction: str) -> AsyncIterator[list[Mark]]:
    """Fill the line with one plain TCP connection during a block; yield the list of marks."""
    source, sink, host = (
        (stage.there, stage.here, stage.relay_address[0])
        if direction == "down"
        else (stage.here, stage.there, AGENT_ADDRESS)
    )
    marks: list[Mark] = []

    async def take(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        total = 0
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(1 << 20):
                total += len(data)
                marks.append(Mark(time.perf_counter(), total))

    async def give(port: int) -> None:
        _, writer = await asyncio.open_connection(host, port)
        # Closed with a reset, or the kernel would send its buffer of some megabytes first.
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        finally:
            writer.transport.abort()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(take, host, 0, limit=1 << 22)

    server = await run_in(sink, listen())
    giving = asyncio.run_coroutine_threadsafe(give(server.sockets[0].getsockname()[1]), source.loop)
    try:
        yield marks
    finally:
        giving.cancel()
        sink.loop.call_soon_threadsafe(server.close)


async def phase(seconds: float) -> tuple[float, float]:
    """Wait; return begin and end of that time."""
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    return begin, time.perf_counter()


def keys(direction: str, queue_kib: int, congestion: str, *, is_tls: bool, has_foreign: bool) -> Row:
    """Measure echoes without and with a transfer, or a transfer and a foreign connection."""
    mbit = 1.0
    link = Link(mbit, mbit, queue_bytes=queue_kib * 1024, congestion=congestion)

    async def run(stage: Far) -> Row:
        async with contextlib.AsyncExitStack() as stack:
            echoes = await stack.enter_async_context(typing(stage))
            idle = await phase(IDLE_SECONDS)
            if has_foreign:
                foreign_marks = await stack.enter_async_context(bare_transfer(stage, direction))
                await asyncio.sleep(FILL_SECONDS)
                foreign = await phase(BUSY_SECONDS)
            marks = await stack.enter_async_context(transferring(stage, direction))
            busy = await phase(BUSY_SECONDS)
            begin, end = busy
            row = latency("idle", during(echoes, *idle))
            if has_foreign:
                row |= latency("foreign", during(echoes, *foreign))
                goal = row["foreign_p99_ms"] + MARGIN_SECONDS * 1000
                row["foreign_share"] = mbit_between(foreign_marks, *busy) / mbit
            else:
                goal = row["idle_p50_ms"] + (MARGIN_SECONDS + frame_seconds(mbit)) * 1000
            share = mbit_between(marks, *busy) / mbit
        took = during(echoes, begin, end)
        row |= latency("busy", took)
        is_reached = row["busy_p99_ms"] <= goal and (has_foreign or share >= 0.9)
        return {
            **row,
            "worst_ms": max(took) * 1000,
            "share": share,
            "goal_p99_ms": goal,
            "reached": is_reached,
        }

    with far(link, is_tls=is_tls) as stage:
        return stage.here.run(run(stage), deadline_seconds=240)


def rate(direction: str, queue_kib: int, congestion: str) -> Row:
    """Measure echoes beside a transfer, while the rate drops and returns."""
    fast, slow = 8.0, 1.0
    link = Link(fast, fast, queue_bytes=queue_kib * 1024, congestion=congestion)

    async def run(stage: Far) -> Row:
        async with typing(stage) as echoes:
            idle = await phase(IDLE_SECONDS)
            async with transferring(stage, direction) as marks:
                phases = {"before": (fast, await phase(8.0))}
                stage.set_rate(slow)
                phases["slow"] = (slow, await phase(15.0))
                stage.set_rate(fast)
                phases["after"] = (fast, await phase(12.0))
                stall = longest_gap(marks, phases["before"][1][0], phases["after"][1][1])
        row = latency("idle", during(echoes, *idle))
        is_reached = stall <= STALL_SECONDS
        for name, (mbit, (begin, end)) in phases.items():
            bound = row["idle_p50_ms"] / 1000 + MARGIN_SECONDS + frame_seconds(mbit)
            row |= latency(name, during(echoes, begin + SETTLE_SECONDS, end))
            row[f"{name}_goal_ms"] = bound * 1000
            row[f"{name}_settled_s"] = settled_after(echoes, begin, end, bound)
            row[f"{name}_share"] = mbit_between(marks, begin + SETTLE_SECONDS, end) / mbit
            is_reached = is_reached and row[f"{name}_p99_ms"] <= bound * 1000
        return {**row, "longest_stall_s": stall, "reached": is_reached}

    with far(link) as stage:
        return stage.here.run(run(stage), deadline_seconds=150)


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


def tabs(congestion: str, *options: str, count: int = 8, size: int = 5_000_000, mbit: float = 8.0) -> Row:
    """Measure the time until eight clients that start together have all loaded their document."""
    toll: dict[str, Any] = {"dials": 0, "done": [], "took": []}
    with far(Link(mbit, mbit, congestion=congestion), relay_options=options) as stage:

        async def run() -> None:
            began = time.perf_counter()
            async with asyncio.timeout(110):
                await asyncio.gather(*(tab(stage, size, began, toll) for _ in range(count)))

        with contextlib.suppress(TimeoutError):
            stage.here.run(run(), deadline_seconds=150)
    all_after = max(toll["done"], default=0.0)
    return {
        "synced": len(toll["done"]),
        "all_after_s": all_after,
        "dials": toll["dials"],
        "at_s": [round(one, 1) for one in sorted(toll["done"])],
        "slowest_s": max(toll["took"], default=0.0),
        "path_s": count * size / (mbit * 125_000),
        "goal_s": 45,
        "reached": len(toll["done"]) == count and all_after <= 45,
    }


def long(direction: str, congestion: str, *, seconds: float = 20.0, buffers: int = 16 * MIB) -> Row:
    """Measure one stream on a long wide line, and a bare connection on the same."""
    mbit = 100.0
    link = Link(mbit, mbit, 0.3, 4_000_000, buffers, packet_bytes=9000, congestion=congestion)

    async def run(stage: Far) -> Row:
        async with bare_transfer(stage, direction) as bare:
            begin, end = await phase(seconds)
            bare_mbit = mbit_between(bare, (begin + end) / 2, end)
        await asyncio.sleep(1.0)
        before = stage.cpu_seconds()
        async with transferring(stage, direction, 65536) as marks:
            begin, end = await phase(seconds)
            ours_mbit = mbit_between(marks, (begin + end) / 2, end)
            first_half = mbit_between(marks, begin, (begin + end) / 2)
        cpu = [after - one for one, after in zip(before, stage.cpu_seconds(), strict=True)]
        return {
            "send_buffer_mib": buffers // MIB,
            "mbit": ours_mbit,
            "bare_mbit": bare_mbit,
            "first_half_mbit": first_half,
            "relay_cpu_share": cpu[0] / seconds,
            "agent_cpu_share": cpu[1] / seconds,
            "share": ours_mbit / mbit,
            "goal_share": 0.8,
            "reached": ours_mbit >= 0.8 * mbit,
        }

    with far(link) as stage:
        return stage.here.run(run(stage), deadline_seconds=120)


def keys_row(foreign: bool, tls: bool, direction: str, queue: int) -> tuple[str, Callable[[str], Row]]:
    """Return the name and the measurement of a row."""
    name = f"keys-{direction}-{queue}k{'-tls' * tls}{'-foreign' * foreign}"
    return name, lambda congestion: keys(direction, queue, congestion, is_tls=tls, has_foreign=foreign)


KEYS = dict(
    keys_row(foreign, tls, direction, queue)
    for foreign in (False, True)
    for queue in QUEUES_KIB
    for direction in ("down", "up")
    for tls in (False, True)
)
OTHERS: dict[str, Callable[[str], Row]] = {
    "rate-down-64k": lambda congestion: rate("down", 64, congestion),
    "rate-up-64k": lambda congestion: rate("up", 64, congestion),
    "rate-down-512k": lambda congestion: rate("down", 512, congestion),
    "rate-up-512k": lambda congestion: rate("up", 512, congestion),
    "tabs": tabs,
    "long-down": lambda congestion: long("down", congestion),
    "long-up": lambda congestion: long("up", congestion),
    "long-down-4mib": lambda congestion: long("down", congestion, buffers=4 * MIB),
    "tabs-without-holding": lambda congestion: tabs(congestion, "--hold-seconds", "0"),
}
ROWS = KEYS | OTHERS


def measure(row: str, congestion: str) -> Row:
    """Measure one row."""
    try:
        found = ROWS[row](congestion)
    except (WebSocketException, TimeoutError) as error:
        found = {"reached": False, "lost": str(error) or "an echo"}
    figures = {"row": row, "date": f"{datetime.now(UTC):%Y-%m-%d}", "congestion": congestion, **found}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def measure_elsewhere(row: str, congestion: str) -> Row:
    """Measure one row in another process, whose namespaces have names of their own."""
    argv = [sys.executable, __file__, "--congestion", congestion, row]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  # ourselves
    print(done.stdout, end="", flush=True)  # noqa: T201
    found: Row = json.loads(done.stdout) if done.returncode == 0 else {"row": row, "failed": True}
    return found


def tables(found: Sequence[Row]) -> str:
    """Return the text for the page. A later row replaces an earlier one of the same name."""
    rows = {figures["row"]: figures for figures in found}
    dates, congestion = (
        " and ".join(sorted({figures[name] for figures in rows.values()})) for name in ("date", "congestion")
    )
    columns = [(direction, tls) for direction in ("down", "up") for tls in (False, True)]
    cells = []
    for foreign in (False, True):
        for queue in QUEUES_KIB:
            names = [keys_row(foreign, tls, direction, queue)[0] for direction, tls in columns]
            some = [keys_cell(rows[name]) if name in rows else "" for name in names]
            if any(some):
                cells.append([f"{queue} KiB", "yes" if foreign else "no", *some])
    head = [
        "queue",
        "foreign flow",
        *(f"{direction}, {'wss' if tls else 'ws'}" for direction, tls in columns),
    ]
    others = [[name, *other_cells(rows[name])] for name in OTHERS if name in rows]
    text = f"{dates}, congestion control {congestion}, one run of each row."
    return f"{text}\n\n{table(head, cells)}\n{table(['row', 'goal', 'measured'], others)}"


def as_percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.0f} %"


def marked(text: str, row: Row) -> str:
    """Return a text, in bold if the row missed its goal."""
    return text if row["reached"] else f"**{text}**"


def keys_cell(row: Row) -> str:
    """Return p99, goal and share of a row with keystrokes."""
    if "lost" in row:
        return "**connection lost**"
    p99 = marked(f"{row['busy_p99_ms']:,.0f}", row)
    return f"{p99} (≤ {row['goal_p99_ms']:,.0f}), {as_percent(row['share'])}"


def other_cells(row: Row) -> tuple[str, str]:
    """Return goal and result of another row."""
    if "lost" in row:
        return "", "**connection lost**"
    if "longest_stall_s" in row:
        phases = ("before", "slow", "after")
        goals, results = (
            ", ".join(f"{row[f'{phase}_{kind}_ms']:,.0f}" for phase in phases) for kind in ("goal", "p99")
        )
        stall = f"{row['longest_stall_s']:.1f} s"
        return f"stall ≤ 2 s; p99 ≤ {goals} ms", marked(f"stall {stall}; p99 {results} ms", row)
    if "synced" in row:
        result = f"{row['synced']} of 8 in {row['all_after_s']:.1f} s, {row['dials']} connections"
        return f"8 of 8 in {row['goal_s']} s", marked(result, row)
    result = as_percent(row["share"])
    return (
        f"≥ {as_percent(row['goal_share'])}",
        f"{marked(result, row)}; a bare connection {as_percent(row['bare_mbit'] / 100)}",
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", default=["*"], help=f"names or patterns: {', '.join(ROWS)}")
    parser.add_argument("--congestion", default="cubic", help="congestion control of both kernels")
    parser.add_argument(
        "--jobs", type=int, default=JOBS, help="rows at 1 Mbit/s that are measured concurrently"
    )
    parser.add_argument("--tables", type=Path, metavar="FILE", help="print tables of the rows in a file")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put these tables between a page's marks")
    told = parser.parse_args()
    if told.tables is not None:
        text = tables([json.loads(line) for line in told.tables.read_text("utf-8").splitlines()])
        print(text)  # noqa: T201
        if told.write is not None:
            write_between_marks(told.write, "shaping", text)
        return
    rows = [row for row in ROWS if any(fnmatch.fnmatch(row, pattern) for pattern in told.rows)]
    if not rows:
        parser.error("no row has such a name")
    if len(rows) == 1:
        print(json.dumps(measure(rows[0], told.congestion)), flush=True)  # noqa: T201
        return
    found: list[Row] = []
    for some, jobs in ((KEYS, told.jobs), (OTHERS, 1)):
        with ThreadPoolExecutor(jobs) as pool:
            found += pool.map(
                lambda row: measure_elsewhere(row, told.congestion), [row for row in rows if row in some]
            )
    if failed := [figures["row"] for figures in found if "failed" in figures]:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
