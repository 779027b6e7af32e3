"""Editors for the tests of a document: a pycrdt document of their own and a list of what they heard."""

from __future__ import annotations

from collections.abc import Callable

from pycrdt import Doc, Text

from seance.yserver.document import Document
from seance.yserver.messages import (
    AwarenessUpdate,
    ClientState,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode,
)

__all__ = ["Editor"]


class Editor:
    """A client without a connection: what it says goes straight to the document.

    Args:
        document: The server's document; the editor joins it.
        client_id: Its id in awareness.
    """

    def __init__(self, document: Document, client_id: int = 1) -> None:
        self.document = document
        self.client_id = client_id
        self.clock = 0
        self.doc: Doc[Text] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.heard: list[Message] = []
        self.others: dict[int, str] = {}
        self.when_sent: Callable[[], None] = lambda: None
        document.join(self)

    def send_message(self, payload: bytes) -> None:
        """What the document says."""
        message = decode(payload)
        assert message is not None
        self.heard.append(message)
        match message:
            case SyncStep1(state_vector):
                self.say(SyncStep2(self.doc.get_update(state_vector)))
            case SyncStep2(update) | SyncUpdate(update):
                self.doc.apply_update(update)
            case AwarenessUpdate(states):
                self.others.update({state.client_id: state.state for state in states})
        self.when_sent()

    def say(self, message: Message) -> None:
        self.document.receive(self, message)

    def synchronize(self) -> None:
        self.say(SyncStep1(self.doc.get_state()))

    def write(self, text: str) -> None:
        before = self.doc.get_state()
        self.text += text
        self.say(SyncUpdate(self.doc.get_update(before)))

    def announce(self, state: str) -> None:
        self.clock += 1
        self.say(AwarenessUpdate((ClientState(self.client_id, self.clock, state),)))

    def heard_of(self, kind: type) -> int:
        """How many messages of a kind it got."""
        return sum(isinstance(message, kind) for message in self.heard)
