"""The documents of one server: opened when somebody comes, kept in a store or for the process.

Between ``seance.yserver.websocket``, which knows connections, and ``seance.yserver.document``,
which knows one document. Says who may not come in, and sees to it that what was written is
kept. Without a store a document that was written into stays in memory; with one it goes to disk
when the last connection leaves. A document that stayed empty is forgotten in either case, so
visitors who only look around do not use up the names.
"""

from __future__ import annotations

import sqlite3
from functools import partial

from twisted.logger import Logger

from seance.errors import Refusal
from seance.yserver.document import Connection, Document
from seance.yserver.limits import YServerLimits
from seance.yserver.store import Store

__all__ = ["Documents"]


class Documents:
    """Every document of a server, by name.

    Args:
        limits: The server's.
        store: Where documents are kept, or None to keep them for the process.
    """

    _log = Logger()

    def __init__(self, limits: YServerLimits, store: Store | None = None) -> None:
        self._limits = limits
        self._store = store
        self._open: dict[str, Document] = {}
        self._stored = set() if store is None else store.names()
        self._unkept: set[str] = set()

    @property
    def connection_count(self) -> int:
        """Connections in all documents."""
        return sum(document.connection_count for document in self._open.values())

    def check(self, name: str) -> None:
        """Say whether a connection for ``name`` may come in.

        Raises:
            Refusal: It may not, and why: the answer before the 101.
        """
        if len(name.encode()) > self._limits.name_bytes:
            sentence = f"The name of a document has at most {self._limits.name_bytes} bytes."
            raise Refusal(414, sentence, code="name_too_long")
        if self.connection_count >= self._limits.clients:
            sentence = "This server has as many clients as it takes; try again later."
            raise Refusal(503, sentence, code="too_many_clients")
        names = self._open.keys() | self._stored
        if name not in names and len(names) >= self._limits.documents:
            sentence = f"This server keeps {len(names)} documents and takes no new ones."
            raise Refusal(503, sentence, code="too_many_documents")

    def join(self, name: str, connection: Connection) -> Document:
        """Bring a connection into a document, which is opened if need be. Call ``check`` before."""
        document = self._open.get(name)
        if document is None:
            kept = self._store.load(name) if self._store is not None and name in self._stored else []
            document = self._open[name] = Document(self._limits, partial(self._keep, name), kept)
        document.join(connection)
        return document

    def leave(self, name: str, connection: Connection) -> None:
        """Take a connection out of its document."""
        document = self._open[name]
        document.leave(connection)
        if document.connection_count:
            return
        if self._store is not None and not document.is_empty:
            self._keep_whole(name, document)
        if document.is_empty or (self._store is not None and name not in self._unkept):
            del self._open[name]

    def close(self) -> None:
        """Put everything away and let go of the store."""
        if self._store is None:
            return
        for name, document in self._open.items():
            if not document.is_empty:
                self._keep_whole(name, document)
        self._store.close()

    def _keep(self, name: str, update: bytes) -> None:
        if self._store is None:
            return
        document = self._open[name]
        if name in self._unkept or self._store.wants_whole(name, document.size_bytes):
            self._keep_whole(name, document)
            return
        try:
            self._store.append(name, update)
        except sqlite3.Error:
            self._note_unkept(name)
        else:
            self._stored.add(name)

    def _keep_whole(self, name: str, document: Document) -> None:
        store = self._store
        if store is None:
            return
        try:
            store.replace(name, document.state())
        except sqlite3.Error:
            self._note_unkept(name)
        else:
            self._stored.add(name)
            self._unkept.discard(name)

    def _note_unkept(self, name: str) -> None:
        """Go on from memory; the next change tries to keep the whole document again."""
        if name not in self._unkept:
            self._unkept.add(name)
            self._log.failure(
                "A document cannot be written to the store; it is kept in memory meanwhile",
                event="yserver.store_failed",
            )
