"""One shared document and the connections that edit it.

No socket and no clock: a connection is whatever has ``send_message``. ``seance.yserver.documents``
makes these; ``seance.yserver.websocket`` tells them what arrives and when a connection cannot take
more.

A connection that cannot take more is *held*: nothing is queued for it, only what it has so far is
remembered (a state vector and the editors whose states changed), and when it can take more it gets
the difference in one message. So a slow reader costs a few bytes, however much the others write,
and it is never further behind than one document.

pycrdt is Rust, and an update made up by a hostile client can make it panic, at once or at the next
innocent one (found by fuzzing 0.14.13). So every good change is written down in a journal, and a
document that has panicked is opened anew from that.

Must be used from one thread: pycrdt binds a document to the thread that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pycrdt import Doc, merge_updates

from seance.errors import RemoteProtocolError
from seance.yserver.awareness import Awareness
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import (
    AwarenessQuery,
    AwarenessUpdate,
    ClientState,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    encode,
)

__all__ = ["Connection", "Document"]

T = TypeVar("T")

NOTHING = b"\0\0"
"""The update that changes nothing: no structs, no deletions."""

MAX_NOTED = 2048
"""Editors noted for a held connection before those that nobody remembers are struck off."""

JOURNAL_SLACK_BYTES = 256 * 1024
"""The journal is put together again when it has doubled and grown by this."""

IDLE_SHARE = 4
"""Updates that change nothing may come to a quarter of ``document_bytes``, then they are shed."""


class Connection(Protocol):
    """An editor's connection, as a document sees it."""

    def send_message(self, payload: bytes) -> None:
        """Send one message. May call ``Document.hold`` before it returns."""


@dataclass(slots=True)
class Held:
    """What a held connection has, and what it wants to be told later."""

    state_vector: bytes
    wants_answer: bool = False
    client_ids: set[int] = field(default_factory=set)


