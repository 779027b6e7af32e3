"""The files of the dashboard: all there, each of a kind, and nothing in them that asks for elsewhere."""

from __future__ import annotations

import re

import pytest

from seance.dashboard.pages import dashboard_pages
from tests.tools import ROOT

PAGES = dashboard_pages()
TEXTS = {path: content.decode("utf-8") for path, (_, content) in PAGES.items()}


def test_every_file_has_an_address() -> None:
    files = {file.name for file in (ROOT / "seance" / "dashboard" / "static").iterdir()}
    assert {path.removeprefix("/static/") for path in PAGES} == files - {"index.html"} | {"/"}
    assert PAGES["/"][0] == "text/html; charset=utf-8"


def test_whatever_a_file_names_is_there_and_named_relatively() -> None:
    named = re.findall(r'(?:src|href)="([^"]*)"', TEXTS["/"])
    assert named
    assert {f"/{one}" for one in named} <= set(PAGES)
    for path, text in TEXTS.items():
        for one in re.findall(r"from '([^']*)'", text):
            assert f"/static/{one.removeprefix('./')}" in PAGES, f"{path} imports {one}"


@pytest.mark.parametrize("path", PAGES)
def test_nothing_asks_for_elsewhere(path: str) -> None:
    addresses = set(re.findall(r"\b(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s'\"]*", TEXTS[path]))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in TEXTS[path]
    assert "url(" not in TEXTS[path] or not path.endswith(".css")


def test_the_page_has_neither_script_nor_style_in_itself() -> None:
    page = TEXTS["/"]
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.S) == [""]
    assert "<style" not in page
    assert not re.search(r"\s(?:style|on\w+)=", page)


@pytest.mark.parametrize("path", [path for path in PAGES if path.endswith(".js")])
def test_nothing_is_made_of_text_that_came(path: str) -> None:
    """Room names and addresses are other people's: they become text, and never markup."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|setAttribute\('style'", TEXTS[path]
    )


def test_every_colour_has_its_dark_counterpart() -> None:
    light, dark = (
        set(re.findall(r"--([\w-]+): (?:#|rgb)", part))
        for part in TEXTS["/static/dashboard.css"].split("@media (prefers-color-scheme: dark)")[:2]
    )
    assert light
    assert dark == light
