"""Show a comparison as text tables and as an SVG plot.

The ratio is tunnel to direct. Latencies and rates are in one table, so its last column says whether more is
better. A figure that was not measured is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from seance.bench.comparison import Comparison

__all__ = ["Row", "plot", "rows", "table"]

FIGURES: Mapping[str, tuple[str, str, float, str]] = {
    "messages_per_second": ("messages", "{:,.0f} /s", 1, "more is better"),
    "bytes_per_second": ("payload", "{:.1f} MB/s", 1e-6, "more is better"),
    "p50_seconds": ("half of them within", "{:.2f} ms", 1e3, "less is better"),
    "p99_seconds": ("99 % within", "{:.2f} ms", 1e3, "less is better"),
}
"""Name of a figure in a table, its format, the factor to its unit, and which way is better."""


class Row(NamedTuple):
    """One figure of one load on both targets; a value that was not measured is None, shown as a dash."""

    load: str
    label: str
    better: str
    values: tuple[float | None, float | None]
    shown: tuple[str, str]


def rows(found: Comparison) -> list[Row]:
    """Return every figure that was measured on at least one target."""
    every = []
    for load in found.loads:
        for name, (label, form, factor, better) in FIGURES.items():
            direct, tunnel = (found.figure(load.name, target, name) for target in ("direct", "tunnel"))
            shown = ["-" if value is None else form.format(value * factor) for value in (direct, tunnel)]
            if (direct, tunnel) != (None, None):
                every.append(Row(load.words, label, better, (direct, tunnel), (shown[0], shown[1])))
    return every


def table(found: Comparison) -> str:
    """Return a table of both targets and, for processes of this run, a table of CPU time and memory."""
    lines = [("", "", "direct", "tunnel", "ratio", "")]
    previous = ""
    for row in rows(found):
        direct, tunnel = row.values
        ratio = f"{tunnel / direct:.2f}" if direct and tunnel is not None else "-"
        lines.append(("" if row.load == previous else row.load, row.label, *row.shown, ratio, row.better))
        previous = row.load
    cost: list[tuple[str, ...]] = [("CPU of 1,000 messages", "relay", "agent")]
    for load in found.loads:
        relay, agent = (found.figure(load.name, "tunnel", f"{end}_cpu_seconds") for end in ("relay", "agent"))
        if load.name != "connect" and relay is not None and agent is not None:
            cost.append((load.words, f"{relay * 1e3:.1f} ms", f"{agent * 1e3:.1f} ms"))
    if found.relay_idle_bytes is not None and found.agent_idle_bytes is not None:
        sizes = [f"{size / 1024:.1f} KiB" for size in (found.relay_idle_bytes, found.agent_idle_bytes)]
        cost.append((f"memory of an idle client, of {found.idle_clients}", *sizes))
    return _aligned(lines, "<<>>><") + ("\n" + _aligned(cost, "<>>") if len(cost) > 1 else "")


def _aligned(lines: Sequence[tuple[str, ...]], alignment: str) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:{side}{width}}}" for side, width in zip(alignment, widths, strict=True))
    return "".join(form.format(*line).rstrip() + "\n" for line in lines)


WIDTH = 760
BARS_START, BARS_WIDTH = 300, 340
TOP = 64
BAR_HEIGHT = 12
PAIR_HEIGHT = 38

STYLE = """
  .paper { fill: #fbfaf7; stroke: #d9d5cb }
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-size: 16px; font-weight: 600 }
  .faint { fill: #666 }
  .direct { fill: #8a94a6 }
  .tunnel { fill: #d9822b }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #1d1f21; stroke: #3b3f42 }
    text { fill: #ddd }
    .faint { fill: #aaa }
  }
"""
"""The colours of the bars differ for colour-blind readers too."""


def plot(found: Comparison) -> str:
    """Return an SVG plot: two bars for each figure, each pair on its own scale from 0."""
    pairs = rows(found)
    height = TOP + PAIR_HEIGHT * len(pairs) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title">',
        '<title id="title">Seance: direct connection and tunnel</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
        _text(16, 26, "Seance: direct connection and tunnel", "title"),
        '<rect class="direct" x="16" y="38" width="12" height="12"/>' + _text(34, 48, "direct"),
        '<rect class="tunnel" x="92" y="38" width="12" height="12"/>' + _text(110, 48, "tunnel"),
        _text(172, 48, "each pair of bars has its own scale", "faint"),
    ]
    for number, row in enumerate(pairs):
        y = TOP + PAIR_HEIGHT * number
        longest = max(value or 0.0 for value in row.values) or 1.0
        parts += [_text(16, y + 14, row.load), _text(16, y + 28, f"{row.label}; {row.better}", "faint")]
        for index, name in enumerate(("direct", "tunnel")):
            top = y + 4 + index * (BAR_HEIGHT + 1)
            length = round((row.values[index] or 0.0) / longest * BARS_WIDTH, 1)
            parts += [
                f'<rect class="{name}" x="{BARS_START}" y="{top}" width="{length}" height="{BAR_HEIGHT}"/>',
                _text(BARS_START + length + 6, top + BAR_HEIGHT - 2, row.shown[index]),
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'
