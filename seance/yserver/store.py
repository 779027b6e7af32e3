"""Documents in one SQLite file, so that they outlive the process.

Each change is one row, committed before anybody is told of it; now and then a document's rows are
replaced by one that holds the whole document. In write-ahead mode a commit is a plain write that
the system has taken, so ``kill -9`` loses nothing; a power cut may cost the last moments, because
waiting for the disk at every keystroke would stop the reactor for milliseconds.

The file is locked while it is open: two servers on one file would each keep half of the changes.
``seance.yserver.documents`` is the only caller, from one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seance.errors import ConfigError

__all__ = ["Store"]

APPLICATION_ID = 0x5EA4CE
"""Says in the file's header that it is ours (SQLite, PRAGMA application_id)."""

FORMAT = 1
"""The layout of the file (SQLite, PRAGMA user_version)."""

COMPACT_ROWS = 500
"""A document's rows are put together when there are so many: opening it then takes milliseconds."""

COMPACT_BYTES = 4 * 1024 * 1024
"""Or when what was appended since comes to this and is more than the document itself."""


class Store:
    """One file of documents.

    Args:
        path: Where it is, or shall be.

    Raises:
        ConfigError: It cannot be opened, is something else, or is in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._appended: dict[str, tuple[int, int]] = {}
        with self._sentences():
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def names(self) -> set[str]:
        """The documents in the file."""
        return {name for (name,) in self._database.execute("SELECT DISTINCT name FROM updates")}

    def load(self, name: str) -> list[bytes]:
        """Return what was kept of a document, from the oldest to the newest."""
        rows = self._database.execute("SELECT update_v1 FROM updates WHERE name = ? ORDER BY id", (name,))
        updates = [update for (update,) in rows]
        self._appended[name] = len(updates), 0
        return updates

    def append(self, name: str, update: bytes) -> None:
        """Keep one change.

        Raises:
            sqlite3.Error: It was not kept; the disk may be full.
        """
        self._database.execute("INSERT INTO updates (name, update_v1) VALUES (?, ?)", (name, update))
        rows, size_bytes = self._appended.get(name, (0, 0))
        self._appended[name] = rows + 1, size_bytes + len(update)

    def wants_whole(self, name: str, document_bytes: int) -> bool:
        """Whether it is time to call ``replace`` for a document of about this size."""
        rows, appended_bytes = self._appended.get(name, (0, 0))
        return rows >= COMPACT_ROWS or appended_bytes > max(COMPACT_BYTES, document_bytes)

    def replace(self, name: str, update: bytes) -> None:
        """Keep a whole document instead of its changes.

        Raises:
            sqlite3.Error: Everything is as it was.
        """
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM updates WHERE name = ?", (name,))
            self._database.execute("INSERT INTO updates (name, update_v1) VALUES (?, ?)", (name, update))
        self._appended.pop(name, None)

    def close(self) -> None:
        """Let go of the file. Nothing else may be called after."""
        self._database.close()

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        application_id = run("PRAGMA application_id").fetchone()[0]
        is_new = not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not is_new and application_id != APPLICATION_ID:
            raise ConfigError(f"The store {str(self._path)!r} is a database of another program.")
        if not is_new and run("PRAGMA user_version").fetchone()[0] != FORMAT:
            raise ConfigError(f"The store {str(self._path)!r} was written by another version of Seance.")
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
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            why = "another process has it open" if "locked" in str(error) else str(error)
            raise ConfigError(f"The store {str(self._path)!r} cannot be opened: {why}.") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"The store {str(self._path)!r} is not a store: {error}.") from error
