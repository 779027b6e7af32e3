"""The tables of the pages, compared with the source: every code, limit and field is documented."""

from __future__ import annotations

import configparser
import dataclasses
import json
import re

import pytest

from seance.agent.service import AgentState
from seance.auth.claims import grant_from_claims
from seance.carrier import CloseCode
from seance.cli import COMMANDS
from seance.core.settings import AgentSettings, RelaySettings
from seance.heads.refusals import ADMIN_REFUSALS, REFUSALS, TOKEN_REFUSALS
from seance.options import OPTIONS, Program, default_in_words, options_of, parsers
from seance.yamux import KIB, MIB, Limits
from tests.docs.pages import DOCS, blocks, code_spans, table
from tests.docs.source import HOLE, as_written, codes_of
from tests.tools import ROOT

PROTOCOL = DOCS / "protocol.md"
SECURITY = DOCS / "security.md"
PROGRAMMATIC = DOCS / "programmatic.md"
DEPENDENCIES = DOCS / "decisions" / "0005-dependencies.md"

ALL_CLAIMS = {
    "aud": "seance-relay",
    "role": "client",
    "room": "r",
    "exp": 1,
    "nbf": 0,
    "iat": 0,
    "sub": "s",
    "jti": "j",
    "agt": "a",
    "org": [],
    "max": {"clients": 1, "bps": 1},
}
"""All claims that ``seance.auth.claims`` reads; a token with these sets every field of a grant."""

UNITS = {"": 1, "KiB": KIB, "MiB": MIB}


def test_every_refusal_is_in_the_protocol_with_its_status_and_message() -> None:
    rows = [(int(row[0]), row[1].strip("`"), row[2]) for row in table(PROTOCOL, "Refusals")]
    refusals = REFUSALS.keys() - TOKEN_REFUSALS.keys() - ADMIN_REFUSALS.keys()
    assert set(rows) == {as_written(kind) for kind in refusals}
    assert len(rows) == len(set(rows)), "a row occurs twice"


def test_every_reason_to_reject_a_token_is_in_the_protocol() -> None:
    written = {(int(row[0]), row[1].strip("`")) for row in table(PROTOCOL, "Rejected tokens")}
    refusals = [as_written(kind) for kind in TOKEN_REFUSALS]
    codes = {(status, re.sub(r"^(token_claim_).*", rf"\1{HOLE}", code)) for status, code, _ in refusals}
    assert written == codes
    page = PROTOCOL.read_text("utf-8").replace("\n", " ")
    messages = {message for _, _, message in refusals}
    assert len(messages) == 3
    assert [one for one in messages if f"“{one}”" not in page] == []


@pytest.mark.parametrize("heading", ["Limits of a relay", "Limits of an agent"])
def test_every_limit_has_its_default_and_an_existing_test(heading: str) -> None:
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    program = Program(heading.rpartition(" ")[2])
    defaults = {option.name: default_in_words(option) or "none" for option in options_of(program)}
    rows = table(SECURITY, heading)
    assert len(rows) >= 5
    for what, default, option, _, reached in rows:
        name = option.strip("`").removeprefix("--")
        assert not name or default.replace(" ", "") == defaults[name], what
        named = re.findall(r"`(test_\w+)`", reached)
        assert named, what
        assert [one for one in named if f"def {one}(" not in tests] == [], what


def test_every_option_of_a_relay_that_sets_a_limit_is_in_the_table() -> None:
    bounding = (parsers.byte_count, parsers.seconds, parsers.seconds_or_zero, parsers.count)
    bounds = {f"`--{one.name}`" for one in options_of(Program.RELAY) if one.parse in bounding}
    assert len(bounds) > 10
    assert bounds - {row[2] for row in table(SECURITY, "Limits of a relay")} == set()


def test_every_claim_of_a_token_is_explained() -> None:
    written = {row[0].strip("`") for row in table(SECURITY, "Claims of a token")}
    grant = grant_from_claims(json.dumps(ALL_CLAIMS).encode(), key_id=None, now=0)
    assert written == ALL_CLAIMS.keys()
    assert None not in dataclasses.astuple(dataclasses.replace(grant, key_id="k"))