class Document:
    """One shared document.

    Args:
        limits: The server's.
        keep: Called with each update that changed the document, before anybody is told.
        updates: What was kept, from the oldest to the newest.
    """

    def __init__(
        self,
        limits: YServerLimits,
        keep: Callable[[bytes], None] = lambda update: None,
        updates: Iterable[bytes] = (),
    ) -> None:
        self._limits = limits
        self._keep = keep
        self._awareness: Awareness[Connection] = Awareness(limits)
        self._connections: dict[Connection, None] = {}
        self._held: dict[Connection, Held] = {}
        self._changes: list[bytes] = []
        self._journal = list(updates)
        self._journal_bytes = 0
        self._packed_bytes = 0
        self._idle_bytes = 0
        self._open()

    # -- figures ---------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever written into it."""
        return bytes(self._doc.get_state()) == b"\0"

    @property
    def connection_count(self) -> int:
        """Connections that edit it now."""
        return len(self._connections)

    @property
    def size_bytes(self) -> int:
        """About the size of the document as one update."""
        return self._journal_bytes

    def state(self) -> bytes:
        """The whole document as one update."""
        return self._attempt(lambda doc: bytes(doc.get_update()))

    # -- from the connections --------------------------------------------------------------

    def join(self, connection: Connection) -> None:
        """Take in a connection and greet it: what is here, and who."""
        self._connections[connection] = None
        self._send(connection, SyncStep1(bytes(self._doc.get_state())))
        self._tell_states(connection, self._awareness.states())

    def leave(self, connection: Connection) -> None:
        """Forget a connection; its editors are gone for the others at once."""
        self._connections.pop(connection, None)
        self._held.pop(connection, None)
        self._broadcast_states(self._awareness.leave(connection))

    def receive(self, connection: Connection, message: Message) -> None:
        """Act on a message.

        Raises:
            RemoteProtocolError: It breaks a rule or a bound; close the connection.
        """
        match message:
            case SyncStep1(state_vector):
                self._answer(connection, state_vector)
            case SyncStep2(update) | SyncUpdate(update):
                self._change(connection, update)
            case AwarenessUpdate(states):
                self._broadcast_states(self._awareness.apply(states, connection))
            case AwarenessQuery():
                self._tell_states(connection, self._awareness.states())

    def hold(self, connection: Connection) -> None:
        """Send a connection nothing more until ``release``. May be called again, and while sending."""
        if connection in self._connections and connection not in self._held:
            self._held[connection] = Held(bytes(self._doc.get_state()))

    def release(self, connection: Connection) -> None:
        """Bring a held connection up to date and send it everything again."""
        held = self._held.pop(connection, None)
        if held is None:
            return
        update = self._missing_in(held.state_vector)
        if held.wants_answer:
            self._send(connection, SyncStep2(update))
        elif update != NOTHING:
            self._send(connection, SyncUpdate(update))
        self._tell_states(connection, self._awareness.states_of(held.client_ids))

    # -- inside ----------------------------------------------------------------------------

    def _answer(self, connection: Connection, state_vector: bytes) -> None:
        held = self._held.get(connection)
        if held is not None:
            self._missing_in(state_vector)
            held.state_vector, held.wants_answer = state_vector, True
            return
        self._send(connection, SyncStep2(self._missing_in(state_vector)))

    def _missing_in(self, state_vector: bytes) -> bytes:
        return self._attempt(lambda doc: bytes(doc.get_update(state_vector)))

    def _change(self, connection: Connection, update: bytes) -> None:
        if update == NOTHING:
            return
        self._check_size(len(update))
        self._attempt(lambda doc: doc.apply_update(update))
        changes, self._changes = self._changes, []
        if not changes:
            self._count_idle(len(update))
            return
        # One message for all: a connection that is held half-way would miss the second.
        change = changes[0] if len(changes) == 1 else bytes(merge_updates(*changes))
        self._write_down(change)
        self._keep(change)
        self._broadcast(SyncUpdate(change), but=connection)

    def _check_size(self, more_bytes: int) -> None:
        if self._journal_bytes + more_bytes > self._limits.document_bytes:
            self._pack()
        if self._journal_bytes + more_bytes > self._limits.document_bytes:
            sentence = f"This document is full: it may have {self._limits.document_bytes} bytes."
            raise RemoteProtocolError(sentence, code="document_full")

    def _count_idle(self, idle_bytes: int) -> None:
        """Bound what an update can leave behind that depends on others that never come.

        pycrdt keeps such updates aside and counts them nowhere. A client that follows the
        protocol sends none, so they are dropped all together by opening the document anew.
        """
        self._idle_bytes += idle_bytes
        if self._idle_bytes > self._limits.document_bytes // IDLE_SHARE:
            self._open()

    def _write_down(self, change: bytes) -> None:
        self._journal.append(change)
        self._journal_bytes += len(change)
        if self._journal_bytes > 2 * self._packed_bytes + JOURNAL_SLACK_BYTES:
            self._pack()

    def _pack(self) -> None:
        self._journal = [self.state()]
        self._packed_bytes = self._journal_bytes = len(self._journal[0])

    def _open(self) -> None:
        self._doc: Doc[Any] = Doc()
        for update in self._journal:
            self._doc.apply_update(update)
        self._changes = []
        self._idle_bytes = 0
        self._packed_bytes = self._journal_bytes = sum(map(len, self._journal))
        self._subscription = self._doc.observe(lambda event: self._changes.append(bytes(event.update)))

    def _attempt(self, work: Callable[[Doc[Any]], T], *, is_last: bool = False) -> T:
        """Let pycrdt work on what a peer sent; after a panic try again on a document opened anew.

        The second attempt is for a peer that is innocent: the damage may be older.
        """
        try:
            return work(self._doc)
        except ValueError as error:
            raise RemoteProtocolError(f"{error}.", code="bad_update") from error
        except BaseException as error:
            if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
                raise
            self._open()
            if is_last:
                sentence = "An update does not fit this document."
                raise RemoteProtocolError(sentence, code="bad_update") from error
        return self._attempt(work, is_last=True)

    def _broadcast(self, message: Message, but: Connection | None = None) -> None:
        payload = encode(message)
        for connection in list(self._connections):
            if connection is not but and connection not in self._held:
                connection.send_message(payload)

    def _broadcast_states(self, states: tuple[ClientState, ...]) -> None:
        if not states:
            return
        for held in self._held.values():
            self._note(held, states)
        self._broadcast(AwarenessUpdate(states))

    def _tell_states(self, connection: Connection, states: tuple[ClientState, ...]) -> None:
        if not states:
            return
        held = self._held.get(connection)
        if held is not None:
            self._note(held, states)
        else:
            self._send(connection, AwarenessUpdate(states))

    def _note(self, held: Held, states: Iterable[ClientState]) -> None:
        """Remember whose states a held connection is to be told, which are at most those we know of."""
        held.client_ids.update(state.client_id for state in states)
        if len(held.client_ids) > MAX_NOTED:
            held.client_ids = self._awareness.known_ids()

    def _send(self, connection: Connection, message: Message) -> None:
        connection.send_message(encode(message))
