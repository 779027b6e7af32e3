"""The command line of one program, in this process: settings, or one sentence and status 1."""

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


def relay_told(*arguments: str) -> RelaySettings:
    options = RelayOptions()
    options.parseOptions(list(arguments))
    return options.settings


def agent_told(*arguments: str) -> AgentSettings:
    options = AgentOptions()
    options.parseOptions(list(arguments))
    return options.settings


def sentence_of(options: usage.Options, *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        options.parseOptions(list(arguments))
    assert isinstance(left.value.code, str), "a text makes Python print it and exit with 1"
    return left.value.code


def test_flags_become_settings() -> None:
    told = agent_told("--room", "r", "--local=unix:/x", "--keep-host", "--dial-seconds", "3")
    assert told == AgentSettings(room="r", local="unix:/x", keep_host=True, dial_seconds=3.0)


def test_a_repeated_flag_adds_up() -> None:
    assert relay_told("--listen", "tcp:1", "--listen", "[::1]:2").listen == (
        "tcp:1",
        "tcp:2:interface=\\:\\:1",
    )


def test_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEANCE_HEAD_SECONDS", "7")
    assert relay_told().head_seconds == 7
    assert relay_told("--head-seconds", "8").head_seconds == 8


def test_no_before_a_flag_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEANCE_KEEP_HOST", "yes")
    assert agent_told("--room", "r").keep_host
    assert not agent_told("--room", "r", "--no-keep-host").keep_host


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "seance-agent: --room is missing: say the room to serve with --room NAME,"),
        (["--room"], "seance-agent: option --room requires argument; seance-agent --help lists the options."),
        (["--rom", "x"], "seance-agent: option --rom not recognized; seance-agent --help lists the options."),
        (["--ro", "a b"], "seance-agent: --room: The room name 'a b' is not usable"),
        (["--keep-host=1"], "seance-agent: option --keep-host must not have an argument; "),
        (["--room", "r", "x"], "seance-agent: 'x' is not an option; seance-agent --help lists the options."),
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
def test_a_wrong_option_is_one_sentence_and_status_1(arguments: list[str], sentence: str) -> None:
    said = sentence_of(AgentOptions(), *arguments)
    assert said.startswith(sentence)
    assert said.endswith(".")
    assert "\n" not in said


def test_the_sentence_names_the_command_that_was_typed() -> None:
    options = RelayOptions()
    options.command = "seance relay"
    assert sentence_of(options, "--what") == (
        "seance relay: option --what not recognized; seance relay --help lists the options."
    )


@pytest.mark.parametrize("options_class", [RelayOptions, AgentOptions])
def test_help_and_version_go_to_stdout_with_status_0(
    options_class: type[RelayOptions | AgentOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, text in (("--version", f"seance-tunnel {__version__}\n"), ("--help", "Usage: seance-")):
        with pytest.raises(SystemExit) as left:
            options_class().parseOptions([flag])
        assert not left.value.code
        said = capsys.readouterr()
        assert said.out.startswith(text)
        assert said.err == ""


def test_under_twistd_a_config_error_at_start_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], watch: Watch
) -> None:
    """twistd lets the exception of ``startService`` go up to the interpreter."""
    usual: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: usual.append(error))
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    options = RelayOptions()
    options.parent = usage.Options()
    options.parseOptions([])

    refused, mistake = ConfigError("The port is taken."), ValueError("a mistake of ours")
    sys.excepthook(ConfigError, refused, None)
    sys.excepthook(ValueError, mistake, None)

    assert capsys.readouterr().err == "seance-relay: The port is taken.\n"
    assert usual == [mistake]
    assert [event["sentence"] for event in watch.take()] == ["The port is taken."]


def test_outside_twistd_the_interpreter_is_left_alone() -> None:
    before = sys.excepthook
    relay_told()
    assert sys.excepthook is before
