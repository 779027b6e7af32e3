"""One document and its editors, without a socket."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from pycrdt import Doc, Text

from seance.errors import RemoteProtocolError
from seance.yserver.document import COMPACT_ROWS, REOPENED, Document, YServerLimits
from seance.yserver.messages import (
    MAX_STATES,
    AwarenessUpdate,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    encode,
)
from seance.yserver.store import Store
from tests.conftest import Watch
from tests.yserver.client import GONE, Editor, awareness


class LocalEditor(Editor):
    """An editor that joins a document without a connection."""

    def __init__(self, document: Document) -> None:
        super().__init__()
        self.document = document
        self.send_message = self.receive
        document.join(self)

    def send(self, message: Message) -> None:
        self.document.receive(self, encode(message))


@pytest.fixture
def document() -> Document:
    return make_document()


def make_document(store: Store | None = None, **limits: int) -> Document:
    return Document("pad", store or Store(), YServerLimits(**limits))


def state_of(document: Document) -> str:
    """The text as a new editor gets it."""
    reader = LocalEditor(document)
    reader.synchronize()
    document.leave(reader)
    return str(reader.text)


def refused(send: Callable[..., None], *arguments: object) -> str:
    """The code of the error with which a document refuses a message of an editor."""
    with pytest.raises(RemoteProtocolError) as caught:
        send(*arguments)
    return caught.value.code


def two_updates() -> tuple[bytes, bytes]:
    """Two changes of one client; the second cannot be applied without the first."""
    doc: Doc[Text] = Doc()
    text = doc.get("text", type=Text)
    text += "one "
    first, vector = doc.get_update(), doc.get_state()
    text += "two"
    return first, doc.get_update(vector)


def test_two_editors_converge(document: Document) -> None:
    ada, ben = LocalEditor(document), LocalEditor(document)
    ada.write("Hello ")
    ben.write("world")
    ada.write("!")
    ada.delete(1)
    assert str(ada.text) == str(ben.text) == state_of(document)
    assert len(ada.text) == len("ello world!")


def test_edits_made_before_joining_reach_every_editor(document: Document) -> None:
    ada = LocalEditor(document)
    ada.write("here first")
    ben = LocalEditor(document)
    ben.text += "brought along"
    ben.synchronize()
    ben.send(SyncStep2(ben.doc.get_update()))
    assert str(ada.text) == str(ben.text)
    assert {"here first" in str(ada.text), "brought along" in str(ada.text)} == {True}


def test_server_sends_the_first_message(document: Document) -> None:
    """Stock clients need it: their response contains the edits made offline (docs/sources.md)."""
    assert LocalEditor(document).received == [SyncStep1(b"\0")]


def test_update_goes_to_the_other_editors_once(document: Document) -> None:
    ada, ben = LocalEditor(document), LocalEditor(document)
    ada.write("x")
    ada.send(SyncUpdate(ada.doc.get_update()))
    ada.send(SyncStep2(b"\0\0"))
    assert (ada.count(SyncUpdate), ben.count(SyncUpdate)) == (0, 1)


class TestAwareness:
    """What editors tell about themselves."""

    def test_state_is_sent_to_every_editor_the_later_and_the_sender_too(self, document: Document) -> None:
        """The sender needs the echo: a stock client disconnects after 30 s without a message."""
        ada, ben = LocalEditor(document), LocalEditor(document)
        ada.announce(1, 1, '"Ada"')
        cem = LocalEditor(document)
        assert ada.others == ben.others == cem.others == {1: '"Ada"'}
        ada.announce(1, 2, '"Ada"')
        assert ada.count(AwarenessUpdate) == 2

    def test_old_and_equal_clocks_change_nothing(self, document: Document) -> None:
        ada = LocalEditor(document)
        for clock in (5, 5, 4):
            ada.announce(1, clock, f"{clock}")
        assert ada.others == {1: "5"}
        assert ada.count(AwarenessUpdate) == 1

    def test_states_leave_with_the_connection_that_brought_them(self, document: Document) -> None:
        ada, ben = LocalEditor(document), LocalEditor(document)
        ada.announce(1, 1, '"Ada"')
        ben.announce(2, 1, '"Ben"')
        ben.announce(1, 1, '"Ada"')  # stock clients send back what they receive
        document.leave(ben)
        assert ada.others == {1: '"Ada"', 2: GONE}
        assert LocalEditor(document).others == {1: '"Ada"'}

    def test_late_echo_does_not_bring_a_state_back(self, document: Document) -> None:
        ada, ben = LocalEditor(document), LocalEditor(document)
        ada.announce(1, 1, '"Ada"')
        document.leave(ada)
        ben.announce(1, 1, '"Ada"')
        assert ben.others == {1: GONE}

    def test_editor_that_reconnects_keeps_its_state_when_the_old_connection_ends(
        self, document: Document
    ) -> None:
        old, new = LocalEditor(document), LocalEditor(document)
        old.announce(1, 1, '"Ada"')
        new.announce(1, 2, '"Ada"')
        document.leave(old)
        assert new.others == {1: '"Ada"'}

    def test_editor_can_leave_by_a_message(self, document: Document) -> None:
        ada, ben = LocalEditor(document), LocalEditor(document)
        ada.announce(1, 1, '"Ada"')
        ada.announce(1, 2, GONE)
        assert ben.others == {1: GONE}
        assert LocalEditor(document).others == {}

    def test_states_are_limited(self, document: Document) -> None:
        ada, ben = LocalEditor(document), LocalEditor(document)
        ada.send(awareness(*((number, 1, "{}") for number in range(MAX_STATES))))
        assert refused(ben.announce, MAX_STATES, 1, "{}") == "too_many_states"

    def test_clocks_of_editors_that_left_are_limited(self, document: Document) -> None:
        ada = LocalEditor(document)
        ada.announce(1, 1, '"Ada"')
        for at in range(2, 8 * MAX_STATES, MAX_STATES):
            ada.send(awareness(*((number, 1, GONE) for number in range(at, at + MAX_STATES))))
        assert len(document._awareness.meta) <= 5 * MAX_STATES
        assert LocalEditor(document).others == {1: '"Ada"'}


@pytest.mark.parametrize(
    "message",
    [SyncUpdate(b"\1\1"), SyncStep2(b"garbage"), SyncStep1(b"\1\xff\xff"), SyncUpdate(b"")],
    ids=["cut short", "garbage", "bad vector", "empty"],
)
def test_bytes_that_pycrdt_cannot_read_are_refused(document: Document, message: Message) -> None:
    ada = LocalEditor(document)
    ada.write("still here")
    assert refused(ada.send, message) in ("bad_message", "bad_update")
    assert state_of(document) == "still here"


def test_change_is_stored_before_it_is_sent() -> None:
    store = Store()
    document = make_document(store)
    ada, ben = LocalEditor(document), LocalEditor(document)
    stored: list[int] = []
    ben.send_message = lambda payload: stored.append(len(store.load("pad")))
    ada.write("a")
    ada.write("b")
    assert stored == [1, 2]
    assert state_of(make_document(store)) == "ab"


def test_full_document_keeps_what_it_has() -> None:
    document = make_document(document_bytes=2000)
    ada = LocalEditor(document)
    ada.write("x" * 1500)
    assert refused(ada.write, "y" * 600) == "document_full"
    assert state_of(document) == "x" * 1500


def test_full_document_can_be_emptied_and_filled_again() -> None:
    document = make_document(document_bytes=2000)
    ada = LocalEditor(document)
    for _ in range(5):
        ada.write("x" * 1500)
        ada.delete(1500)
    assert state_of(document) == ""


def test_many_rows_are_replaced_by_one() -> None:
    store = Store()
    ada = LocalEditor(make_document(store))
    for _ in range(COMPACT_ROWS + 10):
        ada.write("x")
    assert len(store.load("pad")) == 11
    again = LocalEditor(make_document(store))
    for _ in range(COMPACT_ROWS):
        again.write("y")
    assert len(store.load("pad")) == 12, "the rows of an earlier run count"


def test_update_waits_for_the_one_it_depends_on(document: Document) -> None:
    ada, ben = LocalEditor(document), LocalEditor(document)
    first, second = two_updates()
    ada.send(SyncUpdate(second))
    assert ben.count(SyncUpdate) == 0
    ada.send(SyncUpdate(first))
    assert str(ben.text) == "one two"


def test_waiting_updates_are_limited() -> None:
    """pycrdt keeps them and does not count them; without a limit they would fill the memory."""
    document = make_document(document_bytes=4000)
    ada, ben = LocalEditor(document), LocalEditor(document)
    ada.write("kept ")
    pairs = [two_updates() for _ in range(100)]
    for _, waiting in pairs:
        ada.send(SyncUpdate(waiting))
    ada.send(SyncUpdate(pairs[0][0]))
    ada.send(SyncUpdate(pairs[-1][0]))
    assert [str(ben.text).count(word) for word in ("kept", "one", "two")] == [1, 2, 1]


AB = bytes.fromhex("010105000401017402616200")
"""Client 5 writes "ab" into the text "t"."""

PANIC = bytes.fromhex("010005000101017402616205")
"""Made by fuzzing: no structs of one client, and deletions that match nothing. pycrdt 0.14.13 panics."""


class PanicException(BaseException):
    """What pyo3 raises; its own class cannot be imported."""


class DamagedDoc:
    """A document of pycrdt's that an earlier update has broken."""

    def apply_update(self, update: bytes) -> None:
        raise PanicException("attempt to divide by zero")

    get_update = apply_update


