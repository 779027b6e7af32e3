"""The refusals as the pages write them, and the codes of the errors that end a session."""

from __future__ import annotations

import ast
import re

from seance.heads.refusals import REFUSALS
from tests.tools import ROOT

__all__ = ["HOLE", "as_written", "codes_of"]

HOLE = "…"
"""Placeholder in a code or a message for a part that varies."""


def as_written(kind: str) -> tuple[int, str, str]:
    """Return status, code and message of an entry of the table, with ``…`` for the fields of the message."""
    entry = REFUSALS[kind]
    return entry.status, kind.partition(".")[0], re.sub(r"\{.*?\}", HOLE, entry.message)


def codes_of(error: str, package: str) -> set[str]:
    """Return the codes with which the modules of a package raise an error.

    A code is a text, or a variable ``code`` that is assigned one of two texts.
    """
    codes: set[str] = set()
    for path in (ROOT / "seance" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == error:
                values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
                assert isinstance(node.value, ast.IfExp), f"{path}:{node.lineno}"
                values = [node.value.body, node.value.orelse]
            else:
                continue
            codes.update(str(one.value) for one in values if isinstance(one, ast.Constant))
    return codes
