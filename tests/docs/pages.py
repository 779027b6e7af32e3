"""Reads blocks, tables, headings and links of the Markdown pages.

This is not a Markdown parser. It knows the forms that our pages use, and a test fails if it does not find the
expected element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.tools import ROOT

__all__ = ["DOCS", "PAGES", "README", "Block", "blocks", "code_spans", "headings", "links", "noted", "table"]

README = ROOT / "README.md"
DOCS = ROOT / "docs"

PAGES = [README, *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
"""All pages."""

_FENCE = re.compile(r"^(?P<fence>```+|:::+)(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$", re.M | re.S)
_NOTE = re.compile(r"<!-- (?P<note>[^\n]*) -->\n\Z")
_LINK = re.compile(r"!?\[[^\[\]]*\]\(([^()\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        page: The file that contains it.
        language: The word after the fence, such as ``console``.
        note: The comment on the line before it, which names its use in a test, or an empty string.
        text: Its lines.
    """

    page: Path
    language: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.note or self.text[:40]!r}"


def blocks(page: Path, language: str = "") -> list[Block]:
    """Return the fenced blocks of a page, or those of one language."""
    content = page.read_text("utf-8")
    found = []
    for match in _FENCE.finditer(content):
        note = _NOTE.search(content, 0, match.start())
        found.append(Block(page, match["language"].strip(), note["note"] if note else "", match["text"]))
    return [block for block in found if language in ("", block.language)]


def noted(verb: str) -> list[tuple[str, Block]]:
    """Return the blocks of all pages with the comment ``verb: object``, with the object."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            begin, _, rest = block.note.partition(": ")
            if begin == verb:
                found.append((rest, block))
    assert found, f"no block is noted {verb!r}"
    return found


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the rows of the first table under a heading, without its header."""
    content = page.read_text("utf-8")
    start = re.search(rf"^#+ {re.escape(heading)}$", content, re.M)
    assert start is not None, f"{page.name} has no heading {heading!r}"
    part = content[start.end() :]
    rows = re.search(r"^\|.*\n\|[ :|-]+\|\n((?:\|.*\n)+)", part, re.M)
    assert rows is not None, f"there is no table under {heading!r}"
    next_heading = re.search(r"^#", part, re.M)
    assert next_heading is None or rows.start() < next_heading.start(), f"no table directly under {heading!r}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]


def headings(page: Path) -> set[str]:
    """Return the possible fragments of links to a page: its headings as slugs, and its labels."""
    content = _FENCE.sub("", page.read_text("utf-8"))
    slugs = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", content, re.M)
    }
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", content, re.M))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures, without those on other hosts."""
    content = _FENCE.sub("", page.read_text("utf-8"))
    return [target for target in _LINK.findall(content) if "://" not in target]


def code_spans(page: Path) -> Iterator[str]:
    """Return the texts between single backticks, outside of blocks."""
    yield from re.findall(r"`([^`\n]+)`", _FENCE.sub("", page.read_text("utf-8")))
