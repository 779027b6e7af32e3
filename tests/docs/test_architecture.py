"""docs/architecture.md names files that exist, and its list of files is the generated one."""

from __future__ import annotations

import re

from tests.docs.tree import PAGE, replace_tree, tree
from tests.test_layers import LAYERS
from tests.tools import ROOT


def test_the_list_of_files_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    assert tree() in page, "run python -m tests.docs.tree"
    assert replace_tree(page) == page


def test_every_package_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    assert [package for package in LAYERS if f"`{package}`" not in page and package != "__main__"] == []


def test_every_file_that_the_page_names_exists() -> None:
    text = PAGE.read_text("utf-8").partition("## The files")[0]
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert len(named) > 30
    roots = (ROOT, ROOT / "seance")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
