"""Links and pictures in the pages have existing targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, headings, links
from tests.tools import ROOT


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_there_are_links_to_follow() -> None:
    assert sum(len(links(page)) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_has_a_target(page: Path) -> None:
    for link in links(page):
        place, _, heading = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{link}: no such file"
        if heading:
            assert heading in headings(target), f"{link}: {name(target.resolve())} has {headings(target)}"
