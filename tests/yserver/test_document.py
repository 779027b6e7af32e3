"""One document and its editors, without a socket."""

from __future__ import annotations

import pytest
from pycrdt import Doc, Text

from seance.errors import RemoteProtocolError
from seance.yserver.awareness import GONE
from seance.yserver.document import MAX_NOTED, Document
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import (
    AwarenessQuery,
    AwarenessUpdate,
    ClientState,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
)
from tests.yserver.editors import Editor


def make_document(**limits: int) -> Document:
    return Document(YServerLimits(**limits))


def update_of(text: str) -> bytes:
    doc: Doc[Text] = Doc()
    doc["text"] = Text(text)
    return doc.get_update()


def two_updates() -> tuple[bytes, bytes]:
    """Two changes of one client; the second cannot be understood without the first."""
    doc: Doc[Text] = Doc()
    text = doc.get("text", type=Text)
    text += "one "
    first, vector = doc.get_update(), doc.get_state()
    text += "two"
    return first, doc.get_update(vector)


def test_two_editors_converge() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.write("Hello ")
    ben.write("world")
    ada.write("!")
    assert str(ada.text) == str(ben.text)
    assert ada.doc.get_update() == ben.doc.get_update() == document.state()


def test_edits_made_before_joining_reach_everybody() -> None:
    document = make_document()
    ada = Editor(document)
    ada.write("here first")
    ben = Editor(document, 2)
    ben.text += "brought along"
    ben.synchronize()
    ben.say(SyncStep2(ben.doc.get_update()))
    assert str(ada.text) == str(ben.text)
    assert "here first" in str(ada.text)
    assert "brought along" in str(ada.text)


def test_the_server_speaks_first() -> None:
    """Stock clients rely on it: the answer to this is how offline edits come in."""
    ada = Editor(make_document())
    assert ada.heard == [SyncStep1(b"\0")]


def test_an_update_goes_to_the_others_and_not_back() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.write("x")
    assert ada.heard_of(SyncUpdate) == 0
    assert ben.heard_of(SyncUpdate) == 1


def test_what_is_known_already_is_told_to_nobody() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.write("x")
    ada.say(SyncUpdate(ada.doc.get_update()))
    ada.say(SyncStep2(b"\0\0"))
    assert ben.heard_of(SyncUpdate) == 1


def test_deletions_are_passed_on() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.write("too much")
    before = ada.doc.get_state()
    del ada.text[0:4]
    ada.say(SyncUpdate(ada.doc.get_update(before)))
    assert str(ben.text) == "much"


def test_presence_is_told_to_everybody_and_to_who_joins_later() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.announce('"Ada"')
    cem = Editor(document, 3)
    assert ada.others == ben.others == cem.others == {1: '"Ada"'}


def test_a_connection_that_ends_takes_its_presence_along_at_once() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.announce('"Ada"')
    document.leave(ada)
    assert ben.others == {1: GONE}
    assert document.connection_count == 1
    document.leave(ada)


def test_whoever_asks_is_told_who_is_here() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.announce('"Ada"')
    ben.others.clear()
    ben.say(AwarenessQuery())
    assert ben.others == {1: '"Ada"'}


@pytest.mark.parametrize(
    "message",
    [SyncUpdate(b"\1\1"), SyncStep2(b"garbage"), SyncStep1(b"\1\xff\xff"), SyncUpdate(b"")],
    ids=["cut short", "garbage", "bad vector", "nothing"],
)
def test_what_pycrdt_cannot_read_is_the_peers_fault(message: SyncUpdate) -> None:
    document = make_document()
    ada = Editor(document)
    ada.write("still here")
    with pytest.raises(RemoteProtocolError):
        ada.say(message)
    assert document.state() == ada.doc.get_update()


def test_every_change_is_kept_before_anybody_is_told() -> None:
    kept: list[bytes] = []
    document = Document(YServerLimits(), kept.append)
    ada, ben = Editor(document), Editor(document, 2)
    ben.when_sent = lambda: told.append(len(kept))
    told: list[int] = []
    ada.write("a")
    ada.write("b")
    assert told == [1, 2]
    again = Document(YServerLimits(), updates=kept)
    assert again.state() == document.state()


def test_a_document_that_is_full_takes_no_more_and_keeps_what_it_has() -> None:
    document = make_document(document_bytes=2000)
    ada = Editor(document)
    ada.write("x" * 1500)
    with pytest.raises(RemoteProtocolError) as refused:
        ada.write("y" * 600)
    assert refused.value.code == "document_full"
    assert len(document.state()) < 2000


def test_a_full_document_can_be_emptied_and_filled_again() -> None:
    document = make_document(document_bytes=2000)
    ada = Editor(document)
    for _ in range(5):
        ada.write("x" * 1500)
        before = ada.doc.get_state()
        del ada.text[0:1500]
        ada.say(SyncUpdate(ada.doc.get_update(before)))
    assert document.size_bytes < 4000


def test_updates_that_wait_for_others_are_bounded() -> None:
    """pycrdt keeps them aside and counts them nowhere; without a bound they would fill the memory."""
    document = make_document(document_bytes=4000)
    ada, ben = Editor(document), Editor(document, 2)
    ada.write("kept ")
    pairs = [two_updates() for _ in range(100)]
    for _, waiting in pairs:
        ada.say(SyncUpdate(waiting))
    ada.say(SyncUpdate(pairs[0][0]))
    ada.say(SyncUpdate(pairs[-1][0]))
    assert str(ben.text).count("two") == 1
    assert str(ben.text).count("one") == 2
    assert "kept" in str(ben.text)


