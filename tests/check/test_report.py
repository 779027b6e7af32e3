"""The report of a check as text and as JSON."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from seance.check.command import CHECKS
from seance.check.report import CheckReport, CheckResult, Part
from tests.bench.test_output import comparison
from tests.tools import ROOT

SCHEMA = json.loads((ROOT / "docs" / "check.schema.json").read_text("utf-8"))

GOOD = Part("echo", "messages", True, "All came back.", 0.5)
BAD = Part("big_message", "16 MiB message", False, "It came back changed.", 1.25)


def report(*parts: Part) -> CheckReport:
    """Return a report: one check with these parts, and one with figures."""
    found = CheckReport("ws://h:1", "r", ["A note."], [CheckResult("fidelity", "As sent", list(parts))], 12.3)
    found.checks.append(CheckResult("speed", "Speed", [GOOD], comparison()))
    return found


def is_valid(found: dict[str, Any]) -> bool:
    return bool(jsonschema_rs.is_valid(SCHEMA, json.loads(json.dumps(found))))


@pytest.mark.parametrize("parts", [(GOOD,), (GOOD, BAD), ()])
def test_the_json_is_valid_by_the_schema(parts: tuple[Part, ...]) -> None:
    jsonschema_rs.validate(SCHEMA, json.loads(json.dumps(report(*parts).as_json())))


@pytest.mark.parametrize(
    "path", [("passed",), ("checks", 0, "parts", 0, "sentence"), ("checks", 1, "figures", "idle")]
)
def test_the_schema_requires_every_field(path: tuple[Any, ...]) -> None:
    found: Any = json.loads(json.dumps(report(GOOD).as_json()))
    assert is_valid(found)
    place = found
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    assert not is_valid(found)


def test_the_schema_lists_every_check_and_every_load() -> None:
    assert tuple(SCHEMA["$defs"]["check"]["properties"]["name"]["enum"]) == CHECKS
    found = comparison()
    names = [load.name for load in found.loads]
    assert SCHEMA["$defs"]["load"]["properties"]["name"]["enum"] == names


def test_a_failed_part_fails_its_check_and_the_report() -> None:
    assert report(GOOD).passed
    failing = report(GOOD, BAD)
    assert not failing.passed
    assert [check.passed for check in failing.checks] == [False, True]


def test_a_report_without_parts_has_not_passed() -> None:
    assert not report().passed
    assert not CheckReport("ws://h:1", "r").passed


def test_the_text_lists_failed_parts_with_their_reasons() -> None:
    lines = report(GOOD, BAD).as_text().splitlines()
    assert lines[:2] == ["Tunnel: ws://h:1, room r", "  A note."]
    assert "FAILED  As sent" in lines
    assert any(line.startswith("  FAILED  16 MiB message") and line.endswith(BAD.sentence) for line in lines)
    assert lines[-1] == "FAILED, after 12 s: fidelity.big_message."
    assert report(GOOD).as_text().splitlines()[-1] == "All checks passed, in 12 s."
