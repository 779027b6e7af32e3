"""Tests of the agent's identity key: its location, its permissions, and concurrent creation."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from seance.auth import agent_key
from seance.auth.agent_key import AgentKey, agent_identity, key_from_file, state_folder
from seance.errors import ConfigError
from tests.tools import ROOT

HOST = "relay.example:8080"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def auto(home: Path, **environment: str) -> AgentKey:
    key = agent_identity("auto", {"HOME": str(home), **environment}, "linux")
    assert key is not None
    return key


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        agent_identity(str(path))
    assert str(path) in caught.value.message
    return caught.value.message


def test_first_start_creates_the_key_and_later_starts_use_it(tmp_path: Path) -> None:
    first, second = auto(tmp_path), auto(tmp_path)
    assert first.identity(HOST) == second.identity(HOST)
    assert [path.name for path in (tmp_path / ".local/state/seance").iterdir()] == ["agent-key"]


def test_key_and_folder_are_private_with_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        auto(tmp_path)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / ".local/state/seance") == 0o700
    assert mode_of(tmp_path / ".local/state/seance/agent-key") == 0o600


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"HOME": "/home/ann"}, "/home/ann/.local/state/seance"),
        ("linux", {"HOME": "/home/ann", "XDG_STATE_HOME": "/state"}, "/state/seance"),
        ("linux", {"HOME": "/home/ann", "XDG_STATE_HOME": "relative"}, "/home/ann/.local/state/seance"),
        ("freebsd14", {"HOME": "/home/ann"}, "/home/ann/.local/state/seance"),
        ("darwin", {"HOME": "/Users/ann"}, "/Users/ann/Library/Application Support/Seance"),
        ("win32", {"LOCALAPPDATA": "/AppData/Local"}, "/AppData/Local/Seance"),
        ("win32", {}, str(Path.home() / "AppData" / "Local" / "Seance")),
    ],
)
def test_state_folder_follows_the_platform(platform: str, environment: dict[str, str], folder: str) -> None:
    assert state_folder(environment, platform) == Path(folder)


def test_none_returns_no_identity() -> None:
    assert agent_identity("none") is None


def test_named_file_is_created_and_used(tmp_path: Path) -> None:
    path = tmp_path / "my key"
    made, read = agent_identity(str(path)), agent_identity(str(path))
    assert made is not None
    assert read is not None
    assert made.identity(HOST) == read.identity(HOST)
    assert mode_of(path) == 0o600


def test_file_that_cannot_be_created_is_a_config_error(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "nowhere" / "key")


def test_threads_that_start_together_share_one_key(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / str(number)
        with ThreadPoolExecutor(8) as pool:
            keys = list(pool.map(key_from_file, [path] * 8))
        assert len({key.identity(HOST) for key in keys}) == 1
    assert len(list(tmp_path.iterdir())) == 20, "a temporary file was left"


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    say = "from seance.auth.agent_key import *; print(agent_identity().identity('h'))"
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", say], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert len(said) == 1
    assert len(said.pop().strip()) == 43


def test_key_created_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another agent creates the key between the failed read and the creation."""
    path = tmp_path / "key"
    created: list[AgentKey] = []
    create = agent_key._create

    def create_second(where: Path) -> None:
        monkeypatch.setattr(agent_key, "_create", create)
        created.append(key_from_file(where))
        create(where)

    monkeypatch.setattr(agent_key, "_create", create_second)
    assert key_from_file(path).identity(HOST) == created[0].identity(HOST)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o610])
def test_key_that_others_can_access_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    key_from_file(path)
    path.chmod(mode)
    assert "others" in refused(path)


def test_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    key_from_file(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "another user" in refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"seance-agent-key-v1 ",
        b"seance-agent-key-v1 " + b"A" * 42,
        b"seance-agent-key-v1 " + b"A" * 44,
        b"seance-agent-key-v1 " + b"A" * 42 + b"B",
        b"seance-agent-key-v2 " + b"A" * 43,
        b"A" * 43,
        b"\xff" * 64,
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        b"seance-agent-key-v1 " + b"A" * 43 + b"\n\n",
        b"x" * 4096,
    ],
)
def test_file_without_a_key_is_refused_and_not_changed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    refused(path)
    assert path.read_bytes() == content


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "directory" in refused(tmp_path)


def test_end_of_the_line_may_differ(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = key_from_file(path)
    for end in (b"", b"\r\n"):
        path.write_bytes(path.read_bytes().rstrip() + end)
        assert key_from_file(path).identity(HOST) == before.identity(HOST)


@pytest.mark.parametrize("kind", ["file in the way", "no home"])
def test_unwritable_state_folder_gives_a_temporary_key_and_a_warning(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        events.append(event)

    globalLogPublisher.addObserver(note)  # type: ignore[arg-type]  # a function will do
    try:
        if kind == "no home":

            def home() -> Path:
                msg = "Could not determine home directory."
                raise RuntimeError(msg)

            monkeypatch.setattr(Path, "home", home)
            key = agent_identity("auto", {}, "linux")
        else:
            (tmp_path / ".local").write_text("")
            key = auto(tmp_path)
    finally:
        globalLogPublisher.removeObserver(note)  # type: ignore[arg-type]
    assert key is not None
    assert key.identity(HOST) == key.identity(HOST)
    assert [event["event"] for event in events] == ["identity.not_kept"]


def test_bad_key_in_the_state_folder_is_an_error(tmp_path: Path) -> None:
    auto(tmp_path)
    (tmp_path / ".local/state/seance/agent-key").write_bytes(b"nonsense")
    with pytest.raises(ConfigError):
        auto(tmp_path)


def test_identity_differs_for_each_relay() -> None:
    key = AgentKey(b"k" * 32)
    hosts = ["relay.example", "relay.example:8080", "other.example", "[::1]:8080"]
    assert len({key.identity(host) for host in hosts}) == len(hosts)
    assert key.identity("Relay.Example") == key.identity("relay.example")
    assert key.announce("relay.example") == "v1.Yu_T51FO8OEFIEGJHCcwnZpHpvMvGA90_FHQv24QjS8"


def test_secret_is_not_in_repr() -> None:
    key = AgentKey(b"k" * 32)
    assert "kkk" not in repr(key)
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("root", [b"", b"short", b"x" * 33])
def test_root_of_another_length_is_rejected(root: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AgentKey(root)
