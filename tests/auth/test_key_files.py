"""Key files: who may read them, and that none is ever lost."""

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


def test_a_key_is_its_owners_alone_and_its_public_part_everybodys(tmp_path: Path) -> None:
    path, key = tmp_path / "key", make_key()
    beside = write_key(path, key)
    assert beside == public_path(path) == tmp_path / "key.pub"
    assert (mode_of(path), mode_of(beside)) == (0o600, 0o644)
    assert json.loads(path.read_text()) == key.private_jwk()
    assert json.loads(beside.read_text()) == key.public_jwk()


def test_a_careless_umask_opens_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_key(tmp_path / "key", make_key())
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "key") == 0o600


def test_a_secret_has_no_public_part(tmp_path: Path) -> None:
    assert write_key(tmp_path / "key", make_secret()) is None
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert mode_of(tmp_path / "key") == 0o600


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_nothing_is_overwritten_and_nothing_half_done(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=r"exists already and is not overwritten"):
        write_key(tmp_path / "key", make_key())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="exists already"):
        write_key(tmp_path / "key", make_key())
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written \(No such file"):
        write_key(tmp_path / "nowhere" / "key", make_key())


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(key_files.os, "open", refuse)
    with pytest.raises(ConfigError, match="No space left"):
        write_key(tmp_path / "key", make_key())


def test_what_was_written_signs(tmp_path: Path) -> None:
    key = make_key()
    write_key(tmp_path / "key", key)
    assert signing_key_from_file(tmp_path / "key") == key


def test_a_key_in_pem_signs(tmp_path: Path) -> None:
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
def test_a_file_that_cannot_sign_is_a_sentence(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        signing_key_from_file(tmp_path / "key")


@pytest.mark.parametrize(
    ("make", "problem"),
    [(Path.mkdir, "Is a directory"), (os.mkfifo, "its writer did not finish")],
)
def test_what_is_no_file_is_a_sentence_at_once(make: object, problem: str, tmp_path: Path) -> None:
    make(tmp_path / "key")  # type: ignore[operator]
    with pytest.raises(ConfigError, match=problem):
        signing_key_from_file(tmp_path / "key")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\)\."):
        signing_key_from_file(tmp_path / "key")


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_who_else_may_read_is_seen(mode: int, is_open: bool, tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    (tmp_path / "key").chmod(mode)
    assert is_open_to_others((tmp_path / "key").stat()) is is_open
