"""Pages, code and tests do not cite research notes that are not in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, table
from tests.tools import ROOT

SOURCES = DOCS / "sources.md"

NOTE = re.compile(
    r"(?<![/\w-])(?:yamux|yjs|aesthetics|reliability|field|house|interop|peers|rivals|speed|cluster|design)\.md\b"
)
"""The names of these notes. docs/sources.md has the facts that were taken from them."""

SUFFIXES = {".py", ".js", ".mjs", ".go", ".html", ".toml", ".yaml", ".yml", ".sh", ".service", ".conf"}


def files() -> Iterator[Path]:
    yield from PAGES
    for folder in ("docs", "benchmarks", "seance", "tests", "deploy"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in SUFFIXES and not {"_build", "node_modules"} & set(path.parts):
                yield path


@pytest.mark.parametrize(
    "heading", ["yamux implementations", "Twisted and Autobahn", "Yjs clients and servers"]
)
def test_every_fact_has_a_subject(heading: str) -> None:
    rows = table(SOURCES, heading)
    assert len(rows) >= 5
    assert len({subject for subject, _ in rows}) == len(rows)


def test_no_file_cites_a_note_that_is_not_in_the_repository() -> None:
    assert [path for path in files() if NOTE.search(path.read_text("utf-8"))] == []
