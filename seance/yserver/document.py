"""One shared document and the connections that edit it.

The document and the awareness states are pycrdt's. This module distributes them, writes each change to the
store before any connection sees it, and limits what a client can make of them. It has no socket and no
clock: a connection is any object with ``send_message``.

pycrdt is written in Rust, and an update made by a hostile client can make it panic, immediately or at a
later update of another client (found by fuzzing 0.14.13). After a panic the document is opened again from
the store, and the connection that sent the update is closed.

Use it from one thread only: pycrdt binds a document to the thread that made it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Protocol

from pycrdt import Awareness, Doc
from twisted.logger import Logger

from seance.errors import RemoteProtocolError
from seance.yserver.messages import (
    MAX_STATES,
    AwarenessUpdate,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode,
    encode,
)
from seance.yserver.store import Store

__all__ = ["REOPENED", "Connection", "Document", "YServerLimits"]

REOPENED = "document_reopened"
"""Code of the error after which a client may connect again: its message was lost."""

COMPACT_ROWS = 500
"""Rows of one document in the store before they are replaced by one row."""

PENDING_SHARE = 4
"""Updates that change nothing may take a quarter of ``document_bytes`` before they are dropped."""

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class YServerLimits:
    """The limits of a ``YServer``.

    Attributes:
        clients: Connections at a time; one more is answered 503.
        documents: Documents, open or stored; a new name beyond that is answered 503.
        document_bytes: Size of one document as an update. The state of a text is 1 to 3 times its length
            (docs/sources.md), so this is a text of some ten thousand pages. Yjs needs several times that in
            memory.
        message_bytes: Size of one WebSocket message. Sync step 2 is one message, so a whole document fits.
        queued_bytes: Size of the queue for a client while its socket is full. A client that falls further
            behind is disconnected; stock clients connect again and get what they miss in one message.
    """

    clients: int = 256
    documents: int = 64
    document_bytes: int = 32 * MIB
    message_bytes: int = 32 * MIB
    queued_bytes: int = 4 * MIB


class Connection(Protocol):
    """An editor's connection, as a document sees it."""

    def send_message(self, payload: bytes) -> None:
        """Send one message."""


