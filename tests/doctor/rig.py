"""A tunnel with a document server at its end, and stand-ins for whatever else may answer.

``hosted`` is a relay, an agent and a ``YServer`` in the test's own reactor. ``Stand`` is a server that
answers as it is told, for relays, proxies and local servers that are not as they should be. ``diagnose`` is
the doctor.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from seance.doctor.context import DoctorOptions
from seance.doctor.findings import Finding, Hop, Mark, Report
from seance.doctor.runner import walk
from seance.yserver.service import YServer
from tests.relay.rig import Rig, answer_101, reactor, until

__all__ = ["HEALTHY", "Stand", "diagnose", "finding", "hosted", "nothing_but", "opening", "plain"]


async def diagnose(relay: str | None, room: str | None = None, **orders: Any) -> Report:
    """Lets the doctor walk."""
    return await walk(reactor, DoctorOptions(relay, room, **{"timeout_seconds": 10.0, **orders}))


def finding(report: Report, hop: Hop) -> Finding:
    return next(one for one in report.findings if one.hop is hop)


def nothing_but(report: Report, hop: Hop) -> Finding:
    """The finding of the one hop that fails: those before it are well, and none after it was tried."""
    marks = {one.hop: one.mark for one in report.findings}
    at = report.hops.index(hop)
    assert report.failed is hop, report.findings
    assert {marks[one] for one in report.hops[:at]} <= {Mark.WELL, Mark.WARNING, Mark.NOT_NEEDED}
    assert {marks[one] for one in report.hops[at + 1 :]} <= {Mark.NOT_TRIED}
    assert report.exit_code == hop.exit_code
    failed = finding(report, hop)
    assert failed.advice, "whoever is told what is wrong wants to know what to do"
    return failed


@asynccontextmanager
async def hosted(
    make_rig: Callable[..., Rig] = Rig, *, agent: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Rig, YServer]]:
    """A room ``r`` with documents."""
    server = YServer(reactor)
    server.startService()
    port: Any = await server.when_listening()
    try:
        local = {"local": f"127.0.0.1:{port.getHost().port}"}
        async with make_rig(agent={**local, **(agent or {})}, **options) as rig:
            yield rig, server
    finally:
        if server.running:
            await server.stopService()


def plain(status: int, body: str, *fields: str, kind: str = "text/plain") -> bytes:
    """An HTTP answer."""
    head = [
        f"HTTP/1.1 {status} Some Reason",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *fields,
    ]
    return "\r\n".join([*head, "", body]).encode()


HEALTHY = plain(200, "OK")
"""What a relay answers to ``/health``."""


def opening(head: bytes, then: bytes = b"") -> bytes:
    """A 101 that fits an upgrade, and what follows it."""
    key = re.search(rb"Sec-WebSocket-Key: ([^\r]+)", head)
    assert key is not None, "nobody has asked for a WebSocket"
    return answer_101(key[1]) + then


class Stand:
    """A server on loopback; ``async with Stand(answer) as stand``.

    Args:
        answer: Gets a request's head and says what is answered; None for nothing at all.
        closes: Whether it hangs up afterwards.
    """

    def __init__(self, answer: Callable[[bytes], bytes | None], *, closes: bool = True) -> None:
        self._answer = answer
        self._closes = closes
        self._connections: set[Protocol] = set()
        self.heads: list[bytes] = []

    async def __aenter__(self) -> Stand:
        stand = self

        class Connection(Protocol):
            def connectionMade(self) -> None:
                stand._connections.add(self)
                self.received = b""

            def dataReceived(self, data: bytes) -> None:
                self.received += data
                if b"\r\n\r\n" not in self.received:
                    return
                stand.heads.append(self.received)
                answer, self.received = stand._answer(self.received), b""
                transport: Any = self.transport
                if answer is not None:
                    transport.write(answer)
                    if stand._closes:
                        transport.loseConnection()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                stand._connections.discard(self)

        factory = Factory.forProtocol(Connection)
        factory.noisy = False
        self._port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        return self

    async def __aexit__(self, *args: object) -> None:
        await self._port.stopListening()
        for connection in list(self._connections):
            transport: Any = connection.transport
            transport.abortConnection()
        await until(lambda: not self._connections)

    @property
    def port(self) -> int:
        number: int = self._port.getHost().port
        return number

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"
