"""Tests of key files: permissions, and that no file is overwritten."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from seance.auth import key_files
from seance.auth.key_files import is_open_to_others, public_path, signing_key_from_file, write_key
from seance.auth.keys import make_key, make_secret
from seance.errors import ConfigError
from tests.auth.tokens import ed_key, es_private, pem, public_pem


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_private_key_is_private_and_public_key_is_readable(tmp_path: Path) -> None:
    path, key = tmp_path / "key", make_key()
    beside = write_key(path, key)
    assert beside == public_path(path) == tmp_path / "key.pub"
    assert (mode_of(path), mode_of(beside)) == (0o600, 0o644)
    assert json.loads(path.read_text()) == key.private_jwk()
    assert json.loads(beside.read_text()) == key.public_jwk()


def test_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_key(tmp_path / "key", make_key())
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "key") == 0o600


def test_secret_has_no_public_file(tmp_path: Path) -> None:
    assert write_key(tmp_path / "key", make_secret()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert mode_of(tmp_path / "key") == 0o600


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_existing_files_are_kept_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=r"exists already and is not overwritten"):
        write_key(tmp_path / "key", make_key())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="exists already"):
        write_key(tmp_path / "key", make_key())
    assert not (tmp_path / "elsewhere").exists()


def test_missing_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written \(No such file"):
        write_key(tmp_path / "nowhere" / "key", make_key())


def test_full_disk_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(key_files.os, "open", refuse)
    with pytest.raises(ConfigError, match="No space left"):
        write_key(tmp_path / "key", make_key())


def test_written_key_can_sign(tmp_path: Path) -> None:
    key = make_key()
    write_key(tmp_path / "key", key)
    assert signing_key_from_file(tmp_path / "key") == key


def test_pem_key_can_sign(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(pem(es_private()))
    assert signing_key_from_file(tmp_path / "key").signing is not None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"?", r"key is not JSON\."),
        (public_pem(es_private()), "contains only a public key"),
        (b'{"keys": []}', "0 keys"),
        (json.dumps({"keys": [ed_key().private_jwk(), ed_key("b").private_jwk()]}).encode(), "2 keys"),
        (b" " * 65537, "longer than 65536 bytes"),
    ],
)
def test_file_without_one_signing_key_is_a_config_error(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        signing_key_from_file(tmp_path / "key")


@pytest.mark.parametrize(
    ("make", "problem"),
    [(Path.mkdir, "Is a directory"), (os.mkfifo, "its writer did not finish")],
)
def test_folder_or_pipe_is_a_config_error(make: object, problem: str, tmp_path: Path) -> None:
    make(tmp_path / "key")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=problem):
        signing_key_from_file(tmp_path / "key")


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)\."):
        signing_key_from_file(tmp_path / "key")


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_access_of_others_is_detected(mode: int, is_open: bool, tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "key").chmod(mode)
    assert is_open_to_others((tmp_path / "key").stat()) is is_open
