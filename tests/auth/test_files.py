"""Tests of watched files: valid content is used until other valid content replaces it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from seance.auth.files import WatchedFile, key_file
from seance.errors import ConfigError
from tests.auth.tokens import ed_key, pem, public_pem, secret_key, write_jwks


def words(text: bytes) -> list[bytes]:
    if b"bad" in text:
        msg = "contains a bad word"
        raise ValueError(msg)
    return text.split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "words"
    path.write_text("one")
    return path


@pytest.fixture
def file(path: Path) -> WatchedFile[list[bytes]]:
    file = WatchedFile(path, lambda text, _: words(text), limit_bytes=100, what="word list")
    file.load()
    return file


def test_unchanged_file_is_not_read(file: WatchedFile[list[bytes]], path: Path) -> None:
    path.chmod(0)
    path.chmod(0o644)
    assert not file.check()
    assert file.content == [b"one"]


def test_changed_size_is_detected(file: WatchedFile[list[bytes]], path: Path) -> None:
    path.write_text("one two")
    assert file.check()
    assert file.content == [b"one", b"two"]
    assert not file.check()


def test_changed_time_is_detected(file: WatchedFile[list[bytes]], path: Path) -> None:
    path.write_text("two")
    os.utime(path, ns=(0, 1))
    assert file.check()
    assert file.content == [b"two"]


def test_replaced_file_is_detected(file: WatchedFile[list[bytes]], path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)
    assert file.check()
    assert file.content == [b"two"]


def test_changed_target_of_a_link_is_detected(tmp_path: Path, path: Path) -> None:
    """Kubernetes replaces mounted secrets in this way."""
    link = tmp_path / "link"
    link.symlink_to(path)
    file = WatchedFile(link, lambda text, _: words(text), limit_bytes=100, what="word list")
    file.load()
    (tmp_path / "other").write_text("two")
    (tmp_path / "new").symlink_to(tmp_path / "other")
    (tmp_path / "new").rename(link)
    assert file.check()
    assert file.content == [b"two"]


def test_equal_content_is_no_change(file: WatchedFile[list[bytes]], path: Path) -> None:
    path.write_text("  one")
    assert not file.check()


def test_bad_file_is_ignored_and_logged_once(
    file: WatchedFile[list[bytes]], path: Path, log: list[LogEvent]
) -> None:
    path.write_text("bad")
    assert [file.check() for _ in range(5)] == [False] * 5
    assert file.content == [b"one"]
    assert [(event["event"], event["problem"]) for event in log] == [
        ("file.kept", f"The word list {path} contains a bad word")
    ]
    path.write_text("one more")
    assert file.check()


def test_missing_file_is_ignored_and_logged_once(
    file: WatchedFile[list[bytes]], path: Path, log: list[LogEvent]
) -> None:
    path.unlink()
    assert [file.check() for _ in range(5)] == [False] * 5
    assert file.content == [b"one"]
    assert [event["problem"] for event in log] == [
        f"The word list {path} cannot be read (No such file or directory)"
    ]
    path.write_text("two")
    assert file.check()


@pytest.mark.parametrize("become", [Path.mkdir, os.mkfifo])
def test_path_that_is_no_longer_a_file_is_ignored(
    become: object, file: WatchedFile[list[bytes]], path: Path, log: list[LogEvent]
) -> None:
    path.unlink()
    become(path)  # type: ignore[operator]
    assert not file.check()
    assert file.content == [b"one"]
    assert len(log) == 1


def test_file_over_the_limit_is_ignored(
    file: WatchedFile[list[bytes]], path: Path, log: list[LogEvent]
) -> None:
    path.write_text("x" * 101)
    assert not file.check()
    assert log[0]["problem"].endswith("is longer than 100 bytes")
    path.write_text("x" * 100)
    assert file.check()


def test_reading_can_be_forced(file: WatchedFile[list[bytes]], path: Path) -> None:
    status = path.stat()
    path.write_text("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not file.check()
    assert file.check(force=True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("bad", r"^The word list .*/words contains a bad word\.$"),
        (None, r"^The word list .*/words cannot be read \(No such file or directory\)\.$"),
    ],
)
def test_bad_file_at_the_start_is_an_error(content: str | None, sentence: str, path: Path) -> None:
    path.unlink()
    if content is not None:
        path.write_text(content)
    file = WatchedFile(path, lambda text, _: words(text), limit_bytes=100, what="word list")
    with pytest.raises(ConfigError, match=sentence):
        file.load()


def test_private_key_that_others_can_read_is_logged(tmp_path: Path, log: list[LogEvent]) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    path.chmod(0o640)
    key_file(path).load()
    assert [event["event"] for event in log] == ["auth.key_exposed"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_readable_public_key_is_not_logged(mode: int, tmp_path: Path, log: list[LogEvent]) -> None:
    (tmp_path / "key").write_bytes(public_pem(ed_key().signing))
    (tmp_path / "key").chmod(mode)
    key_file(tmp_path / "key").load()
    assert log == []


def test_shared_secret_that_others_can_read_is_logged(tmp_path: Path, log: list[LogEvent]) -> None:
    path = write_jwks(tmp_path / "keys", secret_key())
    path.chmod(0o604)
    key_file(path).load()
    assert [event["event"] for event in log] == ["auth.key_exposed"]


def test_only_the_verifying_part_is_kept(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(pem(ed_key().signing))
    (tmp_path / "key").chmod(0o600)
    file = key_file(tmp_path / "key")
    file.load()
    assert [key.signing for key in file.content] == [None]
