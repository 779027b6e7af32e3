"""Every refusal is in the table, and every entry of the table is used."""

from __future__ import annotations

import ast
import re

from seance.heads.refusals import REFUSALS, Retry, refusal
from tests.tools import ROOT

SOURCES = {
    path: path.read_text("utf-8")
    for path in (ROOT / "seance").rglob("*.py")
    if "node_modules" not in path.parts
}

OPTIONS = {"retry", "retry_seconds", "random", "headers"}

COPIED = {"carrier/dial.py", "relay/edge/room_status.py", "wsclient/dial.py"}
"""Modules that make a refusal from a received response or from another refusal."""

BENCH = {"bench/local_server.py"}
"""The local server of ``seance bench`` refuses a request for documents if it has none."""


def test_every_entry_is_used_with_the_fields_of_its_message() -> None:
    used = set()
    for path, text in SOURCES.items():
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and re.fullmatch(r"(self\._)?refusal", ast.unparse(call.func)):
                kind = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
                if isinstance(kind, str):
                    used.add(kind)
                    fields = set(re.findall(r"\{(\w+)", REFUSALS[kind].message))
                    assert {one.arg for one in call.keywords} - OPTIONS == fields, f"{path}:{call.lineno}"
    computed = {kind for kind in REFUSALS if kind.endswith(".agent") or kind.startswith("token_claim_")}
    assert used | computed | {"address_rate", "room_rate"} == REFUSALS.keys()


def test_no_other_module_makes_a_refusal() -> None:
    made = {
        path.relative_to(ROOT / "seance").as_posix()
        for path, text in SOURCES.items()
        if re.search(r"^[^#\n]*\bRefusal\((?!SeanceError)", text, re.M)
    }
    assert made == {"heads/refusals.py", *COPIED, *BENCH}


def test_fields_of_the_entry_come_first_and_retry_after_last() -> None:
    made = refusal("method_not_allowed", retry=Retry.LATER, headers=((b"Seance-Test", b"1"),))
    assert (made.status, made.code) == (405, "method_not_allowed")
    assert made.headers == ((b"Allow", b"GET"), (b"Seance-Test", b"1"), (b"Retry-After", b"5"))


def test_given_seconds_override_the_policy() -> None:
    made = refusal("room_reserved.lost", retry_seconds=7, seconds=7)
    assert made.message.endswith("for another 7 s.")
    assert made.headers == ((b"Retry-After", b"7"),)


def test_random_retry_time_is_between_the_bounds_of_the_entry() -> None:
    bounds: list[tuple[int, int]] = []
    refusal("agent_away", random=lambda least, most: bounds.append((least, most)) or most)
    assert bounds == [(2, 5)]
