"""The files of the dashboard: paths, types, no external resources, no inline code."""

from __future__ import annotations

import re

import pytest

from seance.dashboard.pages import dashboard_pages
from tests.tools import ROOT

PAGES = dashboard_pages()
TEXTS = {path: content.decode("utf-8") for path, (_, content) in PAGES.items()}


def test_every_file_has_a_path() -> None:
    files = {file.name for file in (ROOT / "seance" / "dashboard" / "static").iterdir()}
    assert {path.removeprefix("/static/") for path in PAGES} == files - {"index.html"} | {"/"}
    assert PAGES["/"][0] == "text/html; charset=utf-8"


def test_referenced_files_exist_and_references_are_relative() -> None:
    named = re.findall(r'(?:src|href)="([^"]*)"', TEXTS["/"])
    assert named
    assert {f"/{one}" for one in named} <= set(PAGES)
    for path, text in TEXTS.items():
        for one in re.findall(r"from '([^']*)'", text):
            assert f"/static/{one.removeprefix('./')}" in PAGES, f"{path} imports {one}"


@pytest.mark.parametrize("path", PAGES)
def test_no_file_refers_to_another_server(path: str) -> None:
    addresses = set(re.findall(r"\b(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s'\"]*", TEXTS[path]))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in TEXTS[path]
    assert "url(" not in TEXTS[path] or not path.endswith(".css")


def test_page_has_no_inline_scripts_or_styles() -> None:
    page = TEXTS["/"]
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.S) == [""]
    assert "<style" not in page
    assert not re.search(r"\s(?:style|on\w+)=", page)


@pytest.mark.parametrize("path", [path for path in PAGES if path.endswith(".js")])
def test_received_text_never_becomes_markup(path: str) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|setAttribute\('style'", TEXTS[path]
    )


def test_every_colour_has_a_dark_variant() -> None:
    light, dark = (
        set(re.findall(r"--([\w-]+): (?:#|rgb)", part))
        for part in TEXTS["/static/dashboard.css"].split("@media (prefers-color-scheme: dark)")[:2]
    )
    assert light
    assert dark == light