def test_an_update_that_waits_comes_in_with_the_one_it_waits_for() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    first, second = two_updates()
    ada.say(SyncUpdate(second))
    assert ben.heard_of(SyncUpdate) == 0
    ada.say(SyncUpdate(first))
    assert str(ben.text) == "one two"


AB = bytes.fromhex("010105000401017402616200")
"""Client 5 writes "ab" into the text "t"."""

PANIC = bytes.fromhex("010005000101017402616205")
"""Made by fuzzing: no structs of one client, and deletions that nothing matches. pycrdt 0.14.13 panics."""


class PanicException(BaseException):
    """What pyo3 raises; its own class cannot be imported."""


class Damaged:
    """A document of pycrdt's that an earlier update has broken."""

    def apply_update(self, update: bytes) -> None:
        raise PanicException("attempt to divide by zero")

    get_update = apply_update


def test_an_update_that_makes_pycrdt_panic_is_the_peers_fault_and_changes_nothing() -> None:
    document = make_document()
    ada, ben = Editor(document), Editor(document, 2)
    ada.write("before ")
    ada.say(SyncUpdate(AB))
    ada.doc.apply_update(AB)
    with pytest.raises(RemoteProtocolError) as refused:
        ben.say(SyncUpdate(PANIC))
    assert refused.value.code == "bad_update"
    ada.write("after")
    assert str(ben.text) == "before after"
    assert document.state() == ada.doc.get_update()


def test_an_innocent_update_comes_in_although_an_earlier_one_broke_the_document() -> None:
    document = make_document()
    ada, ben, cem = (Editor(document, number) for number in (1, 2, 3))
    ada.write("before ")
    document._doc = Damaged()  # type: ignore[assignment]
    ada.write("after")
    assert str(ben.text) == "before after"
    document._doc = Damaged()  # type: ignore[assignment]
    cem.synchronize()
    assert cem.heard_of(SyncStep2) == 1


def test_the_journal_of_a_document_is_bounded() -> None:
    document = make_document()
    ada = Editor(document)
    for _ in range(40):
        ada.write("x" * 20_000)
        before = ada.doc.get_state()
        del ada.text[0:20_000]
        ada.say(SyncUpdate(ada.doc.get_update(before)))
    assert sum(map(len, document._journal)) < 300_000
    document._doc = Damaged()  # type: ignore[assignment]
    ada.write("still good")
    assert document.state() == ada.doc.get_update()


class TestHeld:
    """A connection that cannot take more."""

    def test_it_hears_nothing_and_then_all_at_once(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        document.hold(ben)
        for number in range(50):
            ada.write(f"{number} ")
            ada.announce(f'"{number}"')
        assert len(ben.heard) == 1
        document.release(ben)
        assert str(ben.text) == str(ada.text)
        assert ben.others == {1: '"49"'}
        assert (ben.heard_of(SyncUpdate), ben.heard_of(AwarenessUpdate)) == (1, 1)

    def test_its_own_edits_go_on(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        document.hold(ben)
        ben.write("from afar")
        assert str(ada.text) == "from afar"
        document.release(ben)

    def test_it_hears_of_departures_too(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        ada.announce('"Ada"')
        document.hold(ben)
        document.leave(ada)
        document.release(ben)
        assert ben.others == {1: GONE}

    def test_holding_again_does_not_forget_what_it_lacks(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        document.hold(ben)
        ada.write("missed")
        document.hold(ben)
        document.release(ben)
        assert str(ben.text) == "missed"

    def test_it_may_be_held_while_it_is_sent_something(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        ben.when_sent = lambda: document.hold(ben)
        ada.write("a")
        ada.write("b")
        ben.when_sent = lambda: None
        document.release(ben)
        assert str(ben.text) == "ab"
        assert ben.heard_of(SyncUpdate) == 2

    def test_an_answer_it_asked_for_is_given_once_and_later(self) -> None:
        """Asking for a whole document again and again without reading it must cost nothing."""
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        ada.write("x" * 1000)
        document.hold(ben)
        for _ in range(100):
            ben.say(SyncStep1(b"\0"))
        with pytest.raises(RemoteProtocolError):
            ben.say(SyncStep1(b"\1\xff\xff"))
        assert ben.heard_of(SyncStep2) == 0
        document.release(ben)
        assert ben.heard_of(SyncStep2) == 1
        assert str(ben.text) == str(ada.text)

    def test_nothing_missed_means_nothing_sent(self) -> None:
        document = make_document()
        ben = Editor(document)
        document.hold(ben)
        document.release(ben)
        document.release(ben)
        assert len(ben.heard) == 1

    def test_who_has_left_is_not_held(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        document.leave(ben)
        document.hold(ben)
        ada.write("x")
        document.release(ben)
        assert len(ben.heard) == 1

    def test_what_is_noted_for_it_is_bounded(self) -> None:
        document = make_document()
        ada, ben = Editor(document), Editor(document, 2)
        document.hold(ben)
        for client_id in range(10, 3 * MAX_NOTED):
            ada.say(AwarenessUpdate((ClientState(client_id, 1, "{}"),)))
            ada.say(AwarenessUpdate((ClientState(client_id, 2, GONE),)))
        assert len(document._held[ben].client_ids) <= MAX_NOTED
        document.release(ben)
        assert len(ben.others) <= MAX_NOTED
