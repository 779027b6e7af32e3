"""Watched files: only valid content replaces valid content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from seance.errors import ConfigError
from seance.net.files import CHECK_SECONDS, FileWatcher, WatchedFiles
from tests.conftest import Watch


class Texts:
    """Two files that are read together."""

    def __init__(self, folder: Path) -> None:
        self.one, self.other = folder / "one", folder / "other"
        self.one.write_text("1")
        self.other.write_text("2")
        self.reads = 0
        self.watched = WatchedFiles((self.one, self.other), self.read)

    def read(self) -> str:
        self.reads += 1
        try:
            text = self.one.read_text() + self.other.read_text()
        except OSError as error:
            raise ConfigError(f"It cannot be read ({error.strerror}).") from error
        if not text.isdigit():
            raise ConfigError("It is not a number.")
        return text


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    return Texts(tmp_path)


def test_files_are_read_when_they_are_loaded(texts: Texts) -> None:
    assert not texts.watched.is_loaded
    texts.watched.load()
    assert texts.watched.is_loaded
    assert texts.watched.content == "12"


def test_files_that_are_invalid_at_first_are_an_error(texts: Texts) -> None:
    texts.one.write_text("x")
    with pytest.raises(ConfigError, match="not a number"):
        texts.watched.load()
    assert not texts.watched.is_loaded


def test_files_that_have_not_changed_are_not_read(texts: Texts) -> None:
    texts.watched.load()
    assert not texts.watched.check()
    assert texts.reads == 1


def test_unchanged_files_are_read_by_force(texts: Texts) -> None:
    texts.watched.load()
    assert not texts.watched.check(force=True), "the content is the same"
    assert texts.reads == 2
    status = texts.one.stat()
    texts.one.write_text("9")
    os.utime(texts.one, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not texts.watched.check()
    assert texts.watched.check(force=True)
    assert texts.watched.content == "92"


@pytest.mark.parametrize("name", ["one", "other"])
def test_a_change_of_either_file_is_detected(texts: Texts, name: str) -> None:
    texts.watched.load()
    getattr(texts, name).write_text("34")
    assert texts.watched.check()
    assert "34" in texts.watched.content
    assert not texts.watched.check()


def test_a_replaced_file_with_the_same_size_and_time_is_detected(texts: Texts) -> None:
    texts.watched.load()
    status = texts.one.stat()
    new = texts.one.with_name("new")
    new.write_text("9")
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(texts.one)
    assert texts.watched.check()
    assert texts.watched.content == "92"


def test_a_changed_symbolic_link_is_detected(texts: Texts) -> None:
    target = texts.one.rename(texts.one.with_name("old"))
    texts.one.symlink_to(target)
    texts.watched.load()
    texts.one.with_name("new").write_text("7")
    texts.one.unlink()
    texts.one.symlink_to(texts.one.with_name("new"))
    assert texts.watched.check()
    assert texts.watched.content == "72"


@pytest.mark.parametrize("problem", ["gone", "nonsense"])
def test_valid_content_stays_until_other_valid_content_replaces_it(
    texts: Texts, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    texts.watched.load()
    if problem == "gone":
        texts.one.unlink()
    else:
        texts.one.write_text("nonsense")
    for _ in range(3):
        assert not texts.watched.check()
    assert texts.watched.content == "12"
    why = "It cannot be read (No such file or directory)" if problem == "gone" else "It is not a number"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{why}; the previous content stays in use."]
    texts.one.write_text("5")
    assert texts.watched.check()
    assert texts.watched.content == "52"


def test_a_watcher_checks_every_second_while_it_runs(texts: Texts) -> None:
    clock = Clock()
    changes: list[str] = []
    texts.watched.load()
    watcher = FileWatcher(clock, [texts.watched], lambda: changes.append(texts.watched.content))
    watcher.startService()
    texts.one.write_text("34")
    assert not changes
    clock.advance(CHECK_SECONDS)
    assert changes == ["342"]
    clock.advance(CHECK_SECONDS)
    assert changes == ["342"]
    watcher.stopService()
    texts.one.write_text("5")
    clock.advance(CHECK_SECONDS)
    assert changes == ["342"]
    assert not clock.getDelayedCalls()


def test_a_watcher_reads_immediately_on_reread(texts: Texts) -> None:
    changes: list[str] = []
    texts.watched.load()
    watcher = FileWatcher(Clock(), [texts.watched], lambda: changes.append(texts.watched.content))
    watcher.reread()
    assert texts.reads == 1, "the watcher was not started"
    watcher.startService()
    watcher.reread()
    assert texts.reads == 2
    assert changes == []
    texts.one.write_text("34")
    watcher.reread()
    assert changes == ["342"]
    watcher.stopService()


def test_a_watcher_without_files_has_no_timer(texts: Texts) -> None:
    clock = Clock()
    watcher = FileWatcher(clock, [], lambda: None)
    watcher.startService()
    assert not clock.getDelayedCalls()
    watcher.stopService()


def test_a_failure_of_on_change_is_logged(texts: Texts, watch: Watch) -> None:
    clock = Clock()
    texts.watched.load()
    watcher = FileWatcher(clock, [texts.watched], lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    watcher.startService()
    texts.one.write_text("34")
    clock.advance(CHECK_SECONDS)
    assert len(watch.take(ZeroDivisionError)) == 1
    watcher.stopService()
