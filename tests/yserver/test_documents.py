"""The table of documents: who may come in, what is forgotten, what is kept."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from pycrdt import Doc, Text

from seance.errors import Refusal
from seance.yserver.documents import Documents
from seance.yserver.limits import YServerLimits
from seance.yserver.messages import SyncUpdate
from seance.yserver.store import COMPACT_ROWS, Store
from tests.conftest import Watch


class Silent:
    """A connection that nobody listens to."""

    def send_message(self, payload: bytes) -> None:
        pass


def write(documents: Documents, name: str, text: str) -> None:
    """Come in, write, go."""
    documents.check(name)
    connection = Silent()
    document = documents.join(name, connection)
    doc: Doc[Text] = Doc()
    doc["text"] = Text(text)
    document.receive(connection, SyncUpdate(doc.get_update()))
    documents.leave(name, connection)


def read(documents: Documents, name: str) -> str:
    connection = Silent()
    doc: Doc[Text] = Doc()
    doc.apply_update(documents.join(name, connection).state())
    documents.leave(name, connection)
    return str(doc.get("text", type=Text))


def test_a_document_outlives_its_editors() -> None:
    documents = Documents(YServerLimits())
    write(documents, "a", "for later")
    assert read(documents, "a") == "for later"
    assert read(documents, "b") == ""


def test_who_only_looks_around_uses_up_no_names() -> None:
    documents = Documents(YServerLimits(documents=2))
    for number in range(10):
        documents.check(str(number))
        read(documents, str(number))
    documents.check("new")


def test_one_name_too_many_is_refused_and_the_known_ones_are_not() -> None:
    documents = Documents(YServerLimits(documents=2))
    write(documents, "a", "x")
    write(documents, "b", "x")
    with pytest.raises(Refusal) as refused:
        documents.check("c")
    assert (refused.value.status, refused.value.code) == (503, "too_many_documents")
    documents.check("a")


def test_one_client_too_many_is_refused() -> None:
    documents = Documents(YServerLimits(clients=2))
    for name in ("a", "b"):
        documents.join(name, Silent())
    with pytest.raises(Refusal) as refused:
        documents.check("a")
    assert (refused.value.status, refused.value.code) == (503, "too_many_clients")


def test_a_name_that_is_too_long_is_refused() -> None:
    documents = Documents(YServerLimits(name_bytes=5))
    documents.check("abcde")
    with pytest.raises(Refusal) as refused:
        documents.check("abcdef")
    assert refused.value.status == 414


class TestWithStore:
    """The same, with a file."""

    def test_documents_come_back_after_the_end(self, tmp_path: Path) -> None:
        for text in ("one ", "two "):
            documents = Documents(YServerLimits(), Store(tmp_path / "s"))
            write(documents, "a", text)
            documents.close()
        documents = Documents(YServerLimits(), Store(tmp_path / "s"))
        assert sorted(read(documents, "a").split()) == ["one", "two"]
        documents.close()

    def test_a_document_without_editors_leaves_memory_and_is_one_row(self, tmp_path: Path) -> None:
        with closing(Store(tmp_path / "s")) as store:
            documents = Documents(YServerLimits(), store)
            write(documents, "a", "x")
            write(documents, "a", "y")
            assert len(store.load("a")) == 1
            assert documents._open == {}

    def test_names_in_the_file_count(self, tmp_path: Path) -> None:
        with closing(Store(tmp_path / "s")) as store:
            write(Documents(YServerLimits(), store), "a", "x")
            documents = Documents(YServerLimits(documents=1), store)
            documents.check("a")
            with pytest.raises(Refusal):
                documents.check("b")

    def test_rows_are_put_together_while_somebody_writes(self, tmp_path: Path) -> None:
        with closing(Store(tmp_path / "s")) as store:
            documents = Documents(YServerLimits(), store)
            connection = Silent()
            document = documents.join("a", connection)
            doc: Doc[Text] = Doc()
            text = doc.get("text", type=Text)
            for _ in range(COMPACT_ROWS + 10):
                before = doc.get_state()
                text += "x"
                document.receive(connection, SyncUpdate(doc.get_update(before)))
            assert len(store.load("a")) < 20
            assert read(Documents(YServerLimits(), store), "a") == str(text)

    def test_what_the_disk_does_not_take_stays_in_memory_until_it_does(
        self, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(Store(tmp_path / "s")) as store:
            documents = Documents(YServerLimits(), store)
            write(documents, "a", "one ")
            store._database.execute("PRAGMA query_only = ON")
            write(documents, "a", "two ")
            write(documents, "a", "three ")
            assert len(watch.take()) == 1
            assert sorted(read(documents, "a").split()) == ["one", "three", "two"]
            store._database.execute("PRAGMA query_only = OFF")
            write(documents, "a", "four ")
            assert documents._open == {}
            assert len(read(documents, "a").split()) == 4

    def test_closing_puts_away_what_is_open(self, tmp_path: Path) -> None:
        documents = Documents(YServerLimits(), Store(tmp_path / "s"))
        write(documents, "a", "x")
        documents.join("a", Silent())
        documents.close()
        with closing(Store(tmp_path / "s")) as store:
            assert len(store.load("a")) == 1
