"""The table of log events, compared with every call in the source: event, level and fields."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from twisted.logger import LogLevel

from seance.logs.format import json_line
from tests.docs.pages import DOCS, blocks, table
from tests.test_layers import SOURCES

PAGE = DOCS / "logging.md"

LEVELS = {name: name for name in ("debug", "info", "warn", "error", "critical")} | dict.fromkeys(
    ("failure", "failuresHandled"), "critical"
)


@dataclass(frozen=True, slots=True)
class Logged:
    """One call of a logger."""

    where: str
    event: str | None
    level: str
    fields: frozenset[str]
    text: str


def calls() -> Iterator[Logged]:
    """Return every call of a logger in the source."""
    for name, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            method = node.func.attr
            if not ast.unparse(node.func.value).endswith("_log") or method not in LEVELS:
                continue
            keywords = {word.arg: word.value for word in node.keywords}
            event = keywords.pop("event", None)
            text = event.value if isinstance(event, ast.Constant) else None
            fields = frozenset(str(field) for field in keywords)
            yield Logged(
                f"{name}, line {node.lineno}", text, LEVELS[method], fields - {"failure"}, text_of(node)
            )


def text_of(node: ast.Call) -> str:
    """Return the constant format string of a call."""
    texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    assert texts, ast.unparse(node)
    return texts[0]


def test_every_call_names_its_event() -> None:
    assert len(list(calls())) > 50
    assert not [path for path in SOURCES.values() if "_log.emit(" in path.read_text("utf-8")], (
        "use a method that names the level"
    )
    assert [call.where for call in calls() if call.event is None] == []


def test_every_event_is_on_the_page_with_its_level_and_fields() -> None:
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    for call in calls():
        assert call.event is not None
        levels[call.event].add(call.level)
        fields[call.event] |= call.fields
    said = {event: (sorted(levels[event]), sorted(fields[event])) for event in levels}
    rows = table(PAGE, "Events in the log")
    written = {row[0].strip("`"): (sorted(words(row[1])), sorted(words(row[3]))) for row in rows}
    assert written == said
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


def test_a_json_line_equals_the_example_on_the_page() -> None:
    [shown] = [json.loads(block.text) for block in blocks(PAGE, "json") if '"event"' in block.text]
    fields = shown["fields"]
    [text] = {call.text for call in calls() if call.event == shown["event"]}
    logged = {**fields, "event": shown["event"], "log_namespace": shown["namespace"]}
    logged |= {"log_format": text, "log_level": LogLevel.info, "log_time": 1795436954.426}
    assert json.loads(json_line(logged)) == shown
    keys = {row[0].strip("`") for row in table(PAGE, "Logs")}
    assert keys == {*shown, "traceback"}


def words(cell: str) -> list[str]:
    return [word.strip(" `") for word in cell.split(",") if word.strip()]
