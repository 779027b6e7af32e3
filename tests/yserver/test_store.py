"""Documents in a file: what is kept, what is put together, and which files are not taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from seance.errors import ConfigError
from seance.yserver.store import COMPACT_BYTES, COMPACT_ROWS, FORMAT, Store


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
        assert store.load("nobody") == []


def test_a_document_can_be_put_together(store: Store) -> None:
    store.append("a", b"1")
    store.append("a", b"2")
    store.append("b", b"3")
    store.replace("a", b"12")
    assert store.load("a") == [b"12"]
    assert store.load("b") == [b"3"]


def test_many_rows_ask_for_it(store: Store) -> None:
    for _ in range(COMPACT_ROWS):
        assert not store.wants_whole("a", 10)
        store.append("a", b"x")
    assert store.wants_whole("a", 10)
    store.replace("a", b"x")
    assert not store.wants_whole("a", 10)


def test_many_bytes_ask_for_it_once_they_are_more_than_the_document(store: Store) -> None:
    store.append("a", bytes(COMPACT_BYTES + 1))
    assert store.wants_whole("a", 10)
    assert not store.wants_whole("a", 2 * COMPACT_BYTES)


def test_rows_of_an_earlier_run_count_too(path: Path) -> None:
    with closing(Store(path)) as store:
        for _ in range(COMPACT_ROWS):
            store.append("a", b"x")
    with closing(Store(path)) as store:
        store.load("a")
        assert store.wants_whole("a", 10)


def test_a_failed_replacement_changes_nothing(store: Store) -> None:
    store.append("a", b"1")
    with pytest.raises(sqlite3.Error):
        store.replace("a", None)  # type: ignore[arg-type]  # NOT NULL stands for a full disk
    assert store.load("a") == [b"1"]
    store.append("a", b"2")


def test_a_file_in_use_is_refused(path: Path, store: Store) -> None:
    store.append("a", b"1")
    with pytest.raises(ConfigError, match="another process has it open"):
        Store(path)


def test_a_database_of_somebody_else_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE precious (x)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_a_store_of_a_later_version_is_refused(path: Path) -> None:
    Store(path).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(ConfigError, match="another version of Seance"):
        Store(path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("My diary. " * 100)
    with pytest.raises(ConfigError, match="is not a store"):
        Store(path)
    assert path.read_text().startswith("My diary.")


def test_a_place_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store(tmp_path / "nowhere" / "pad.sqlite")