def test_update_that_makes_pycrdt_panic_changes_nothing(document: Document) -> None:
    ada, ben = LocalEditor(document), LocalEditor(document)
    ada.write("before ")
    ada.send(SyncUpdate(AB))
    assert refused(ben.send, SyncUpdate(PANIC)) == REOPENED
    ada.write("after")
    assert str(ben.text) == state_of(document) == "before after"


def test_damaged_document_is_opened_again_at_the_next_message(document: Document) -> None:
    ada, ben = LocalEditor(document), LocalEditor(document)
    ada.write("before ")
    document._doc = DamagedDoc()  # type: ignore[assignment]
    assert refused(ada.write, "lost") == REOPENED
    document.leave(ada)
    document.join(ada)  # a stock client connects again, and its answer to step 1 brings the lost edit
    assert str(ben.text) == state_of(document) == "before lost"
    document._doc = DamagedDoc()  # type: ignore[assignment]
    assert refused(ben.synchronize) == REOPENED
    assert state_of(document) == "before lost"


def test_change_that_cannot_be_stored_is_sent_to_no_editor(watch: Watch) -> None:
    store = Store()
    document = make_document(store)
    ada, ben = LocalEditor(document), LocalEditor(document)
    ada.write("one ")
    store._database.execute("PRAGMA query_only = ON")  # stands for a full disk
    assert refused(ada.write, "two") == REOPENED
    assert len(watch.take(sqlite3.OperationalError)) == 1
    store._database.execute("PRAGMA query_only = OFF")
    assert str(ben.text) == "one "
    document.leave(ada)
    document.join(ada)
    assert str(ben.text) == state_of(make_document(store)) == "one two"
