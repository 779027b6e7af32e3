"""The precedence of flag, environment, config file and default, and the messages for invalid values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from seance.core.settings import AgentSettings, RelaySettings
from seance.errors import ConfigError
from seance.options.config import agent_settings, relay_settings

ROOM = {"room": ["r"]}


def agent(
    flags: Mapping[str, Sequence[str]] | None = None, environment: Mapping[str, str] | None = None
) -> AgentSettings:
    return agent_settings(ROOM if flags is None else flags, environment or {})


def write(folder: Path, text: str) -> str:
    path = folder / "seance.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_without_any_source_the_settings_are_the_defaults() -> None:
    assert relay_settings({}, {}) == RelaySettings()
    assert agent() == AgentSettings(room="r")


@pytest.mark.parametrize(
    ("sources", "source"),
    [
        ("flag variable original file", "flag"),
        ("variable original file", "variable"),
        ("original file", "original"),
        ("file", "file"),
    ],
)
def test_a_flag_precedes_the_environment_and_the_environment_precedes_the_file(
    sources: str, source: str, tmp_path: Path
) -> None:
    path = write(tmp_path, '[agent]\nroom = "file"\n') if "file" in sources else ""
    flags = {"room": ["flag"]} if "flag" in sources else {}
    environment = {"SEANCE_ROOM": "variable", "ROOM_ID": "original"}
    environment = {name: room for name, room in environment.items() if room in sources.split()}
    assert agent(flags, environment | {"SEANCE_CONFIG": path}).room == source


def test_a_file_may_have_every_type_of_value(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [relay]
        listen = ["tcp:1:interface=127.0.0.1", "[::1]:2"]
        head-seconds = 2
        upgrade-seconds = 2.5
        early-bytes = "1KiB"
        [agent]
        room = "r"
        keep-host = true
        local = 99
        """,
    )
    assert relay_settings({"config": [path]}, {}) == RelaySettings(
        listen=("tcp:1:interface=127.0.0.1", "tcp:2:interface=\\:\\:1"),
        head_seconds=2.0,
        upgrade_seconds=2.5,
        early_bytes=1024,
    )
    assert agent({"config": [path]}) == AgentSettings(room="r", keep_host=True, local="localhost:99")


def test_of_several_flags_the_last_one_counts() -> None:
    assert agent({"room": ["a", "b"]}).room == "b"


def test_a_repeatable_flag_collects_its_values() -> None:
    assert relay_settings({"listen": ["tcp:1", "tcp:2"]}, {}).listen == ("tcp:1", "tcp:2")


def test_a_repeatable_variable_is_split_at_spaces() -> None:
    assert relay_settings({}, {"SEANCE_LISTEN": " tcp:1  tcp:2 "}).listen == ("tcp:1", "tcp:2")


def test_an_empty_variable_counts_as_unset() -> None:
    assert agent(ROOM, {"SEANCE_ROOM": "", "SEANCE_RELAY": "", "SEANCE_CONFIG": ""}) == AgentSettings(
        room="r"
    )


def test_a_flag_overrides_yes_in_the_environment_with_no() -> None:
    assert agent(ROOM, {"SEANCE_KEEP_HOST": "yes"}).keep_host
    assert not agent(ROOM | {"keep-host": ["no"]}, {"SEANCE_KEEP_HOST": "yes"}).keep_host


@pytest.mark.parametrize(
    ("environment", "local"),
    [
        ({"LOCAL_HOST": "10.0.0.1", "LOCAL_PORT": "99"}, "10.0.0.1:99"),
        ({"LOCAL_HOST": "10.0.0.1"}, "10.0.0.1:1234"),
        ({"LOCAL_PORT": "99"}, "localhost:99"),
        ({"LOCAL_HOST": "::1"}, "[::1]:1234"),
        ({"LOCAL_HOST": "10.0.0.1", "SEANCE_LOCAL": "unix:/x"}, "unix:/x"),
    ],
)
def test_the_variables_without_the_seance_prefix_set_the_same_options(
    environment: dict[str, str], local: str
) -> None:
    settings = agent({}, environment | {"ROOM_ID": "test-room", "RELAY_URL": "ws://relay.example:1"})
    assert (settings.room, settings.relay, settings.local) == ("test-room", "ws://relay.example:1", local)


