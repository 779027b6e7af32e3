"""``deploy/relay.toml`` and ``deploy/agent.toml`` are generated from the options, and can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from seance.options import Program, options_of
from seance.options.config import agent_settings, relay_settings
from seance.options.documents import config_template
from tests.operations.proxies import DEPLOY

READERS = {Program.RELAY: relay_settings, Program.AGENT: agent_settings}

both = pytest.mark.parametrize("program", list(Program), ids=lambda program: program.value)


@both
def test_the_example_is_up_to_date(program: Program) -> None:
    written = (DEPLOY / f"{program.value}.toml").read_text("utf-8")
    told = "run: python -m seance.options --write"
    assert written == config_template(program), told


@both
def test_the_example_sets_only_required_options(program: Program) -> None:
    required = {option.name for option in options_of(program) if option.is_required}
    assert set(tomllib.loads(config_template(program))[program.value]) == required


@both
def test_a_line_that_is_woken_says_the_default(program: Program, tmp_path: Path) -> None:
    uncommented = re.sub(r"^#(?=[a-z-]+ = )", "", config_template(program), flags=re.M)
    table = tomllib.loads(uncommented)[program.value]
    assert list(table) == [option.name for option in options_of(program)], "all of them, in order"
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
