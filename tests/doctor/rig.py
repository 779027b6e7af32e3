"""A tunnel with a document server, and a stub server.

``running_tunnel`` is a relay, an agent and a ``YServer`` in the reactor of the test. ``StubServer`` sends
prepared responses, for faulty relays, proxies and local servers. ``diagnose`` runs the doctor.
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
from seance.doctor.findings import DoctorReport, Finding, Hop, HopStatus
from seance.doctor.runner import run_checks
from seance.yserver.service import YServer
from tests.relay.rig import Rig, answer_101, reactor, until

__all__ = [
    "HEALTHY",
    "StubServer",
    "accept_upgrade",
    "diagnose",
    "finding",
    "only_failure",
    "reply",
    "running_tunnel",
]


async def diagnose(relay: str | None, room: str | None = None, **options: Any) -> DoctorReport:
    """Run the doctor."""
    return await run_checks(reactor, DoctorOptions(relay, room, **{"timeout_seconds": 10.0, **options}))


def finding(report: DoctorReport, hop: Hop) -> Finding:
    return next(one for one in report.findings if one.hop is hop)


def only_failure(report: DoctorReport, hop: Hop) -> Finding:
    """Return the finding of the hop that fails; no hop before it fails, and no hop after it was tried."""
    statuses = {one.hop: one.status for one in report.findings}
    at = report.hops.index(hop)
    assert report.failed is hop, report.findings
    assert {statuses[one] for one in report.hops[:at]} <= {
        HopStatus.OK,
        HopStatus.WARNING,
        HopStatus.NOT_NEEDED,
    }
    assert {statuses[one] for one in report.hops[at + 1 :]} <= {HopStatus.NOT_TRIED}
    assert report.exit_code == hop.exit_code
    failed = finding(report, hop)
    assert failed.advice, "a failure without advice"
    return failed


@asynccontextmanager
async def running_tunnel(
    make_rig: Callable[..., Rig] = Rig, *, agent: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Rig, YServer]]:
    """A relay, an agent for the room ``r``, and a document server."""
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


def reply(status: int, body: str, *fields: str, kind: str = "text/plain") -> bytes:
    """Return an HTTP response with a text body."""
    head = [
        f"HTTP/1.1 {status} Some Reason",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        *fields,
    ]
    return "\r\n".join([*head, "", body]).encode()


HEALTHY = reply(200, "OK")
"""The response of a relay to ``/health``."""


def accept_upgrade(head: bytes, then: bytes = b"") -> bytes:
    """Return a valid 101 for an upgrade request, followed by ``then``."""
    key = re.search(rb"Sec-WebSocket-Key: ([^\r]+)", head)
    assert key is not None, "the request is not an upgrade"
    return answer_101(key[1]) + then


class StubServer:
    """A server on loopback; ``async with StubServer(answer) as server``.

    Args:
        answer: Called with the head of a request; returns the bytes to send, or None to send nothing.
        closes: Whether to close the connection afterwards.
    """

    def __init__(self, answer: Callable[[bytes], bytes | None], *, closes: bool = True) -> None:
        self._answer = answer
        self._closes = closes
        self._connections: set[Protocol] = set()
        self.heads: list[bytes] = []

    async def __aenter__(self) -> StubServer:
        server = self

        class Connection(Protocol):
            def connectionMade(self) -> None:
                server._connections.add(self)
                self.received = b""

            def dataReceived(self, data: bytes) -> None:
                self.received += data
                if b"\r\n\r\n" not in self.received:
                    return
                server.heads.append(self.received)
                answer, self.received = server._answer(self.received), b""
                transport: Any = self.transport
                if answer is not None:
                    transport.write(answer)
                    if server._closes:
                        transport.loseConnection()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                server._connections.discard(self)

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