def test_a_bare_port_means_both_loopback_addresses() -> None:
    settings = relay_settings({"listen": ["9000"]}, {})
    assert (settings.listen, settings.port) == ((), 9000)


def test_a_bare_port_cannot_be_combined_with_other_endpoints() -> None:
    with pytest.raises(ConfigError, match="cannot be combined with other endpoints"):
        relay_settings({"listen": ["9000", "tcp:1"]}, {})


def test_the_pad_is_a_page_only_if_the_flag_is_on() -> None:
    assert relay_settings({"pad": ["no"]}, {}).pad is None
    page = relay_settings({"pad": ["yes"]}, {}).pad
    assert page is not None
    assert b"<html" in page.body.lower()


@pytest.mark.parametrize(
    ("flags", "environment", "content", "message"),
    [
        ({}, {}, "", "--room is missing: set the room to serve with --room NAME, the environment"),
        ({"room": ["a b"]}, {}, "", "--room: The room name 'a b' is not usable"),
        (ROOM, {"LOCAL_PORT": "x"}, "", "LOCAL_PORT: The local server 'localhost:x' is not a valid address"),
        (
            ROOM,
            {"LOCAL_HOST": "a b", "LOCAL_PORT": "1"},
            "",
            "LOCAL_HOST and LOCAL_PORT: The local server 'a b:1' is not a",
        ),
        (ROOM, {"RELAY_URL": "relay"}, "", "RELAY_URL: The relay URL 'relay' is not a WebSocket address"),
        (ROOM, {"SEANCE_STREAMS": "many"}, "", "SEANCE_STREAMS: 'many' is not a count"),
        (ROOM, {}, "[agent]\nstreams = 0", "streams in [agent] of FILE: '0' is not a count"),
        (
            ROOM,
            {},
            "[agent]\nstreams = true",
            "streams in [agent] of FILE: True is not valid; write a string",
        ),
        (ROOM, {}, "[agent]\nstreams = [1]", "streams in [agent] of FILE: [1] is not valid"),
        (
            ROOM,
            {},
            '[agent]\nkeep-host = "yes"',
            "keep-host in [agent] of FILE: 'yes' is not valid; write true or",
        ),
        (
            ROOM,
            {},
            "[agent]\nlocale = 1",
            "--config: FILE has 'locale' in [agent], which is not an option of the agent",
        ),
        (ROOM, {}, "[agent]\nkeep_host = true", "--config: FILE has 'keep_host' in [agent]"),
        (ROOM, {}, "[relay]\nroom = 1", "--config: FILE has 'room' in [relay]"),
        (ROOM, {}, "[agnet]\nroom = 1", "--config: FILE has 'agnet' at top level"),
        (ROOM, {}, "room = 1", "--config: FILE has 'room' at top level"),
        (ROOM, {}, "agent = 1", "--config: FILE has 'agent' at top level"),
        (ROOM, {}, "[agent", "--config: FILE is not TOML"),
        (ROOM, {}, "\udcff", "--config: FILE is not TOML"),
    ],
)
def test_an_invalid_value_is_reported_in_one_message(
    flags: dict[str, list[str]], environment: dict[str, str], content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "FILE"
    path.write_text(content, "utf-8", "surrogateescape")
    with pytest.raises(ConfigError) as raised:
        agent_settings(flags | {"config": [str(path)]}, environment)
    text = raised.value.message.replace(str(path), "FILE")
    assert text.startswith(message)
    assert text.endswith(".")
    assert "\n" not in text


def test_a_missing_config_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml cannot be read \(No such file or directory\)"):
        relay_settings({"config": [str(tmp_path / "nothing.toml")]}, {})


def test_the_config_flag_precedes_the_config_variable(tmp_path: Path) -> None:
    path = write(tmp_path, "[relay]\nstreams-per-agent = 7\n")
    assert relay_settings({"config": [path]}, {"SEANCE_CONFIG": "/no/such/file"}).streams_per_agent == 7
