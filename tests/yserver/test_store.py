"""Documents in a file: updates kept, files refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from seance.errors import ConfigError
from seance.yserver.store import FORMAT, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pad.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def test_updates_come_back_in_order_and_by_name(path: Path) -> None:
    with closing(Store(path)) as store:
        for name, update in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("ü/%20", b"4")):
            store.append(name, update)
    with closing(Store(path)) as store:
        assert store.names() == {"a", "b", "ü/%20"}
        assert store.load("a") == [b"1", b"3"]
        assert store.load("ü/%20") == [b"4"]
        assert store.load("none") == []


def test_updates_of_a_document_can_be_replaced_by_one(store: Store) -> None:
    store.append("a", b"1")
    store.append("a", b"2")
    store.append("b", b"3")
    store.replace("a", b"12")
    assert store.load("a") == [b"12"]
    assert store.load("b") == [b"3"]


def test_failed_replacement_changes_nothing(store: Store) -> None:
    store.append("a", b"1")
    with pytest.raises(sqlite3.Error):
        store.replace("a", None)  # type: ignore[arg-type]  # NOT NULL fails, as a full disk does
    assert store.load("a") == [b"1"]
    store.append("a", b"2")


def test_file_in_use_is_refused(path: Path, store: Store) -> None:
    store.append("a", b"1")
    with pytest.raises(ConfigError, match="another process has it open"):
        Store(path)


def test_database_of_another_program_is_refused_and_not_changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE precious (x)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_store_of_a_later_version_is_refused(path: Path) -> None:
    Store(path).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(ConfigError, match="another version of Seance"):
        Store(path)


def test_file_that_is_no_database_is_refused_and_not_changed(path: Path) -> None:
    path.write_text("My diary. " * 100)
    with pytest.raises(ConfigError, match="is not a store"):
        Store(path)
    assert path.read_text().startswith("My diary.")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store(tmp_path / "nowhere" / "pad.sqlite")
