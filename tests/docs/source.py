"""Finds the refusals in the source, and the errors that end a session, in its syntax trees.

No module is imported or run, so this also finds refusals that no test causes. A code
that is an argument (``self._refusal(sentence, "code")``) is found at the calls, and so are those of
the two functions that refuse tokens. Parts of a text that vary become holes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from seance.relay.refusals import REFUSALS
from tests.tools import ROOT

__all__ = ["Said", "codes_of", "refusals", "token_codes"]

HOLE = "…"
"""Placeholder in a code or a sentence for a part that varies."""


@dataclass(frozen=True, slots=True)
class Said:
    """One ``raise Refusal(...)`` or ``raise RemoteProtocolError(...)``.

    Attributes:
        where: File and line, for failure messages.
        status: The HTTP status, or 0.
        code: The stable word, perhaps with a hole.
        sentence: The text with ``…`` for its holes, or only a hole.
    """

    where: str
    status: int
    code: str
    sentence: str

    def is_written(self, status: int, code: str, sentence: str) -> bool:
        """Return whether a row of a table matches this; it may fill the holes or contain them."""
        return status == self.status and _fits(code, self.code) and _fits(sentence, self.sentence)


def refusals(*packages: str) -> list[Said]:
    """Every refusal that the modules of these packages give; those of the relay are in its table."""
    found = [said for path in _sources(packages) for said in _said_in(path, "Refusal", "_refusal")]
    if "relay" in packages:
        found += [
            Said(
                f"REFUSALS[{kind!r}]",
                row.status,
                kind.partition(".")[0],
                re.sub(r"\{.*?\}", HOLE, row.message),
            )
            for kind, row in REFUSALS.items()
        ]
    return found


def token_codes(refuser: str) -> set[str]:
    """Return the codes with which ``auth`` calls ``not_accepted`` or ``not_allowed``."""
    calls = [
        node
        for path in _sources(["auth"])
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and _name(node) == refuser
    ]
    return {code for call in calls for code in _texts(call.args[0], {})}


def codes_of(error: str, *packages: str) -> set[str]:
    """Return the codes with which the modules of these packages raise an error."""
    return {said.code for path in _sources(packages) for said in _said_in(path, error, error)}


def _sources(packages: Iterable[str]) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / "seance" / package).rglob("*.py"))]


def _said_in(path: Path, error: str, maker: str) -> Iterator[Said]:
    tree = ast.parse(path.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    texts = _assigned_texts(tree)
    statuses = [node.args[0] for node in calls if _name(node) == error and node.args]
    for call in calls:
        if _name(call) not in (error, maker):
            continue
        arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "code")]
        codes = [_texts(one, texts) for one in arguments[1:]]
        number = call.args[0] if call.args else None
        if _name(call) == maker != error:
            number = next((one for one in statuses if isinstance(one, ast.Constant)), None)
        status = number.value if isinstance(number, ast.Constant) and isinstance(number.value, int) else 0
        sentence = next((text for one in call.args for text in _texts(one, texts)), HOLE)
        for code in codes[-1] if codes else ():
            # A code made from a peer's status is for the connecting side, and never on the wire.
            if " " not in code and (status or HOLE not in code):
                yield Said(f"{path.relative_to(ROOT)}:{call.lineno}", status, code, sentence)


def _fits(text: str, form: str) -> bool:
    return re.fullmatch(re.escape(form).replace(HOLE, ".+"), text) is not None


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def _assigned_texts(tree: ast.Module) -> dict[str, list[tuple[int, list[str]]]]:
    """Return the texts assigned to names, with their lines: ``msg = f"..."`` before a ``raise``."""
    found: dict[str, list[tuple[int, list[str]]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append((node.lineno, _texts(node.value, {})))
    return found


def _texts(node: ast.expr, names: dict[str, list[tuple[int, list[str]]]]) -> list[str]:
    """Return the possible texts of an expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(one.value) if isinstance(one, ast.Constant) else HOLE for one in node.values)]
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body, names), *_texts(node.orelse, names)]
    if isinstance(node, ast.Name):
        before = [(line, texts) for line, texts in names.get(node.id, ()) if line <= node.lineno]
        return max(before)[1] if before else []
    return []
