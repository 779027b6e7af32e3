"""``docs/doctor.md`` lists every hop, exit code and JSON field."""

from __future__ import annotations

import json
import re
from typing import Any

from seance.cli import INTERRUPTED
from seance.doctor.findings import WRONG_OPTIONS, DoctorReport, Finding, Hop, HopStatus
from tests.docs.pages import DOCS, blocks, code_spans, table

PAGE = DOCS / "doctor.md"


def first_names(heading: str) -> list[str]:
    """Return the code spans in the first column of a table."""
    return [name for row in table(PAGE, heading) for name in re.findall(r"`([^`]+)`", row[0])]


def test_every_hop_is_listed_in_order() -> None:
    assert first_names("The hops") == [hop.value for hop in Hop]


def test_every_exit_code_is_listed() -> None:
    rows = {int(row[0]): row[1] for row in table(PAGE, "Exit codes")}
    assert set(rows) == {0, 1, WRONG_OPTIONS, INTERRUPTED} | {hop.exit_code for hop in Hop}
    for hop in list(Hop)[1:]:
        assert f"`{hop.value}`" in rows[hop.exit_code]


def test_every_json_field_is_listed() -> None:
    report = DoctorReport((Hop.URL,), None, None)
    report.add(Finding(Hop.URL, HopStatus.OK, "fine"))
    fields: dict[str, Any] = report.as_json()
    of_hops = {f"hops[].{name}" for name in fields["hops"][0]} - {"hops[].hop"}
    assert set(first_names("JSON")) == set(fields) | of_hops
    assert {status.value for status in HopStatus} <= set(code_spans(PAGE))


def test_json_example_has_the_right_fields() -> None:
    [example] = [json.loads(block.text) for block in blocks(PAGE, "json")]
    report = DoctorReport((Hop.LOCAL,), None, None)
    report.add(Finding(Hop.LOCAL, HopStatus.FAILED, "down", "Start it.", 0.1))
    fields = report.as_json()
    assert (set(example), example["hop"], example["exit_code"]) == (
        set(fields),
        fields["hop"],
        fields["exit_code"],
    )
    assert [set(one) for one in example["hops"]] == [set(one) for one in report.as_json()["hops"]]  # type: ignore[attr-defined]
