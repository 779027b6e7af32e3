"""Documents in one SQLite file, or in memory.

Each change is one row, committed before any client sees it. In write-ahead mode a commit ends when the
operating system has the data: ``kill -9`` loses nothing, and a power cut may lose the last changes. Waiting
for the disk at each keystroke would block the reactor for milliseconds.

The file is locked while it is open, because two servers on one file would each keep half of the changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seance.errors import ConfigError

__all__ = ["Store"]

APPLICATION_ID = 0x5EA4CE
"""Identifies files of this program (SQLite, PRAGMA application_id)."""

FORMAT = 1
"""Version of the tables (SQLite, PRAGMA user_version)."""


class Store:
    """The documents in the file ``path``, which is created if it does not exist; None keeps them in memory.

    Raises:
        ConfigError: The file cannot be opened, belongs to another program, or is in use.
    """

    def __init__(self, path: Path | None = None) -> None:
        with _explained(path):
            self._database = sqlite3.connect(path or ":memory:", timeout=0, isolation_level=None)
            try:
                self._prepare(path)
            except BaseException:
                self._database.close()
                raise

    def names(self) -> set[str]:
        """Return the names of all documents."""
        return {name for (name,) in self._database.execute("SELECT DISTINCT name FROM updates")}

    def load(self, name: str) -> list[bytes]:
        """Return the updates of a document, the oldest first."""
        rows = self._database.execute("SELECT update_v1 FROM updates WHERE name = ? ORDER BY id", (name,))
        return [update for (update,) in rows]

    def append(self, name: str, update: bytes) -> None:
        """Add one update to a document.

        Raises:
            sqlite3.Error: It was not written; the disk may be full.
        """
        self._database.execute("INSERT INTO updates (name, update_v1) VALUES (?, ?)", (name, update))

    def replace(self, name: str, update: bytes) -> None:
        """Replace all updates of a document by one.

        Raises:
            sqlite3.Error: It was not written; the old updates are still there.
        """
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM updates WHERE name = ?", (name,))
            self.append(name, update)

    def close(self) -> None:
        """Close the file; no other method may be called afterwards."""
        self._database.close()

    def _prepare(self, path: Path | None) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        is_new = not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not is_new and run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise ConfigError(f"The store {str(path)!r} is a database of another program; name another file.")
        if not is_new and run("PRAGMA user_version").fetchone()[0] != FORMAT:
            raise ConfigError(
                f"The store {str(path)!r} was written by another version of Seance; name another file."
            )
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        if is_new:
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {FORMAT}")
            run("CREATE TABLE updates (id INTEGER PRIMARY KEY, name TEXT NOT NULL, update_v1 BLOB NOT NULL)")
            run("CREATE INDEX updates_by_name ON updates (name, id)")
        run("COMMIT")


@contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        why = "another process has it open" if "locked" in str(error) else str(error)
        raise ConfigError(f"The store {str(path)!r} cannot be opened: {why}.") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"The store {str(path)!r} is not a store: {error}.") from error
