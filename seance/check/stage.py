"""Where a check takes place: the tunnel, its local server, and perhaps a way to that past the tunnel.

Three ways to have one. Nothing is named: relay, agent and local server are started here. A relay is named:
agent and local server are started here and the agent goes to that relay. A room is named too, and somebody
serves it already: if that is a ``seance check --serve``, it is used as it is; if it is another server, it is
left in peace but for the Yjs check, and everything else goes through an agent of ours in a room of its own.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seance.bench.children import Child, Children
from seance.bench.comparison import Side
from seance.bench.local_server import MARK
from seance.check.local_server import CHECK_MARK
from seance.errors import Gone, Refusal
from seance.heads.fields import field_values
from seance.wsclient import WsConnection
from seance.wsclient.dial import Target
from seance.wsclient.frames import BINARY

__all__ = ["Given", "Stage", "set_up"]

SYNC_STEP_1 = b"\0\0"
"""How a Y-WebSocket server begins (y-protocols, sync.js)."""

NOBODY = (404, 503)
"""What a relay answers for a room that nobody serves, or nobody at the moment."""

GREETING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Given:
    """What the person has told.

    Attributes:
        relay: Its URL; None to start one.
        room: Which room; None for one of our own.
        token: For clients.
        agent_token_file: For the agent.
        ca_file: The authorities to believe.
    """

    relay: str | None = None
    room: str | None = None
    token: str | None = field(default=None, repr=False)
    agent_token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What is checked.

    Attributes:
        reactor: Twisted's reactor.
        tunnel: The local server of a check, through the tunnel.
        documents: A Y-WebSocket server, through the tunnel; a document's name is still to come.
        direct: The local server past the tunnel; None if it is elsewhere.
        relay: The relay's process, if it is ours.
        agent: The agent's.
        relay_words: The relay's address, for the report.
        room: The room.
        notes: What the reader should know.
    """

    reactor: Any
    tunnel: Target
    documents: Target
    direct: Target | None = None
    relay: Child | None = None
    agent: Child | None = None
    relay_words: str = ""
    room: str = ""
    notes: tuple[str, ...] = ()

    @asynccontextmanager
    async def talk(self, place: str, query: str = "", **more: Any) -> AsyncIterator[WsConnection]:  # noqa: ANN401  # of WsConnection.open
        """Dial a place of the local server, for the time of an ``async with`` block."""
        talk = await WsConnection.open(self.reactor, self.tunnel.at(place, query), **more)
        try:
            yield talk
        finally:
            talk.abort()

    @property
    def sides(self) -> tuple[Side, ...]:
        """What to compare the speed of."""
        tunnel = Side("tunnel", self.tunnel, self.relay, self.agent)
        return (tunnel,) if self.direct is None else (Side("direct", self.direct), tunnel)


async def set_up(reactor: Any, given: Given, children: Children) -> Stage:  # noqa: ANN401  # a reactor
    """Have everything running.

    Args:
        reactor: Twisted's reactor.
        given: What there is.
        children: Keeps what is started; to be stopped by the caller, whatever comes of this.

    Raises:
        SeanceError: It cannot be had.
    """
    relay = None
    url = given.relay
    if url is None:
        relay, port = await children.relay()
        url = f"ws://127.0.0.1:{port}"
    base = Target.from_url(url, token=given.token, ca_file=given.ca_file)

    def room_of(name: str) -> Target:
        return base.at(f"c/{name}")

    room = given.room or _own_room()
    documents: Target | None = None
    notes: tuple[str, ...] = ()
    if given.relay is not None:
        # Also for a room of our own, where nobody is: what keeps clients out is said here, at once.
        server = await _server_of(reactor, room_of(room))
        if server is _Server.CHECK:
            tunnel = room_of(room)
            note = "The local server is a seance check --serve that was there already."
            return Stage(
                reactor,
                tunnel,
                tunnel.at("yjs"),
                relay=relay,
                relay_words=str(base),
                room=room,
                notes=(note,),
            )
        if server is _Server.OTHER:
            note = f"The room {room} has a local server of its own, "
            if await _speaks_yjs(reactor, room_of(room)):
                documents, notes = room_of(room), (f"{note}used for the Yjs check alone.",)
            else:
                notes = (f"{note}which is left in peace.",)
            room = _own_room()
    local_port = await children.local_server("check")
    options: list[str] = []
    if given.agent_token_file is not None:
        options += ["--token-file", str(given.agent_token_file)]
    if given.ca_file is not None:
        options += ["--tls-ca", str(given.ca_file)]
    agent = await children.agent(url, room, local_port, *options)
    return Stage(
        reactor,
        tunnel=room_of(room),
        documents=documents or room_of(room).at("yjs"),
        direct=Target(False, "127.0.0.1", local_port),
        relay=relay,
        agent=agent,
        relay_words=str(base),
        room=room,
        notes=notes,
    )


class _Server(enum.Enum):
    """Who serves a room."""

    NOBODY = "nobody"
    CHECK = "check"
    OTHER = "other"


async def _server_of(reactor: Any, target: Target) -> _Server:  # noqa: ANN401  # a reactor
    try:
        talk = await WsConnection.open(reactor, target)
    except Refusal as refusal:
        if refusal.status in NOBODY:
            return _Server.NOBODY
        raise
    talk.abort()
    is_ours = field_values(talk.fields, MARK.lower()) == [CHECK_MARK]
    return _Server.CHECK if is_ours else _Server.OTHER


async def _speaks_yjs(reactor: Any, target: Target) -> bool:  # noqa: ANN401  # a reactor
    """Whether a server begins as a Y-WebSocket server does."""
    talk = await WsConnection.open(reactor, target.at(_own_room()))
    try:
        frame = await talk.receive(GREETING_SECONDS)
    except Gone:
        return False
    finally:
        talk.abort()
    return frame.opcode == BINARY and frame.payload.startswith(SYNC_STEP_1)


def _own_room() -> str:
    return f"seance-check-{secrets.token_hex(6)}"
