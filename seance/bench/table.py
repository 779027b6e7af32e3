"""The figures of a comparison as a person reads them: two tables of text.

Where something was not measured stands a dash. The ratio is tunnel to direct; whether more is better
is in its last column, since latencies and rates stand in one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seance.bench.comparison import Comparison, Figures
from seance.bench.loads import Load

__all__ = ["Row", "rows", "table"]

LESS, MORE = "less is better", "more is better"

_LATENCIES = (("half of them within", "p50_seconds"), ("99 % within", "p99_seconds"))


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both sides.

    Attributes:
        load: Its load, in words.
        words: What it is.
        direct: None if it was not measured.
        tunnel: None if it was not measured.
        unit: ``"s"``, ``"/s"`` or ``"B/s"``.
    """

    load: str
    words: str
    direct: float | None
    tunnel: float | None
    unit: str

    @property
    def better(self) -> str:
        """Which way is better."""
        return LESS if self.unit == "s" else MORE

    @property
    def ratio(self) -> float | None:
        """Tunnel to direct."""
        return self.tunnel / self.direct if self.direct and self.tunnel is not None else None

    def shown(self, value: float | None) -> str:
        """Return a value with its unit."""
        if value is None:
            return "-"
        if self.unit == "s":
            return f"{value * 1e3:.2f} ms"
        return f"{value / 1e6:.1f} MB/s" if self.unit == "B/s" else f"{value:,.0f} /s"


def rows(found: Comparison) -> list[Row]:
    """Return every figure that at least one side has."""
    every = [row for load in found.loads for row in _rows(found, load)]
    return [row for row in every if row.direct is not None or row.tunnel is not None]


def table(found: Comparison) -> str:
    """Return the tables."""
    lines = [("", "", "direct", "tunnel", "ratio", "")]
    last = ""
    for row in rows(found):
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        name = "" if row.load == last else row.load
        lines.append((name, row.words, row.shown(row.direct), row.shown(row.tunnel), ratio, row.better))
        last = row.load
    text = _aligned(lines)
    cost = _cost(found)
    return text + (f"\n{cost}" if cost else "")


def _rows(found: Comparison, load: Load) -> list[Row]:
    direct, tunnel = found.of(load, "direct"), found.of(load, "tunnel")

    def row(words: str, name: str, unit: str) -> Row:
        return Row(load.words, words, getattr(direct, name), getattr(tunnel, name), unit)

    several = [row("messages", "messages_per_second", "/s"), row("payload", "bytes_per_second", "B/s")]
    return several + [row(words, name, "s") for words, name in _LATENCIES]


def _cost(found: Comparison) -> str:
    lines: list[tuple[str, ...]] = [("CPU of 1,000 messages", "relay", "agent")]
    for load in found.loads:
        figures = found.of(load, "tunnel")
        if load.name != "connect" and figures.relay_cpu_seconds is not None:
            lines.append((load.words, *_cpu(figures)))
    if found.relay_idle_bytes is not None and found.agent_idle_bytes is not None:
        sizes = [f"{size / 1024:.1f} KiB" for size in (found.relay_idle_bytes, found.agent_idle_bytes)]
        lines.append((f"memory of an idle client, of {found.idle_clients}", *sizes))
    return _aligned(lines) if len(lines) > 1 else ""


def _cpu(figures: Figures) -> tuple[str, str]:
    both = (figures.relay_cpu_seconds, figures.agent_cpu_seconds)
    relay, agent = ("-" if value is None else f"{value * 1e3:.1f} ms" for value in both)
    return relay, agent


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = range(2 if len(widths) > 3 else 1, 5)
    shown = []
    for line in lines:
        cells = [
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown) + "\n"