def test_every_error_that_ends_a_session_is_in_the_protocol() -> None:
    written = {row[0].strip("`") for row in table(PROTOCOL, "Errors that end the session")}
    assert written == codes_of("RemoteProtocolError", "yamux")


def test_every_close_code_is_in_the_protocol_with_one_meaning() -> None:
    rows = table(PROTOCOL, "Close codes")
    assert [int(row[0]) for row in rows] == [code.value for code in CloseCode]
    meanings = [row[2] for row in rows]
    assert len(set(meanings)) == len(rows)
    assert {row[1] for row in rows} == {"both", "agent", "relay"}


def test_the_example_agents_are_as_long_as_the_pages_say() -> None:
    """Empty lines and comments do not count."""
    for files, lines, *_ in table(PROTOCOL, "Writing an agent"):
        text = "\n".join((ROOT / name).read_text("utf-8") for name in re.findall(r"`([^`]+)`", files))
        code = [line for line in text.splitlines() if not re.fullmatch(r"\s*(//.*|/\*\*.*)?", line)]
        assert int(lines) == len(code), files
        assert f"{len(code) // 5 * 5} lines" in (ROOT / "README.md").read_text("utf-8")


def test_every_bound_of_a_session_is_in_the_protocol_with_its_default() -> None:
    written = {row[0].strip("`"): number(row[1]) for row in table(PROTOCOL, "Bounds of a session")}
    defaults = {field.name: getattr(Limits(), field.name) for field in dataclasses.fields(Limits)}
    defaults["window_budget"] = defaults["window_budget"].total_bytes
    assert written == defaults


def number(text: str) -> float:
    """Convert ``256 KiB`` to bytes, and ``30`` to a number."""
    digits, _, unit = text.partition(" ")
    return float(digits) * UNITS[unit]


def test_every_option_in_the_protocol_exists() -> None:
    named = {span[1:-1] for span in code_spans(PROTOCOL) if re.fullmatch(r"\[[a-z-]+\]", span)}
    assert len(named) > 5
    assert named <= {option.name for option in OPTIONS}


def test_every_state_of_an_agent_is_explained() -> None:
    written = {row[0].strip("`") for row in table(PROGRAMMATIC, "An agent in your app")}
    assert written == {state.value for state in AgentState}


@pytest.mark.parametrize("settings", [RelaySettings, AgentSettings])
def test_every_field_of_the_settings_is_in_the_reference(settings: type) -> None:
    """The reference shows the docstring of the class, so each field must be in it."""
    [reference] = blocks(PROGRAMMATIC, "{eval-rst}")
    assert f"autoclass:: {settings.__module__}.{settings.__qualname__}\n" in reference.text
    for field in dataclasses.fields(settings):
        assert re.search(rf"^ {{8}}{field.name}: ", settings.__doc__ or "", re.M), field.name


def test_every_dependency_is_accounted_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    lines = [setup["options"]["install_requires"], *extras.values()]
    names = {re.split(r"[\s\[>=]", line)[0].lower() for line in "\n".join(lines).split("\n") if line}
    account = DEPENDENCIES.read_text("utf-8").lower()
    missing = [name for name in names if name not in account]
    assert names > {"twisted", "pycrdt"}
    assert not missing


def test_every_command_is_on_the_page() -> None:
    rows = table(DOCS / "commands.md", "Commands")
    assert {name for row in rows for name in re.findall(r"`seance (\w+)`", row[0])} == set(COMMANDS)


def test_every_decision_is_in_the_index() -> None:
    [contents] = blocks(DOCS / "decisions" / "index.md", "{toctree}")
    listed = [line for line in contents.text.splitlines() if re.match(r"\d", line)]
    assert listed == sorted(page.stem for page in (DOCS / "decisions").glob("0*.md"))
    for name in listed:
        first = (DOCS / "decisions" / f"{name}.md").read_text("utf-8").splitlines()[0]
        assert first.startswith(f"# {int(name[:4])}. "), f"{name} begins with {first!r}"
