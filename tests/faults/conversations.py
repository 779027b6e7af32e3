"""Clients that exchange numbered messages with the local server in both directions, and detect each loss.

Clients and local server share one process, so each conversation is one object that knows what both ends have
sent. ``tests.faults.numbered`` and other scenarios break the path between them. Messages are WebSocket frames
of fixed length, masked with a key of zeros, so that a thousand clients use little CPU. The tunnel does not
interpret them, and a damaged frame does not parse. A client that loses its connection connects again with a
new conversation; the loss is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.e2e.wire import switching, upgrade
from tests.faults.loops import Loop
from tests.processes import DEADLINE_SECONDS

__all__ = ["Conversation", "Numbered", "Sequence", "Toll"]

PAYLOAD_BYTES = 100
BODY = struct.Struct(">QdI")
FILLER = bytes(range(PAYLOAD_BYTES - BODY.size))
FROM_CLIENT = bytes([0x82, 0x80 | PAYLOAD_BYTES, 0, 0, 0, 0])
FROM_SERVER = bytes([0x82, PAYLOAD_BYTES])
REDIAL_SECONDS = 0.5
TICK_SECONDS = 0.05


class Sequence:
    """Checks the numbers of the messages at one end, which must be 0, 1, 2, ...

    Attributes:
        next: The next expected number.
        duplicated: Messages that had arrived before.
        misordered: Messages that arrived after a later one.
    """

    def __init__(self) -> None:
        self.next = 0
        self.duplicated = 0
        self.misordered = 0
        self._missing: set[int] = set()

    @property
    def lost(self) -> int:
        """Messages that were skipped and have not arrived since."""
        return len(self._missing)

    def take(self, number: int) -> None:
        """Count one message."""
        if number == self.next:
            self.next += 1
        elif number in self._missing:
            self._missing.remove(number)
            self.misordered += 1
        elif number < self.next:
            self.duplicated += 1
        else:
            self._missing.update(range(self.next, number))
            self.next = number + 1


@dataclass(slots=True)
class Conversation:
    """One connection of one client, seen from both ends.

    Attributes:
        is_lost: Whether it ended without being closed by the test.
        broken: Description of bytes that did not parse; empty if all did.
        longest_gap_seconds: The longest time in which the client received nothing.
        servers: The ports of the local servers that took part; more than one means that rooms were mixed up.
    """

    number: int
    sent_by_client: int = 0
    sent_by_server: int = 0
    at_client: Sequence = field(default_factory=Sequence)
    at_server: Sequence = field(default_factory=Sequence)
    client: asyncio.Transport | None = None
    server: asyncio.Transport | None = None
    is_lost: bool = False
    broken: str = ""
    heard_at: float = 0.0
    longest_gap_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    servers: set[int] = field(default_factory=set)

    @property
    def is_even(self) -> bool:
        """Whether everything that was sent has arrived."""
        return self.at_client.next == self.sent_by_server and self.at_server.next == self.sent_by_client


@dataclass(frozen=True, slots=True)
class Toll:
    """The damage of a fault for all clients together. All of ``fates`` must be 0."""

    clients_disconnected: int
    messages_lost: int
    messages_duplicated: int
    messages_misordered: int
    messages_broken: int
    messages: int
    gap_p99_ms: float
    gap_max_ms: float
    delay_p50_ms: float
    delay_p99_ms: float

    @property
    def fates(self) -> dict[str, int]:
        """The number of each kind of damage."""
        return {
            "clients_disconnected": self.clients_disconnected,
            "messages_lost": self.messages_lost,
            "messages_duplicated": self.messages_duplicated,
            "messages_misordered": self.messages_misordered,
            "messages_broken": self.messages_broken,
        }


class Numbered:
    """A local server and its clients.

    Args:
        loop: The loop of the clients.
        server_loop: The loop of the local server, if that is on another machine. The objects are shared.
        count: Number of clients.
        every_seconds: Interval between messages of a client, in each direction.
        host: Address of the local server.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        count: int,
        every_seconds: float,
        server_loop: Loop | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._loop = loop
        self._server_loop = server_loop or loop
        self._count = count
        self._every_seconds = every_seconds
        self._host = host
        self.port = 0
        self._address = ("", 0)
        self._room = ""
        self._conversations: list[Conversation] = []
        self._current: dict[int, Conversation] = {}
        self._dialling: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.refusals: list[int] = []
        self.server_ends: set[_ServerEnd] = set()
        self._servers: list[asyncio.Server] = []

    # -- called by tests --------------------------------------------------------------------

    def dial(self, address: tuple[str, int], room: str, *, deadline_seconds: float = 60.0) -> None:
        """Connect every client, fifty at a time, and start the messages."""
        self._address, self._room = address, room
        self._loop.run(self._dial_all(), deadline_seconds=deadline_seconds)

    def settle(self, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        """Stop sending, and wait until everything sent has arrived; fail if it does not."""
        self._loop.run(self._settle(deadline_seconds), deadline_seconds=deadline_seconds + 5)

    def hang_up(self) -> None:
        """Close every connection in order."""
        self._loop.call(self._hang_up)

    def listen_again(self) -> int:
        """Start another local server of the same kind; return its port."""
        return self._server_loop.run(self._listen())

    def drop_at_server(self, holds: Callable[[int], bool]) -> int:
        """Reset the connections of some clients from the local server's side; return their number."""

        def drop() -> int:
            dropped = [
                end
                for end in self.server_ends
                if end.conversation is not None and holds(end.conversation.number)
            ]
            for end in dropped:
                end.transport.abort()
            return len(dropped)

        return self._server_loop.call(drop)

    def stop_listening(self) -> None:
        """Stop the local server: it refuses new connections, and every connection is reset."""
        self._server_loop.call(self._servers.pop(0).close)
        self.drop_at_server(lambda _: True)

    def resume_listening(self) -> None:
        """Start it again, on its port."""
        self._server_loop.run(self._listen(self.port))

    @property
    def servers_of_each(self) -> list[set[int]]:
        """The local servers of each conversation."""
        return [one.servers for one in list(self._conversations) if one.servers]

    @property
    def connected_count(self) -> int:
        """The number of connected clients."""
        return sum(one.client is not None and not one.is_lost for one in list(self._current.values()))

    @property
    def local_count(self) -> int:
        """The number of connections at the local server."""
        return len(self.server_ends)

    @property
    def message_count(self) -> int:
        """The number of messages that have arrived, both directions together."""
        return sum(one.at_client.next + one.at_server.next for one in list(self._conversations))

    def heard_counts(self) -> dict[int, int]:
        """Return the number of messages that each open connection has delivered to its client."""
        return {id(one): one.at_client.next for one in list(self._current.values()) if not one.is_lost}

    def toll(self) -> Toll:
        """Return the damage so far."""
        every = list(self._conversations)
        ends = [end for one in every for end in (one.at_client, one.at_server)]
        gaps = sorted(1000 * one.longest_gap_seconds for one in every) or [0.0]
        delays = sorted(1000 * seconds for one in every for seconds in one.seconds) or [0.0]
        return Toll(
            clients_disconnected=sum(one.is_lost for one in every),
            messages_lost=sum(end.lost for end in ends),
            messages_duplicated=sum(end.duplicated for end in ends),
            messages_misordered=sum(end.misordered for end in ends),
            messages_broken=sum(bool(one.broken) for one in every),
            messages=self.message_count,
            gap_p99_ms=round(gaps[len(gaps) * 99 // 100], 1),
            gap_max_ms=round(gaps[-1], 1),
            delay_p50_ms=round(delays[len(delays) // 2], 1),
            delay_p99_ms=round(delays[len(delays) * 99 // 100], 1),
        )

    def __enter__(self) -> Self:
        self.port = self.listen_again()
        self._ticking = [
            loop.call(asyncio.ensure_future, self._tick(is_client))
            for loop, is_client in ((self._loop, True), (self._server_loop, False))
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call(self._hang_up)
        for server in self._servers:
            self._server_loop.call(server.close)
        for loop, ticking in zip((self._loop, self._server_loop), self._ticking, strict=True):
            loop.call(ticking.cancel)

    # -- in the loops ----------------------------------------------------------------------

    async def _listen(self, port: int = 0) -> int:
        loop = asyncio.get_running_loop()

        def end() -> _ServerEnd:
            return _ServerEnd(self, port)

        server = await loop.create_server(end, self._host, port, backlog=1000)
        self._servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return port

    async def _dial_all(self) -> None:
        for start in range(0, self._count, 50):
            numbers = range(start, min(start + 50, self._count))
            await asyncio.gather(*map(self._dial, numbers))

    async def _dial(self, number: int) -> None:
        while not self._is_over:
            conversation = Conversation(number)
            loop = asyncio.get_running_loop()
            end = _ClientEnd(self, conversation, len(self._conversations))
            self._conversations.append(conversation)
            with contextlib.suppress(OSError):
                await loop.create_connection(lambda end=end: end, *self._address)  # type: ignore[misc]
                status = await end.answered
                if status == 101:
                    self._current[number] = conversation
                    return
                self.refusals.append(status)
            await asyncio.sleep(REDIAL_SECONDS)

    def conversation(self, index: int) -> Conversation:
        """Return the conversation that a client has named in its request."""
        return self._conversations[index]

    def lost(self, conversation: Conversation) -> None:
        """Handle the end of a client's connection: connect again unless the test closed it."""
        if not self._is_over and self._current.get(conversation.number) is conversation:
            conversation.is_lost = True
            task = asyncio.ensure_future(self._dial(conversation.number))
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)

    async def _tick(self, is_client: bool) -> None:
        # A part of the clients in each tick, so that they do not all send at the same moment.
        ticks = max(1, round(self._every_seconds / TICK_SECONDS))
        turn = 0
        while not self._is_over:
            began = time.monotonic()
            for number, conversation in list(self._current.items()):
                if number % ticks == turn % ticks:
                    self._say(conversation, is_client)
            turn += 1
            await asyncio.sleep(max(0.0, TICK_SECONDS - (time.monotonic() - began)))

    def _say(self, conversation: Conversation, is_client: bool) -> None:
        transport = conversation.client if is_client else conversation.server
        if transport is None or transport.is_closing() or conversation.is_lost:
            return
        number = conversation.sent_by_client if is_client else conversation.sent_by_server
        now = time.monotonic()
        body = BODY.pack(number, now, zlib.crc32(b"%d %d" % (conversation.number, number)))
        transport.write((FROM_CLIENT if is_client else FROM_SERVER) + body + FILLER)
        if is_client:
            conversation.sent_by_client += 1
        else:
            conversation.sent_by_server += 1

    async def _settle(self, deadline_seconds: float) -> None:
        self._is_over = True
        await asyncio.sleep(2 * TICK_SECONDS)
        end = time.monotonic() + deadline_seconds
        while uneven := [one for one in self._current.values() if not one.is_even and not one.is_lost]:
            if time.monotonic() > end:
                one = uneven[0]
                counts = (one.sent_by_client, one.at_server.next, one.sent_by_server, one.at_client.next)
                msg = (
                    f"{len(uneven)} of {len(self._current)} clients still miss something after "
                    f"{deadline_seconds} s; the first: sent, arrived, sent, arrived: {counts}"
                )
                raise AssertionError(msg)
            await asyncio.sleep(0.02)

    def _hang_up(self) -> None:
        self._is_over = True
        for task in self._dialling:
            task.cancel()
        for conversation in self._conversations:
            if conversation.client is not None:
                conversation.client.close()


class _End(asyncio.Protocol):
    """The common part of both ends: parse messages after the upgrade, and count them."""

    prefix: bytes
    transport: asyncio.Transport
    sequence: Sequence
    conversation: Conversation | None = None

    def __init__(self, load: Numbered) -> None:
        self._load = load
        self._head: bytes | None = b""
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = None
            if not self.upgraded(head):
                self.transport.abort()
                return
        conversation = self.conversation
        assert conversation is not None, "the head has named it"
        self._rest += data
        size = len(self.prefix) + PAYLOAD_BYTES
        now = time.monotonic()
        start = 0
        while len(self._rest) - start >= size and not conversation.broken:
            self._take(conversation, self._rest[start : start + size], now)
            start += size
        self._rest = self._rest[start:]

    def _take(self, conversation: Conversation, message: bytes, now: float) -> None:
        number, sent_at, check = BODY.unpack_from(message, len(self.prefix))
        is_whole = message.startswith(self.prefix) and message.endswith(FILLER)
        if not is_whole or check != zlib.crc32(b"%d %d" % (conversation.number, number)):
            conversation.broken = f"client {conversation.number}: {message!r}"
            return
        self.sequence.take(number)
        conversation.seconds.append(now - sent_at)

    def upgraded(self, head: bytes) -> bool:
        """Read the head; False ends the connection."""
        raise NotImplementedError


class _ClientEnd(_End):
    prefix = FROM_SERVER

    def __init__(self, load: Numbered, conversation: Conversation, index: int) -> None:
        super().__init__(load)
        self.conversation = conversation
        self.sequence = conversation.at_client
        self._index = index
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(upgrade(f"/c/{self._load._room}/{self._index}"))

    def upgraded(self, head: bytes) -> bool:
        status = int(head.split(b" ", 2)[1])
        assert self.conversation is not None
        if status == 101:
            self.conversation.client = self.transport
            self.conversation.heard_at = time.monotonic()
        if not self.answered.done():
            self.answered.set_result(status)
        return status == 101

    def data_received(self, data: bytes) -> None:
        conversation = self.conversation
        if conversation is not None and conversation.client is not None:
            now = time.monotonic()
            gap = now - conversation.heard_at
            conversation.longest_gap_seconds = max(conversation.longest_gap_seconds, gap)
            conversation.heard_at = now
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionResetError())
        assert self.conversation is not None
        if self.conversation.client is not None:
            self._load.lost(self.conversation)


class _ServerEnd(_End):
    prefix = FROM_CLIENT

    def __init__(self, load: Numbered, port: int) -> None:
        super().__init__(load)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._load.server_ends.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.server_ends.discard(self)

    def upgraded(self, head: bytes) -> bool:
        index = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
        [key] = [line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: ")]
        self.conversation = self._load.conversation(index)
        self.sequence = self.conversation.at_server
        self.conversation.servers.add(self._port)
        self.transport.write(switching(key))
        self.conversation.server = self.transport
        return True
