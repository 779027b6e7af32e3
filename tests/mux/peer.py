"""The other end of a link, controlled by the test: it sends any frame and records what it receives."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from seance.mux import Mux, StreamTransport
from seance.yamux import Limits, Role
from seance.yamux.bulk_limit import BULK_PING_VALUE
from tests.ears import Ear
from tests.rigs import OneByOne
from tests.wire import Wire, run
from tests.yamux.frame_bytes import ACK, PING, SYN, WireFrame, ping, read_frames, window

__all__ = ["CALM", "AgentLink", "Peer"]

CALM = Limits(ping_after_seconds=None)
"""The default limits without a keepalive, for tests that advance the clock for another reason."""


class Peer(Ear):
    """Sends and receives single yamux frames, and answers the pings that measure the path."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = 0
        self._answered_bytes = 0
        self.answers_pings = True

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        frames, rest = read_frames(bytes(self.data[self._answered_bytes :]))
        self._answered_bytes = len(self.data) - len(rest)
        values = [one.length for one in frames if _measures(one)]
        if values and self.answers_pings:
            self.transport.write(b"".join(ping(ACK, value) for value in values))

    @property
    def frames(self) -> list[WireFrame]:
        """All received frames, except pings."""
        frames, _ = read_frames(bytes(self.data))
        return [frame for frame in frames if frame.kind != PING]

    @property
    def pings(self) -> list[WireFrame]:
        frames, _ = read_frames(bytes(self.data))
        return [frame for frame in frames if frame.kind == PING and not _measures(frame)]

    def take(self) -> list[WireFrame]:
        """Return the frames received since the last call."""
        frames = self.frames[self._taken :]
        self._taken += len(frames)
        return frames

    def body(self, stream_id: int) -> bytes:
        return b"".join(frame.body for frame in self.frames if frame.stream_id == stream_id)


def _measures(frame: WireFrame) -> bool:
    return frame.kind == PING and frame.flags == SYN and frame.length >= BULK_PING_VALUE


class AgentLink:
    """A mux on the relay's side, and a ``Peer`` that plays the agent.

    Attributes:
        lost: The arguments of the calls of ``on_lost``.
    """

    def __init__(self, limits: Limits = CALM, *, is_connected: bool = True, **shape: int) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock, **shape)
        self.peer = Peer()
        self.lost: list[str] = []
        self.factory = OneByOne()
        self.mux = Mux(
            cast(IReactorTime, self.clock),
            Role.SERVER,
            limits=limits,
            on_lost=self.lost.append,
            linger_seconds=30.0,
        )
        if is_connected:
            self.connect()

    def connect(self) -> None:
        self.wire.join(self.mux, self.peer)
        self.run()

    def lift_bulk_limit(self) -> None:
        """Let bulk data fill the carrier, as for a peer that answers no pings."""
        self.peer.answers_pings = False
        self.mux.session._outbox.bulk_limit._is_off = True

    @property
    def messages(self) -> list[bytes]:
        """The messages written to the carrier."""
        return self.wire.near.written

    def run(self) -> None:
        run(self.clock)

    def hear(self, *frames: bytes) -> list[WireFrame]:
        """Send frames from the peer as one chunk; return what it receives until both sides are idle."""
        self.peer.transport.write(b"".join(frames))
        self.run()
        return self.peer.take()

    def open(self, ear: Ear, *, window_bytes: int = 0) -> StreamTransport:
        """Open a stream of ours. The peer accepts it and grants ``window_bytes`` more."""
        stream = self.mux.open_stream(ear)
        self.run()
        self.hear(window(stream.stream_id, ACK, window_bytes))
        return stream

    def accept(self, ear: Ear, stream_id: int = 1, *, window_bytes: int = 0) -> Any:
        """Open a stream from the peer; return its transport."""
        self.factory.coming.append(ear)
        self.mux.listen(self.factory)
        self.hear(window(stream_id, SYN, window_bytes))
        return ear.transport

    def end(self) -> None:
        """Cut the carrier and check that nothing is left."""
        self.wire.near.abortConnection()
        self.run()
        assert self.clock.getDelayedCalls() == []
        assert self.mux.stream_count == 0