class Document:
    """The document ``name`` of ``store``."""

    _log = Logger()

    def __init__(self, name: str, store: Store, limits: YServerLimits) -> None:
        self._name = name
        self._store = store
        self._limits = limits
        self._connections: dict[Connection, None] = {}
        self._owners: dict[int, Connection] = {}
        self._changes: list[bytes] = []
        self._awareness = Awareness(Doc())
        self._awareness.set_local_state(None)  # the server is no editor
        self._awareness.observe(self._broadcast_states)
        self._open()

    @property
    def connection_count(self) -> int:
        """Number of connections that edit the document."""
        return len(self._connections)

    def join(self, connection: Connection) -> None:
        """Add ``connection`` and send it a sync step 1 and the awareness states."""
        self._connections[connection] = None
        connection.send_message(encode(SyncStep1(self._doc.get_state())))
        if self._awareness.states:
            connection.send_message(self._encode_states(list(self._awareness.states)))

    def leave(self, connection: Connection) -> None:
        """Remove ``connection`` and its awareness states."""
        self._connections.pop(connection, None)
        owned = [client_id for client_id, owner in self._owners.items() if owner is connection]
        self._awareness.remove_awareness_states(owned, connection)

    def receive(self, connection: Connection, payload: bytes) -> None:
        """Act on a message of ``connection``.

        Raises:
            RemoteProtocolError: The message breaks a rule or a limit, or was lost (code ``REOPENED``).
                Close the connection.
        """
        message = decode(payload)
        try:
            self._receive(connection, message)
        except ValueError as error:
            raise RemoteProtocolError(f"{error}.", code="bad_update") from error
        except sqlite3.Error as error:
            self._log.failure("A change cannot be written to the store", event="yserver.store_failed")
            self._open()
            raise RemoteProtocolError("The store failed.", code=REOPENED) from error
        except BaseException as error:
            # After a panic (a class that cannot be imported), pycrdt answers further calls with RuntimeError.
            if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
                raise
            self._open()
            raise RemoteProtocolError(
                "pycrdt could not apply the update; reconnect.", code=REOPENED
            ) from error

    def _receive(self, connection: Connection, message: Message | None) -> None:
        match message:
            case SyncStep1(state_vector):
                connection.send_message(encode(SyncStep2(self._doc.get_update(state_vector))))
            case SyncStep2(update) | SyncUpdate(update):
                self._apply(connection, update)
            case AwarenessUpdate(states):
                self._awareness.apply_awareness_update(states, connection)
                self._check_states()

    def _apply(self, connection: Connection, update: bytes) -> None:
        self._check_size(len(update))
        self._doc.apply_update(update)
        changes, self._changes = self._changes, []
        if not changes:
            self._count_pending(len(update))
        for change in changes:
            self._store.append(self._name, change)
            self._rows += 1
            self._size_bytes += len(change)
            self._broadcast(encode(SyncUpdate(change)), but=connection)
        if self._rows >= COMPACT_ROWS:
            self._compact()

    def _check_size(self, more_bytes: int) -> None:
        if self._size_bytes + more_bytes > self._limits.document_bytes:
            self._compact()
        if self._size_bytes + more_bytes > self._limits.document_bytes:
            message = f"This document is full; the limit is {self._limits.document_bytes} bytes."
            raise RemoteProtocolError(message, code="document_full")

    def _count_pending(self, pending_bytes: int) -> None:
        """Bound the updates that wait for others which never come.

        pycrdt keeps these and does not count them. A client that follows the protocol sends none, so they
        are dropped, all together, by opening the document again.
        """
        self._pending_bytes += pending_bytes
        if self._pending_bytes > self._limits.document_bytes // PENDING_SHARE:
            self._open()

    def _open(self) -> None:
        self._doc: Doc[Any] = Doc()
        self._rows = self._size_bytes = self._pending_bytes = 0
        for update in self._store.load(self._name):
            self._doc.apply_update(update)
            self._rows += 1
            self._size_bytes += len(update)
        self._changes = []
        # The subscription ends when its object is deleted.
        self._subscription = self._doc.observe(lambda event: self._changes.append(event.update))

    def _compact(self) -> None:
        whole = self._doc.get_update()
        self._store.replace(self._name, whole)
        self._rows, self._size_bytes = 1, len(whole)

    def _check_states(self) -> None:
        states, known = self._awareness.states, self._awareness.meta
        if len(states) > MAX_STATES:
            message = f"This document has {len(states)} awareness states; the limit is {MAX_STATES}."
            raise RemoteProtocolError(message, code="too_many_states")
        # The clocks of editors that have left: without them, an old copy of a state would come back to life.
        if len(known) > 4 * MAX_STATES:
            for client_id in known.keys() - states.keys():
                del known[client_id]

    def _broadcast_states(self, topic: str, event: tuple[dict[str, list[int]], Any]) -> None:
        """Send changed states to all connections, and note which one brought them; pycrdt calls this.

        The sender gets its own state as well: stock clients disconnect after 30 s without a message. A
        client that sends back the state of another one does not become its owner, because an equal clock
        is no change.
        """
        if topic != "update":
            return
        changes, connection = event
        for client_id in (*changes["added"], *changes["updated"]):
            self._owners[client_id] = connection
        for client_id in changes["removed"]:
            self._owners.pop(client_id, None)
        changed = [client_id for client_ids in changes.values() for client_id in client_ids]
        self._broadcast(self._encode_states(changed))

    def _encode_states(self, client_ids: list[int]) -> bytes:
        return encode(AwarenessUpdate(self._awareness.encode_awareness_update(client_ids)))

    def _broadcast(self, payload: bytes, but: Connection | None = None) -> None:
        for connection in self._connections:
            if connection is not but:
                connection.send_message(payload)
