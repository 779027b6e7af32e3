"""``docs/doctor.md`` against the program: hops, exit codes, options, and every field of the JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from seance.doctor.findings import INTERRUPTED, WRONG_OPTIONS, Finding, Hop, Mark, Report
from tests.docs.pages import DOCS, blocks, code_spans, table

PAGE = DOCS / "doctor.md"


def first_names(heading: str) -> list[str]:
    """The code spans in the first column of a table."""
    return [name for row in table(PAGE, heading) for name in re.findall(r"`([^`]+)`", row[0])]


def test_every_hop_is_explained_in_its_order() -> None:
    assert first_names("The hops") == [hop.value for hop in Hop]


def test_every_exit_code_is_in_the_table() -> None:
    rows = {int(row[0]): row[1] for row in table(PAGE, "Exit codes")}
    assert set(rows) == {0, 1, WRONG_OPTIONS, INTERRUPTED} | {hop.exit_code for hop in Hop}
    for hop in list(Hop)[1:]:
        assert f"`{hop.value}`" in rows[hop.exit_code]


def test_every_field_of_the_json_is_explained() -> None:
    report = Report((Hop.URL,), None, None)
    report.note(Finding(Hop.URL, Mark.WELL, "fine"))
    told: dict[str, Any] = report.as_json()
    of_hops = {f"hops[].{name}" for name in told["hops"][0]} - {"hops[].hop"}
    assert set(first_names("JSON")) == set(told) | of_hops
    assert {mark.value for mark in Mark} <= set(code_spans(PAGE))


def test_the_example_of_the_json_has_the_same_form() -> None:
    [example] = [json.loads(block.text) for block in blocks(PAGE, "json")]
    report = Report((Hop.LOCAL,), None, None)
    report.note(Finding(Hop.LOCAL, Mark.FAILED, "down", "Start it.", 0.1))
    told = report.as_json()
    assert (set(example), example["hop"], example["exit_code"]) == (set(told), told["hop"], told["exit_code"])
    assert [set(one) for one in example["hops"]] == [set(one) for one in report.as_json()["hops"]]  # type: ignore[attr-defined]
