"""Whoever meets a reference to the research notes finds on one page what it rests on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import DOCS, PAGES, table
from tests.tools import ROOT

SOURCES = DOCS / "sources.md"

NOTE = r"\b(yamux|yjs|aesthetics|reliability)\.md\b"
PLACE = r"(?:(?:section|fact|rows?|rule|points?) )?\d+(?:\.\d+)?(?:(?: and | to )\d+(?:\.\d+)?)*"
CITATION = re.compile(rf"{NOTE},? ({PLACE}(?:, {PLACE})*)")


def texts() -> Iterator[tuple[Path, str]]:
    """Every file that may cite, on one line, so that a citation may be broken over two."""
    programs = [path for folder in ("seance", "tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    for path in [*programs, *PAGES]:
        if path not in (SOURCES, Path(__file__)) and not {"node_modules", "_build"} & set(path.parts):
            yield path, re.sub(r"\s+(?:#:? )?", " ", path.read_text("utf-8"))


def citations(text: str) -> list[str]:
    """As the page writes them: ``yjs.md fact 2``."""
    return [f"{note}.md {place}" for note, place in CITATION.findall(text)]


def test_a_citation_is_found_however_it_is_broken_and_joined() -> None:
    assert citations("(yjs.md, section 3, row 5: a state)") == ["yjs.md section 3, row 5"]
    assert citations("(yamux.md 5.1 and 5.2, each)") == ["yamux.md 5.1 and 5.2"]
    assert citations("(yamux.md 6.2, measured).") == ["yamux.md 6.2"]


def test_every_citation_has_its_row_and_every_row_is_cited() -> None:
    rows = [row[0].strip("`") for row in table(SOURCES, "What is cited")]
    cited = {one for _, text in texts() for one in citations(text)}
    assert len(cited) > 15
    assert set(rows) == cited
    assert len(rows) == len(set(rows))


def test_every_mention_of_a_note_says_where_in_it() -> None:
    for path, text in texts():
        assert len(re.findall(NOTE, text)) == len(citations(text)), path
