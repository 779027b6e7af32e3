"""The command line of one program, parsed in this process: settings, or one message and status 1."""

from __future__ import annotations

import sys

import pytest
from twisted.python import usage

from seance import __version__
from seance.agent_tap import Options as AgentOptions
from seance.core.settings import AgentSettings, RelaySettings
from seance.errors import ConfigError
from seance.relay_tap import Options as RelayOptions
from tests.conftest import Watch


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RELAY_URL", "ROOM_ID", "LOCAL_HOST", "LOCAL_PORT", "SEANCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def relay_settings(*arguments: str) -> RelaySettings:
    options = RelayOptions()
    options.parseOptions(list(arguments))
    return options.settings


def agent_settings(*arguments: str) -> AgentSettings:
    options = AgentOptions()
    options.parseOptions(list(arguments))
    return options.settings


def message_of(options: usage.Options, *arguments: str) -> str:
    with pytest.raises(SystemExit) as exited:
        options.parseOptions(list(arguments))
    assert isinstance(exited.value.code, str), "Python prints a text and exits with status 1"
    return exited.value.code


def test_flags_become_settings() -> None:
    settings = agent_settings("--room", "r", "--local=unix:/x", "--keep-host", "--dial-seconds", "3")
    assert settings == AgentSettings(room="r", local="unix:/x", keep_host=True, dial_seconds=3.0)


def test_a_repeatable_flag_collects_its_values() -> None:
    assert relay_settings("--listen", "tcp:1", "--listen", "[::1]:2").listen == (
        "tcp:1",
        "tcp:2:interface=\\:\\:1",
    )


def test_a_flag_precedes_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEANCE_HEAD_SECONDS", "7")
    assert relay_settings().head_seconds == 7
    assert relay_settings("--head-seconds", "8").head_seconds == 8


def test_the_prefix_no_turns_a_flag_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEANCE_KEEP_HOST", "yes")
    assert agent_settings("--room", "r").keep_host
    assert not agent_settings("--room", "r", "--no-keep-host").keep_host


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "seance-agent: --room is missing: set the room to serve with --room NAME,"),
        (
            ["--room"],
            "seance-agent: option --room requires argument; seance-agent --help-all lists the options.",
        ),
        (
            ["--rom", "x"],
            "seance-agent: option --rom not recognized; seance-agent --help-all lists the options.",
        ),
        (["--ro", "a b"], "seance-agent: --room: The room name 'a b' is not usable"),
        (["--keep-host=1"], "seance-agent: option --keep-host must not have an argument; "),
        (
            ["--room", "r", "x"],
            "seance-agent: 'x' is not an option; seance-agent --help-all lists the options.",
        ),
        (
            ["--room", "r", "--local", "x"],
            "seance-agent: --local: The local server 'x' is not a valid address;",
        ),
        (
            ["--config", "/no/such"],
            "seance-agent: --config: /no/such cannot be read (No such file or directory);",
        ),
    ],
)
def test_an_invalid_option_is_reported_in_one_message_with_status_1(
    arguments: list[str], message: str
) -> None:
    text = message_of(AgentOptions(), *arguments)
    assert text.startswith(message)
    assert text.endswith(".")
    assert "\n" not in text


def test_the_message_names_the_command_as_it_was_typed() -> None:
    options = RelayOptions()
    options.command = "seance relay"
    assert message_of(options, "--what") == (
        "seance relay: option --what not recognized; seance relay --help-all lists the options."
    )


@pytest.mark.parametrize("options_class", [RelayOptions, AgentOptions])
def test_help_and_version_go_to_stdout_with_status_0(
    options_class: type[RelayOptions | AgentOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, text in (("--version", f"seance-tunnel {__version__}\n"), ("--help", "Usage: seance-")):
        with pytest.raises(SystemExit) as exited:
            options_class().parseOptions([flag])
        assert not exited.value.code
        output = capsys.readouterr()
        assert output.out.startswith(text)
        assert output.err == ""


def test_under_twistd_a_config_error_at_start_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], watch: Watch
) -> None:
    """twistd lets an exception of ``startService`` propagate to the interpreter."""
    passed_on: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: passed_on.append(error))
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    options = RelayOptions()
    options.parent = usage.Options()
    options.parseOptions([])

    expected, bug = ConfigError("The port is taken."), ValueError("a bug")
    sys.excepthook(ConfigError, expected, None)
    sys.excepthook(ValueError, bug, None)

    assert capsys.readouterr().err == "seance-relay: The port is taken.\n"
    assert passed_on == [bug]
    assert [event["sentence"] for event in watch.take()] == ["The port is taken."]


def test_outside_twistd_the_excepthook_is_unchanged() -> None:
    before = sys.excepthook
    relay_settings()
    assert sys.excepthook is before
