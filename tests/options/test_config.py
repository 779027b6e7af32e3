"""Who wins among flag, environment, file and default, and the one sentence for what is wrong."""

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


def test_without_a_word_the_settings_are_their_defaults() -> None:
    assert relay_settings({}, {}) == RelaySettings()
    assert agent() == AgentSettings(room="r")


@pytest.mark.parametrize(
    ("sources", "winner"),
    [
        ("flag variable original file", "flag"),
        ("variable original file", "variable"),
        ("original file", "original"),
        ("file", "file"),
    ],
)
def test_flag_beats_environment_beats_file(sources: str, winner: str, tmp_path: Path) -> None:
    path = write(tmp_path, '[agent]\nroom = "file"\n') if "file" in sources else ""
    flags = {"room": ["flag"]} if "flag" in sources else {}
    environment = {"SEANCE_ROOM": "variable", "ROOM_ID": "original"}
    environment = {name: room for name, room in environment.items() if room in sources.split()}
    assert agent(flags, environment | {"SEANCE_CONFIG": path}).room == winner


def test_every_kind_of_value_may_stand_in_a_file(tmp_path: Path) -> None:
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


def test_the_last_of_several_flags_wins() -> None:
    assert agent({"room": ["a", "b"]}).room == "b"


def test_a_repeatable_flag_adds_up() -> None:
    assert relay_settings({"listen": ["tcp:1", "tcp:2"]}, {}).listen == ("tcp:1", "tcp:2")


def test_a_repeatable_variable_holds_words() -> None:
    assert relay_settings({}, {"SEANCE_LISTEN": " tcp:1  tcp:2 "}).listen == ("tcp:1", "tcp:2")


def test_an_empty_variable_is_none() -> None:
    assert agent(ROOM, {"SEANCE_ROOM": "", "SEANCE_RELAY": "", "SEANCE_CONFIG": ""}) == AgentSettings(
        room="r"
    )


def test_a_flag_in_the_environment_can_be_switched_off_again() -> None:
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
def test_the_variables_of_the_original_work(environment: dict[str, str], local: str) -> None:
    told = agent({}, environment | {"ROOM_ID": "test-room", "RELAY_URL": "ws://relay.example:1"})
    assert (told.room, told.relay, told.local) == ("test-room", "ws://relay.example:1", local)


def test_a_bare_port_means_both_loopback_addresses() -> None:
    told = relay_settings({"listen": ["9000"]}, {})
    assert (told.listen, told.port) == ((), 9000)


def test_a_bare_port_stands_alone() -> None:
    with pytest.raises(ConfigError, match="cannot stand beside other endpoints"):
        relay_settings({"listen": ["9000", "tcp:1"]}, {})


def test_the_pad_is_a_page_if_it_is_asked_for() -> None:
    assert relay_settings({"pad": ["no"]}, {}).pad is None
    page = relay_settings({"pad": ["yes"]}, {}).pad
    assert page is not None
    assert b"<html" in page.body.lower()


@pytest.mark.parametrize(
    ("flags", "environment", "content", "beginning"),
    [
        ({}, {}, "", "--room is missing: say the room to serve"),
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
        (ROOM, {}, "[agent]\nstreams = true", "streams in [agent] of FILE: True will not do; write a string"),
        (ROOM, {}, "[agent]\nstreams = [1]", "streams in [agent] of FILE: [1] will not do"),
        (
            ROOM,
            {},
            '[agent]\nkeep-host = "yes"',
            "keep-host in [agent] of FILE: 'yes' will not do; write true or",
        ),
        (
            ROOM,
            {},
            "[agent]\nlocale = 1",
            "--config: FILE has 'locale' in [agent], which is no option of the agent",
        ),
        (ROOM, {}, "[agent]\nkeep_host = true", "--config: FILE has 'keep_host' in [agent]"),
        (ROOM, {}, "[relay]\nroom = 1", "--config: FILE has 'room' in [relay]"),
        (ROOM, {}, "[agnet]\nroom = 1", "--config: FILE has 'agnet' at its top"),
        (ROOM, {}, "room = 1", "--config: FILE has 'room' at its top"),
        (ROOM, {}, "agent = 1", "--config: FILE has 'agent' at its top"),
        (ROOM, {}, "[agent", "--config: FILE is not TOML"),
        (ROOM, {}, "\udcff", "--config: FILE is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    flags: dict[str, list[str]], environment: dict[str, str], content: str, beginning: str, tmp_path: Path
) -> None:
    path = tmp_path / "FILE"
    path.write_text(content, "utf-8", "surrogateescape")
    with pytest.raises(ConfigError) as refused:
        agent_settings(flags | {"config": [str(path)]}, environment)
    sentence = refused.value.sentence.replace(str(path), "FILE")
    assert sentence.startswith(beginning)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml cannot be read \(No such file or directory\)"):
        relay_settings({"config": [str(tmp_path / "nothing.toml")]}, {})


def test_a_file_is_named_by_the_flag_rather_than_the_variable(tmp_path: Path) -> None:
    path = write(tmp_path, "[relay]\nstreams-per-agent = 7\n")
    assert relay_settings({"config": [path]}, {"SEANCE_CONFIG": "/no/such/file"}).streams_per_agent == 7
