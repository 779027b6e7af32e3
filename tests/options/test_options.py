"""The options that are generated from the settings: flags, help, reference page."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from seance.agent_tap import Options as AgentOptions
from seance.options import OPTIONS, Option, Program, options_of
from seance.options.documents import reference_page
from seance.options.flags import ProgramOptions
from seance.relay_tap import Options as RelayOptions
from tests.tools import ROOT

NOT_OPTIONS = {("relay", "port")}
"""Fields that are not options: ``--listen PORT`` sets the port."""

CLASSES: dict[Program, type[ProgramOptions[object]]] = {
    Program.RELAY: RelayOptions,  # type: ignore[dict-item]  # of any settings
    Program.AGENT: AgentOptions,  # type: ignore[dict-item]
}

MAX_COMMON = 12


def help_text(program: Program, flag: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        CLASSES[program]().parseOptions([flag])
    return capsys.readouterr().out


def label(option: Option) -> str:
    return f"{option.program.value} {option.name}"


@pytest.mark.parametrize("program", Program)
def test_every_field_of_the_settings_is_an_option(program: Program) -> None:
    fields = {field.name for field in dataclasses.fields(program.settings)}
    not_options = {name for owner, name in NOT_OPTIONS if owner == program.value}
    assert {option.field for option in options_of(program)} == fields - not_options


@pytest.mark.parametrize("option", OPTIONS, ids=label)
def test_a_default_can_be_written_as_text(option: Option) -> None:
    if not (option.is_required or option.is_flag or option.is_repeatable or option.default is None):
        assert option.parse(str(option.default)) == option.default


@pytest.mark.parametrize("option", OPTIONS, ids=label)
def test_help_is_a_phrase_and_a_note_is_sentences(option: Option) -> None:
    assert not option.info.help.endswith(".")
    assert not option.info.note or option.info.note.endswith(".")


@pytest.mark.parametrize("program", Program)
def test_help_shows_the_common_options_and_help_all_shows_all_in_groups(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of(program)
    common = [option for option in options if option.info.is_common]
    assert len(common) <= MAX_COMMON
    general = ["--config FILE", "--version", "--help", "--help-all"]

    short = help_text(program, "--help", capsys)
    assert flags_in(short) == [option.flag for option in common] + general
    assert f"print all {len(options)} options and their" in short

    full = help_text(program, "--help-all", capsys)
    assert flags_in(full) == [option.flag for option in options] + general
    headings = [line for line in full.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [f"{option.info.group}:" for option in options if option.info.group] + ["General:"]
    assert all(variable in full for option in options for variable in option.variables)
    assert max(map(len, full.splitlines())) <= 100


def flags_in(text: str) -> list[str]:
    """Return the flags of a help text with their placeholders."""
    lines = [line[2:] for line in text.splitlines() if line.startswith("  --")]
    return [line.partition("  ")[0] for line in lines]


@pytest.mark.parametrize("option", OPTIONS, ids=label)
def test_the_flag_exists_and_the_reference_has_it(option: Option) -> None:
    options = CLASSES[option.program]()
    assert (option.name if option.is_flag else f"{option.name}=") in options.longOpt
    assert f"| `{option.flag}`".replace("FILE|URL", r"FILE\|URL") in reference_page()


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "options.md").read_text("utf-8")
    assert written == reference_page(), "run: python -m seance.options --write"


@pytest.mark.parametrize("arguments", [[], ["relay"], ["agent"]])
def test_the_module_prints_the_documents(arguments: list[str]) -> None:
    argv = [sys.executable, "-m", "seance.options", *arguments]
    printed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    name = f"deploy/{arguments[0]}.toml" if arguments else "docs/options.md"
    assert printed == (ROOT / name).read_text("utf-8")
