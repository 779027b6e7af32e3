"""Generates the list of files in docs/architecture.md, with the first line of each docstring.

python -m tests.docs.tree        writes the list, and the diagrams of docs/states.md
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.docs.states import STATES_PAGE, replace_states
from tests.tools import ROOT

__all__ = ["PAGE", "replace_tree", "tree"]

PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree -->\n", "<!-- /tree -->"


def tree() -> str:
    """Return the list as one code block."""
    return "```text\n" + "".join(f"{line}\n" for line in _lines(ROOT / "seance", "")) + "```\n"


def replace_tree(page: str) -> str:
    """Return the page with the list between its two markers."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tree() + END + rest.partition(END)[2]


def _lines(folder: Path, indent: str) -> Iterator[str]:
    yield f"{indent}{folder.name + '/':<{30 - len(indent)}} {_first_line(folder / '__init__.py')}".rstrip()
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield f"{indent}  {path.name:<{28 - len(indent)}} {_first_line(path)}".rstrip()
        elif (path / "__init__.py").exists():
            yield from _lines(path, indent + "  ")


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(replace_tree(PAGE.read_text("utf-8")), "utf-8")
    STATES_PAGE.write_text(replace_states(STATES_PAGE.read_text("utf-8")), "utf-8")
