"""The one table of options against what it is made for: settings, flags, help and reference."""

from __future__ import annotations

import dataclasses

import pytest

from seance.agent_tap import Options as AgentOptions
from seance.options import OPTIONS, Option, Program, options_of, reference
from seance.options.flags import TableOptions
from seance.relay_tap import Options as RelayOptions
from tests.tools import ROOT

NOT_OPTIONS = {("relay", "port")}
"""Fields that no option fills: ``--listen PORT`` is the way to say the port."""

CLASSES: dict[Program, type[TableOptions[object]]] = {
    Program.RELAY: RelayOptions,  # type: ignore[dict-item]  # whatever its settings
    Program.AGENT: AgentOptions,  # type: ignore[dict-item]
}


def label(option: Option) -> str:
    return f"{option.program.value} {option.name}"


@pytest.mark.parametrize("program", Program)
def test_every_field_of_the_settings_is_an_option(program: Program) -> None:
    fields = {field.name for field in dataclasses.fields(program.settings)}
    unreachable = {name for owner, name in NOT_OPTIONS if owner == program.value}
    assert {option.field for option in options_of(program)} == fields - unreachable


def test_no_option_is_there_twice() -> None:
    assert len({(option.program, option.name) for option in OPTIONS}) == len(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS, ids=label)
def test_a_default_is_a_value_that_one_could_have_written(option: Option) -> None:
    if option.is_required or option.is_flag or option.repeatable or option.default is None:
        return
    assert option.parse(str(option.default)) == option.default


@pytest.mark.parametrize("option", OPTIONS, ids=label)
def test_help_is_the_rest_of_a_sentence(option: Option) -> None:
    assert option.help[0].islower()
    assert not option.help.endswith(".")


@pytest.mark.parametrize("option", OPTIONS, ids=label)
def test_the_flag_exists_and_help_and_reference_show_it(option: Option) -> None:
    options = CLASSES[option.program]()
    flag = option.name if option.is_flag else f"{option.name}="
    assert flag in options.longOpt
    assert f"--{option.name} " in str(options)
    assert option.variable in str(options)
    assert f"`--{option.name}" in reference()


def test_help_fits_a_terminal() -> None:
    for options_class in CLASSES.values():
        assert max(map(len, str(options_class()).splitlines())) <= 100


def test_the_written_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "options.md").read_text("utf-8")
    assert written == reference(), "run: python -m seance.options > docs/options.md"
