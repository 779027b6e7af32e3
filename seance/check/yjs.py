"""The second check: Yjs documents converge through the tunnel.

The documents are pycrdt's, which is Yjs' own library in Rust, and what they say to each other is pycrdt's as
well; here it is only put into frames. Without pycrdt there is nothing real to check with, and the check says
what to install instead of passing.
"""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from seance.check.report import Check
from seance.check.stage import Stage
from seance.check.trial import Failed, attempt, expect
from seance.errors import Gone
from seance.wsclient import WsConnection
from seance.wsclient.dial import Target
from seance.wsclient.frames import BINARY, Frame

__all__ = ["check_yjs"]

EDITS = 200
SETTLE_SECONDS = 20.0
POLL_SECONDS = 0.02

NOTHING_NEW = b"\0\0"
"""An update without changes and without deletions."""

SYNC = 0
"""The first byte of the messages that are about documents (y-protocols); the others are about people."""


async def check_yjs(stage: Stage) -> Check:
    """Let two editors write at the same time, then one of them offline, then a third come late."""
    check = Check("yjs", "Yjs documents converge through the tunnel")
    if find_spec("pycrdt") is None:

        async def missing() -> str:
            sentence = (
                "pycrdt is not installed here, so nothing was tried: pip install 'seance-tunnel[demo]'."
            )
            raise Failed(sentence)

        check.parts.append(await attempt(stage.reactor, "pycrdt", "pycrdt", missing))
        return check
    target = stage.documents.at(f"seance-check-{secrets.token_hex(6)}")
    ada, ben = _Editor(stage, target), _Editor(stage, target)

    async def together() -> str:
        await ada.connect()
        await ben.connect()
        for number in range(EDITS):
            ada.write(f"a{number} ")
            ben.write(f"B{number} ")
        await _agree(ada, ben)
        count = len(ada.text_now.split())
        expect(count == 2 * EDITS, f"Of {2 * EDITS} words that were written, {count} are there.")
        return f"Two editors wrote {2 * EDITS} words at the same time, and have the same document."

    async def apart() -> str:
        await ben.leave()
        ada.write("while ben was away ")
        ben.write("while OFFLINE ")
        await ben.connect()
        await _agree(ada, ben)
        expect("while OFFLINE" in ada.text_now, "What was written offline has not arrived.")
        expect("was away" in ben.text_now, "What was written meanwhile has not arrived.")
        return "Edits that were made while one was offline are there on both sides."

    async def late() -> str:
        eve = _Editor(stage, target)
        try:
            await eve.connect()
            await _agree(ada, eve)
        finally:
            await eve.leave()
        return "A third editor that comes late gets the whole document."

    try:
        for name, words, trial in (
            ("together", "at the same time", together),
            ("apart", "offline edits", apart),
            ("late", "late comer", late),
        ):
            check.parts.append(await attempt(stage.reactor, name, words, trial))
    finally:
        await ada.leave()
        await ben.leave()
    return check


class _Editor:
    """A document and its connection."""

    def __init__(self, stage: Stage, target: Target) -> None:
        from pycrdt import Doc, Text  # noqa: PLC0415  # an extra

        self.reactor = stage.reactor
        self._target = target
        self.document: Any = Doc()
        self._text: Any = self.document.get("text", type=Text)
        self._talk: WsConnection | None = None
        self._reading: Deferred[None] | None = None

    @property
    def text_now(self) -> str:
        return str(self._text)

    async def connect(self) -> None:
        from pycrdt import create_sync_message  # noqa: PLC0415  # an extra

        self._talk = await WsConnection.open(self.reactor, self._target)
        self._talk.send(Frame(BINARY, create_sync_message(self.document)))
        self._reading = Deferred.fromCoroutine(self._read(self._talk))

    async def leave(self) -> None:
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.abort()
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading

    def write(self, text: str) -> None:
        """Add text, and tell it if there is anybody to tell."""
        from pycrdt import create_update_message  # noqa: PLC0415  # an extra

        before = self.document.get_state()
        self._text += text
        if self._talk is not None:
            update = self.document.get_update(before)
            self._talk.send(Frame(BINARY, create_update_message(update)))

    async def _read(self, talk: WsConnection) -> None:
        from pycrdt import handle_sync_message  # noqa: PLC0415  # an extra

        while True:
            try:
                # As long as the check takes: people may be silent.
                frame = await talk.receive(3600)
            except Gone:
                return
            if frame.opcode == BINARY and frame.payload[:1] == bytes((SYNC,)):
                answer = handle_sync_message(frame.payload[1:], self.document)
                if answer is not None and talk is self._talk:
                    talk.send(Frame(BINARY, answer))


async def _agree(one: _Editor, other: _Editor) -> None:
    """Wait until two editors have the same document.

    Raises:
        Failed: They have not, after a while.
    """
    waited = 0.0
    while not _has_all_of(one, other) or not _has_all_of(other, one) or one.text_now != other.text_now:
        if waited >= SETTLE_SECONDS:
            raise Failed(f"After {SETTLE_SECONDS:g} s the documents of two editors still differ.")
        await deferLater(one.reactor, POLL_SECONDS)
        waited += POLL_SECONDS


def _has_all_of(one: _Editor, other: _Editor) -> bool:
    """Whether ``one`` would learn nothing from ``other``: the update that it lacks is empty."""
    return bool(other.document.get_update(one.document.get_state()) == NOTHING_NEW)
