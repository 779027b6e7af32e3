"""The first check: many concurrent clients, each of which receives the echoes of its messages."""

from __future__ import annotations

import hashlib
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from seance.check.check_case import expect, run_case
from seance.check.environment import Environment
from seance.check.report import CheckResult
from seance.wsclient import WsConnection
from seance.wsclient.frames import BINARY, TEXT, Frame

__all__ = ["check_clients"]

MESSAGES = 20
SIZES = (0, 1, 60, 125, 126, 700, 4096, 20_000)
"""Sizes of the messages in turn; each client starts at another one."""

MAX_DIALLING = 25
"""Concurrent handshakes; more would only wait in the kernel's queue."""


async def check_clients(environment: Environment, count: int) -> CheckResult:
    """Connect ``count`` clients, let all send at the same time, and compare every echo."""
    check = CheckResult("clients", f"{count} clients at a time receive their own messages")
    connections: list[WsConnection] = []
    failures: list[Failure] = []

    async def connect() -> str:
        while len(connections) < count:
            batch = min(MAX_DIALLING, count - len(connections))
            opening = [WsConnection.open(environment.reactor, environment.tunnel) for _ in range(batch)]
            dialling = [Deferred.fromCoroutine(one) for one in opening]
            for is_open, result in await DeferredList(dialling, consumeErrors=True):
                (connections if is_open else failures).append(cast(Any, result))
            if failures:
                failures[0].raiseException()
        return f"{count} connections are open at the same time."

    async def echo() -> str:
        expect(len(connections) == count, "Not tried, because not all clients are connected.")
        for number, connection in enumerate(connections):
            connection.send(*_messages(number))
        for number, connection in enumerate(connections, 1):
            for index, sent in enumerate(_messages(number - 1), 1):
                is_same = await connection.receive() == sent
                expect(is_same, f"Client {number} did not receive its message {index} as it was sent.")
        return f"{count * MESSAGES:,} messages came back, each to its client and in order."

    try:
        check.parts.append(await run_case(environment.reactor, "connect", "connecting", connect))
        check.parts.append(await run_case(environment.reactor, "echo", "messages", echo))
    finally:
        for connection in connections:
            connection.abort()
    return check


def _messages(number: int) -> list[Frame]:
    """Return the messages of a client: no other client sends the same ones."""
    frames = []
    for index in range(MESSAGES):
        size = SIZES[(number + index) % len(SIZES)]
        unique = hashlib.sha256(f"{number} {index}".encode()).hexdigest().encode()
        payload = (unique * (size // len(unique) + 1))[:size]
        frames.append(Frame(TEXT if index % 2 else BINARY, payload))
    return frames
