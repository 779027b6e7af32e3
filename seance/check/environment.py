"""Provide the tunnel to check, with the local server of a check behind it.

There are three ways. Without ``--relay``, relay, agent and local server are started here. With ``--relay``,
an agent and a local server are started for that relay. With ``--relay`` and ``--room``, a room that is
already served is probed: if its local server is a ``seance check --serve``, it is used as it is; another
server is used for the Yjs check only, and an agent in another room serves the other checks.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seance.bench.comparison import BenchTarget
from seance.bench.local_server import SERVER_FIELD, SERVER_KIND
from seance.bench.subprocesses import Subprocess, TunnelProcesses
from seance.errors import Gone, Refusal
from seance.heads.fields import field_values
from seance.wsclient import Reactor, Target, WsConnection
from seance.wsclient.frames import BINARY

__all__ = ["CheckOptions", "Environment", "set_up"]

SYNC_STEP_1 = b"\0\0"
"""The first bytes that a Y-WebSocket server sends (y-protocols, sync.js)."""

NOT_SERVED = (404, 503)
"""The statuses of a relay for a room without an agent, or with an agent that is offline."""

GREETING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The user's description of the tunnel.

    Attributes:
        relay: The relay's URL; None to start one.
        room: The room; None for a random one.
        token: A client token.
        agent_token_file: A file with the agent's token.
        ca_file: PEM file of the trusted authorities; None for the system's.
    """

    relay: str | None = None
    room: str | None = None
    token: str | None = field(default=None, repr=False)
    agent_token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """The tunnel to check.

    Attributes:
        reactor: Twisted's reactor.
        tunnel: The local server of a check, through the tunnel.
        documents: A Y-WebSocket server, through the tunnel; append the name of a document.
        direct: The same local server without the tunnel; None if it is on another machine.
        relay: The relay's process, if it was started here.
        agent: The agent's process, if it was started here.
        relay_words: The relay's address for the report.
        room: The room.
        notes: Remarks for the report.
    """

    reactor: Reactor
    tunnel: Target
    documents: Target
    direct: Target | None = None
    relay: Subprocess | None = None
    agent: Subprocess | None = None
    relay_words: str = ""
    room: str = ""
    notes: tuple[str, ...] = ()

    @asynccontextmanager
    async def connect(self, path: str, **options: Any) -> AsyncIterator[WsConnection]:  # noqa: ANN401  # of open
        """Connect to ``path``, with its query, of the local server for the duration of the block."""
        bare, _, query = path.partition("?")
        connection = await WsConnection.open(self.reactor, self.tunnel.at(bare, query), **options)
        try:
            yield connection
        finally:
            connection.abort()

    @property
    def targets(self) -> tuple[BenchTarget, ...]:
        """The targets of the speed comparison."""
        tunnel = BenchTarget("tunnel", self.tunnel, self.relay, self.agent)
        return (tunnel,) if self.direct is None else (BenchTarget("direct", self.direct), tunnel)


async def set_up(reactor: Reactor, options: CheckOptions, processes: TunnelProcesses) -> Environment:
    """Return a running tunnel.

    Args:
        reactor: Twisted's reactor.
        options: The options of the command line.
        processes: Starts what is missing; the caller stops it, also after an error.

    Raises:
        SeanceError: The relay cannot be reached or refuses clients, or a process did not start.
    """
    relay, url = None, options.relay
    if url is None:
        relay, port = await processes.relay()
        url = f"ws://127.0.0.1:{port}"
    base = Target.from_url(url, token=options.token, ca_file=options.ca_file)
    room = options.room or _random_room()
    tunnel = base.at(f"c/{room}")
    documents: Target | None = None
    notes: tuple[str, ...] = ()
    # A random room is probed too: a relay that refuses clients is an error before an agent is started.
    kind = None if options.relay is None else await _server_kind(reactor, tunnel)
    if kind == SERVER_KIND:
        note = "The local server is a running seance check --serve."
        return Environment(reactor, tunnel, tunnel.at("yjs"), relay_words=str(base), room=room, notes=(note,))
    if kind is not None:
        use = "it is not used."
        if await _speaks_yjs(reactor, tunnel):
            documents, use = tunnel, "it is used for the Yjs check only."
        notes = (f"The room {room} has another local server; {use}",)
        room = _random_room()
        tunnel = base.at(f"c/{room}")
    local_port = await processes.local_server("check")
    flags = {"--token-file": options.agent_token_file, "--tls-ca": options.ca_file}
    given = [text for flag, path in flags.items() if path is not None for text in (flag, str(path))]
    return Environment(
        reactor,
        tunnel,
        documents or tunnel.at("yjs"),
        direct=Target(False, "127.0.0.1", local_port),
        relay=relay,
        agent=await processes.agent(url, room, local_port, *given),
        relay_words=str(base),
        room=room,
        notes=notes,
    )


async def _server_kind(reactor: Reactor, target: Target) -> bytes | None:
    """Return the kind of a room's local server, empty if it is not ours; None if there is no server."""
    try:
        connection = await WsConnection.open(reactor, target)
    except Refusal as refusal:
        if refusal.status in NOT_SERVED:
            return None
        raise
    connection.abort()
    return b"".join(field_values(connection.fields, SERVER_FIELD.lower()))


async def _speaks_yjs(reactor: Reactor, target: Target) -> bool:
    """Return whether a server's first message is that of a Y-WebSocket server."""
    connection = await WsConnection.open(reactor, target.at(_random_room()))
    try:
        frame = await connection.receive(GREETING_SECONDS)
    except Gone:
        return False
    finally:
        connection.abort()
    return frame.opcode == BINARY and frame.payload.startswith(SYNC_STEP_1)


def _random_room() -> str:
    return f"seance-check-{secrets.token_hex(6)}"
