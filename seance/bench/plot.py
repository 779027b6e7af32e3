"""The same figures as a picture: for each a bar of the direct connection and one of the tunnel.

Written by hand as SVG, since it is thirty rectangles. Each pair of bars has a scale of its own, from 0 to
the longer of them, so only the two of a pair can be compared. The colours are chosen for eyes that do not
tell red from green; the picture has a paper of its own, light or dark as the reader likes it.
"""

from __future__ import annotations

from html import escape

from seance.bench.comparison import Comparison
from seance.bench.table import Row, rows

__all__ = ["plot"]

WIDTH = 760
NAMES_END = 300
BARS_END = 640
TOP = 64
BAR = 12
PAIR = 38

STYLE = """
  .paper { fill: #fbfaf7; stroke: #d9d5cb }
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-size: 16px; font-weight: 600 }
  .faint { fill: #666 }
  .direct { fill: #8a94a6 }
  .tunnel { fill: #d9822b }
  .axis { stroke: #8a94a6; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #1d1f21; stroke: #3b3f42 }
    text { fill: #ddd }
    .faint { fill: #aaa }
  }
"""


def plot(found: Comparison) -> str:
    """Return the picture as SVG."""
    pairs = rows(found)
    height = TOP + PAIR * len(pairs) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title">',
        '<title id="title">Seance: direct connection and tunnel</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
        '<text class="title" x="16" y="26">Seance: direct connection and tunnel</text>',
        '<rect class="direct" x="16" y="38" width="12" height="12"/><text x="34" y="48">direct</text>',
        '<rect class="tunnel" x="92" y="38" width="12" height="12"/><text x="110" y="48">tunnel</text>',
        '<text class="faint" x="172" y="48">each pair of bars has a scale of its own</text>',
    ]
    for number, row in enumerate(pairs):
        parts += _pair(row, TOP + PAIR * number)
    parts.append(f'<line class="axis" x1="{NAMES_END}" y1="{TOP}" x2="{NAMES_END}" y2="{height - 24}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _pair(row: Row, top: int) -> list[str]:
    longest = max(row.direct or 0.0, row.tunnel or 0.0) or 1.0
    parts = [
        f'<text x="16" y="{top + 14}">{escape(row.load)}</text>',
        f'<text class="faint" x="16" y="{top + 28}">{escape(row.words)}; {row.better}</text>',
    ]
    for name, value, y in (("direct", row.direct, top + 4), ("tunnel", row.tunnel, top + 5 + BAR)):
        length = round((value or 0.0) / longest * (BARS_END - NAMES_END), 1)
        parts.append(f'<rect class="{name}" x="{NAMES_END}" y="{y}" width="{length}" height="{BAR}"/>')
        shown = escape(row.shown(value))
        parts.append(f'<text x="{NAMES_END + length + 6}" y="{y + BAR - 2}">{shown}</text>')
    return parts
