"""The second check: Yjs documents converge through the tunnel.

Documents and sync messages are those of pycrdt, which wraps Yjs' own Rust library. Without pycrdt the check
fails and says what to install.
"""

from __future__ import annotations

import secrets
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from seance.check.check_case import CaseFailed, expect, run_case
from seance.check.environment import Environment
from seance.check.report import CheckResult
from seance.errors import Gone
from seance.wsclient import Reactor, Target, WsConnection
from seance.wsclient.frames import BINARY, Frame

__all__ = ["check_yjs"]

EDITS = 200
CONVERGE_SECONDS = 20.0
POLL_SECONDS = 0.02

EMPTY_UPDATE = b"\0\0"
"""A Yjs update without insertions and deletions."""

SYNC = b"\0"
"""The first byte of a sync message (y-protocols); other messages are about awareness."""


async def check_yjs(environment: Environment) -> CheckResult:
    """Let two editors write at the same time, then one of them offline, then a third join late."""
    check = CheckResult("yjs", "Yjs documents converge through the tunnel")
    target = environment.documents.at(f"seance-check-{secrets.token_hex(6)}")
    editors: list[_Editor] = []

    async def pycrdt() -> str:
        raise CaseFailed("pycrdt is not installed, so nothing was tried: pip install 'seance-tunnel[demo]'.")

    async def together() -> str:
        ada, ben = editors
        await ada.connect()
        await ben.connect()
        for number in range(EDITS):
            ada.write(f"a{number} ")
            ben.write(f"B{number} ")
        await _converge(ada, ben)
        count = len(ada.text.split())
        expect(count == 2 * EDITS, f"Of {2 * EDITS} words written, {count} have arrived.")
        return f"Two editors wrote {2 * EDITS} words at the same time and have the same document."

    async def apart() -> str:
        ada, ben = editors
        await ben.disconnect()
        ada.write("while ben was away ")
        ben.write("while OFFLINE ")
        await ben.connect()
        await _converge(ada, ben)
        expect("while OFFLINE" in ada.text, "Words written offline have not arrived.")
        expect("was away" in ben.text, "Words written meanwhile by the other editor have not arrived.")
        return "Edits made while one editor was offline are in both documents."

    async def late() -> str:
        editors.append(_Editor(environment.reactor, target))
        await editors[-1].connect()
        await _converge(editors[0], editors[-1])
        return "A third editor that joins late receives the whole document."

    cases = [("pycrdt", "pycrdt", pycrdt)]
    if find_spec("pycrdt") is not None:
        editors += [_Editor(environment.reactor, target) for _ in range(2)]
        cases = [
            ("together", "at the same time", together),
            ("apart", "offline edits", apart),
            ("late", "late joiner", late),
        ]
    try:
        for name, words, case in cases:
            check.parts.append(await run_case(environment.reactor, name, words, case))
    finally:
        for editor in editors:
            await editor.disconnect()
    return check


class _Editor:
    """A document with its connection."""

    def __init__(self, reactor: Reactor, target: Target) -> None:
        self.reactor = reactor
        self._target = target
        self._pycrdt: Any = import_module("pycrdt")  # an extra
        self.document: Any = self._pycrdt.Doc()
        self._text: Any = self.document.get("text", type=self._pycrdt.Text)
        self._connection: WsConnection | None = None
        self._reading: Deferred[None] | None = None

    @property
    def text(self) -> str:
        return str(self._text)

    async def connect(self) -> None:
        self._connection = await WsConnection.open(self.reactor, self._target)
        self._connection.send(Frame(BINARY, self._pycrdt.create_sync_message(self.document)))
        self._reading = Deferred.fromCoroutine(self._read(self._connection))

    async def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading

    def write(self, text: str) -> None:
        """Append text and send the update if connected."""
        before = self.document.get_state()
        self._text += text
        if self._connection is not None:
            update = self.document.get_update(before)
            self._connection.send(Frame(BINARY, self._pycrdt.create_update_message(update)))

    async def _read(self, connection: WsConnection) -> None:
        while True:
            try:
                frame = await connection.receive(3600)  # without limit: editors may be idle
            except Gone:
                return
            if frame.opcode == BINARY and frame.payload.startswith(SYNC):
                reply = self._pycrdt.handle_sync_message(frame.payload[1:], self.document)
                if reply is not None and connection is self._connection:
                    connection.send(Frame(BINARY, reply))

    def lacks_nothing_of(self, other: _Editor) -> bool:
        return bool(other.document.get_update(self.document.get_state()) == EMPTY_UPDATE)


async def _converge(one: _Editor, other: _Editor) -> None:
    """Wait until two editors have the same document.

    Raises:
        CaseFailed: They still differ after 20 s.
    """
    waited = 0.0
    while not (one.lacks_nothing_of(other) and other.lacks_nothing_of(one) and one.text == other.text):
        if waited >= CONVERGE_SECONDS:
            raise CaseFailed(f"The documents of two editors still differ after {CONVERGE_SECONDS:g} s.")
        await deferLater(one.reactor, POLL_SECONDS)
        waited += POLL_SECONDS
