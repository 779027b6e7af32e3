"""``deploy/relay.toml`` and ``deploy/agent.toml`` are generated from the options, and can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from seance.options import Program, options_of
from seance.options.config import agent_settings, relay_settings
from seance.options.example import example
from tests.operations.proxies import DEPLOY

READERS = {Program.RELAY: relay_settings, Program.AGENT: agent_settings}

both = pytest.mark.parametrize("program", list(Program), ids=lambda program: program.value)


@both
def test_the_example_is_up_to_date(program: Program) -> None:
    written = (DEPLOY / f"{program.value}.toml").read_text("utf-8")
    command = f"run: python -m seance.options {program.value} > deploy/{program.value}.toml"
    assert written == example(program), command


@both
def test_the_example_sets_only_required_options(program: Program) -> None:
    required = {option.name for option in options_of(program) if option.is_required}
    assert set(tomllib.loads(example(program))[program.value]) == required


@both
def test_an_uncommented_line_sets_the_default(program: Program, tmp_path: Path) -> None:
    uncommented = re.sub(r"^#(?=[a-z-]+ = )", "", example(program), flags=re.M)
    table = tomllib.loads(uncommented)[program.value]
    assert list(table) == [option.name for option in options_of(program)], "every option, in order"
    placeholders = [
        option.name for option in options_of(program) if str(table[option.name]).strip("[]'").isupper()
    ]
    assert set(placeholders) <= {
        option.name for option in options_of(program) if option.is_required or not option.default
    }
    without_placeholders = "\n".join(
        line
        for line in uncommented.splitlines()
        if line.partition(" = ")[0] not in set(placeholders) - {"room"}
    )
    file = tmp_path / "seance.toml"
    file.write_text(without_placeholders, "utf-8")
    room = {"room": ["NAME"]} if program is Program.AGENT else {}
    read = READERS[program]
    assert read({"config": [str(file)]}, {}) == read(room, {})
