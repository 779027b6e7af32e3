"""Show a comparison as text tables and as an SVG plot.

The ratio is tunnel to direct. Latencies and rates are in one table, so its last column says whether more is
better. A figure that was not measured is a dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from seance.bench.comparison import Comparison

__all__ = ["Row", "plot", "rows", "table"]

FIGURES = {
    "messages_per_second": "messages",
    "bytes_per_second": "payload",
    "p50_seconds": "half of them within",
    "p99_seconds": "99 % within",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one load on both targets.

    Attributes:
        load: The load, for people.
        figure: A key of ``FIGURES``.
        direct: Its value on the direct connection; None if it was not measured.
        tunnel: Its value through the tunnel; None if it was not measured.
    """

    load: str
    figure: str
    direct: float | None
    tunnel: float | None

    @property
    def better(self) -> str:
        """``less is better`` or ``more is better``."""
        return "less is better" if self.figure.endswith("_seconds") else "more is better"

    @property
    def ratio(self) -> str:
        """Tunnel to direct, two decimals."""
        return f"{self.tunnel / self.direct:.2f}" if self.direct and self.tunnel is not None else "-"

    def shown(self, value: float | None) -> str:
        """Return a value of this figure with its unit."""
        if value is None:
            return "-"
        if self.figure.endswith("_seconds"):
            return f"{value * 1e3:.2f} ms"
        return f"{value / 1e6:.1f} MB/s" if self.figure == "bytes_per_second" else f"{value:,.0f} /s"


def rows(found: Comparison) -> list[Row]:
    """Return every figure that was measured on at least one target."""
    every = [
        Row(
            load.words, name, found.figure(load.name, "direct", name), found.figure(load.name, "tunnel", name)
        )
        for load in found.loads
        for name in FIGURES
    ]
    return [row for row in every if row.direct is not None or row.tunnel is not None]


def table(found: Comparison) -> str:
    """Return a table of both targets and, for processes of this run, a table of CPU time and memory."""
    lines = [("", "", "direct", "tunnel", "ratio", "")]
    previous = ""
    for row in rows(found):
        load = "" if row.load == previous else row.load
        values = (row.shown(row.direct), row.shown(row.tunnel), row.ratio)
        lines.append((load, FIGURES[row.figure], *values, row.better))
        previous = row.load
    cost: list[tuple[str, ...]] = [("CPU of 1,000 messages", "relay", "agent")]
    for one in found.loads:
        relay, agent = (found.figure(one.name, "tunnel", f"{end}_cpu_seconds") for end in ("relay", "agent"))
        if one.name != "connect" and relay is not None:
            cost.append(
                (one.words, f"{relay * 1e3:.1f} ms", "-" if agent is None else f"{agent * 1e3:.1f} ms")
            )
    if found.relay_idle_bytes is not None and found.agent_idle_bytes is not None:
        sizes = [f"{size / 1024:.1f} KiB" for size in (found.relay_idle_bytes, found.agent_idle_bytes)]
        cost.append((f"memory of an idle client, of {found.idle_clients}", *sizes))
    return _aligned(lines, range(2, 5)) + ("\n" + _aligned(cost, range(1, 3)) if len(cost) > 1 else "")


def _aligned(lines: Sequence[tuple[str, ...]], numbers: range) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for line in lines:
        cells = [f"{cell:{'>' if i in numbers else '<'}{widths[i]}}" for i, cell in enumerate(line)]
        text += "  ".join(cells).rstrip() + "\n"
    return text


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
        longest = max(row.direct or 0.0, row.tunnel or 0.0) or 1.0
        parts += [
            _text(16, y + 14, row.load),
            _text(16, y + 28, f"{FIGURES[row.figure]}; {row.better}", "faint"),
        ]
        for name, value, top in (("direct", row.direct, y + 4), ("tunnel", row.tunnel, y + 5 + BAR_HEIGHT)):
            length = round((value or 0.0) / longest * BARS_WIDTH, 1)
            parts += [
                f'<rect class="{name}" x="{BARS_START}" y="{top}" width="{length}" height="{BAR_HEIGHT}"/>',
                _text(BARS_START + length + 6, top + BAR_HEIGHT - 2, row.shown(value)),
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'
