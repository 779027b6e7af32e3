"""The first check: many clients at a time, and each hears what it has said itself."""

from __future__ import annotations

import hashlib
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from seance.check.report import Check
from seance.check.stage import Stage
from seance.check.trial import attempt, expect
from seance.wsclient import WsConnection
from seance.wsclient.frames import BINARY, TEXT, Frame

__all__ = ["check_clients"]

MESSAGES = 20
SIZES = (0, 1, 60, 125, 126, 700, 4096, 20_000)
"""Of the messages, in turn; a client also begins somewhere else in the row than its neighbour."""

AT_ONCE = 25
"""Handshakes under way at a time; more would only stand in the kernel's queue."""


async def check_clients(stage: Stage, count: int) -> Check:
    """Connect ``count`` clients, have all of them talk at once, and compare every message."""
    check = Check("clients", f"{count} clients at a time hear what they have said")
    talks: list[WsConnection] = []
    failures: list[Failure] = []

    async def connect() -> str:
        while len(talks) < count:
            batch = min(AT_ONCE, count - len(talks))
            dialling = [
                Deferred.fromCoroutine(WsConnection.open(stage.reactor, stage.tunnel)) for _ in range(batch)
            ]
            for has_come, found in await DeferredList(dialling, consumeErrors=True):
                (talks if has_come else failures).append(cast(Any, found))
            if failures:
                failures[0].raiseException()
        return f"{count} connections are open at the same time."

    async def echo() -> str:
        expect(len(talks) == count, "Not all of them are connected, so this was not tried.")
        for number, talk in enumerate(talks):
            talk.send(*_messages(number))
        for number, talk in enumerate(talks):
            for index, sent in enumerate(_messages(number)):
                heard = await talk.receive()
                expect(
                    heard == sent, f"Client {number + 1} did not get its message {index + 1} back as it was."
                )
        return f"{count * MESSAGES:,} messages came back, each to whom it belongs and in order."

    try:
        check.parts.append(await attempt(stage.reactor, "connect", "connecting", connect))
        check.parts.append(await attempt(stage.reactor, "echo", "messages", echo))
    finally:
        for talk in talks:
            talk.abort()
    return check


def _messages(number: int) -> list[Frame]:
    return [_message(number, index) for index in range(MESSAGES)]


def _message(number: int, index: int) -> Frame:
    """Return what no other client says, and this one only once."""
    size = SIZES[(number + index) % len(SIZES)]
    unlike = hashlib.sha256(f"{number} {index}".encode()).hexdigest().encode()
    payload = (unlike * (size // len(unlike) + 1))[:size]
    return Frame(TEXT if index % 2 else BINARY, payload)
