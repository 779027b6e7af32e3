"""Two sessions at the ends of a line with buffers, other traffic and jitter. The time is simulated.

The line is one buffer that empties at a rate, and a delay. What does not fit into the buffer waits in the
sender's kernel, in the same order, because TCP retransmits what a full buffer has dropped. The other
direction has the same delay and no limit.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from seance.yamux import KIB, DataReceived, Limits, Role, Session, StreamOpened
from tests.yamux.frame_bytes import PING, frame, read_frames

__all__ = ["MBIT", "Line"]

MBIT = 1_000_000 / 8
"""1 Mbit/s, in bytes per second."""

LIMITS = Limits(ping_after_seconds=None, receive_window_max_bytes=16 * 1024 * KIB)

KERNEL_BYTES = 8 * KIB
"""Unsent bytes in the kernel beyond which a carrier is full (``seance.net.send_queue``)."""

KEY_BYTES = 100


@dataclass
class Line:
    """An agent that sends over a line to a relay.

    Attributes:
        bytes_per_second: Rate of the line.
        one_way_seconds: Delay in each direction, without the buffer.
        buffer_bytes: Size of the buffer.
        packet_bytes: Maximum size of a packet.
        jitter_seconds: Maximum random delay in addition, in each direction; the order is kept.
        answers_pings: Whether the relay's pongs arrive.
    """

    bytes_per_second: float = MBIT
    one_way_seconds: float = 0.02
    buffer_bytes: int = 64 * KIB
    packet_bytes: int = 1500
    jitter_seconds: float = 0.0
    answers_pings: bool = True
    now: float = 0.0
    echoes: list[tuple[float, float]] = field(default_factory=list)
    """When each keystroke was typed, and how long its way was."""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When bulk data arrived, and how much."""
    foreign: list[tuple[float, float]] = field(default_factory=list)
    """When each packet of other traffic was sent, and how long it waited."""

    def __post_init__(self) -> None:
        self.relay = Session(Role.SERVER, limits=LIMITS)
        self.agent = Session(Role.CLIENT, limits=LIMITS)
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._buffer: deque[tuple[int, Callable[[], object]]] = deque()
        self._own_bytes = 0
        self._is_busy = False
        self._last_arrival = {Role.SERVER: 0.0, Role.CLIENT: 0.0}
        self._dice = random.Random(1)
        self._bulk: dict[int, float] = {}
        self._typed: dict[int, deque[float]] = {}
        self._typed_bytes = 0
        self._wakes_at = {Role.SERVER: 0.0, Role.CLIENT: 0.0}

    # Traffic.

    def transfer(self, size: float = float("inf")) -> int:
        """Send bulk data from the agent, on a new stream; return the stream."""
        stream_id = self.agent.open_stream(self.now)
        self._bulk[stream_id] = size
        return stream_id

    def type_keys(self, every_seconds: float = 0.05) -> None:
        """Send 100 bytes at an interval, on a new stream."""
        stream_id = self.agent.open_stream(self.now)
        typed = self._typed[stream_id] = deque()

        def type_key() -> None:
            typed.append(self.now)
            self.agent.send_data(stream_id, bytes(KEY_BYTES))
            self.after(every_seconds, type_key)

        self.after(0.0, type_key)

    def call(self, bytes_per_second: float) -> None:
        """Send other traffic with a constant rate."""

        def send() -> None:
            self._send_foreign()
            self.after(self.packet_bytes / bytes_per_second, send)

        self.after(0.0, send)

    def upload(self, share: float = 1.0) -> None:
        """Send other traffic that keeps the buffer full, as a transfer with TCP does.

        It drops to 0.7 of the buffer when that is full, as CUBIC does.
        """
        window = self.buffer_bytes * share
        level = [0.7]
        outstanding = [0]

        def arrived() -> None:
            outstanding[0] -= self.packet_bytes
            level[0] += 0.3 * self.packet_bytes / window / 4
            if level[0] >= 1.0:
                level[0] = 0.7
            fill()

        def fill() -> None:
            while outstanding[0] + self.packet_bytes <= window * level[0]:
                outstanding[0] += self.packet_bytes
                self._send_foreign(arrived)

        self.after(0.0, fill)

    def _send_foreign(self, then: Callable[[], object] = lambda: None) -> None:
        sent_at = self.now

        def passed() -> None:
            self.foreign.append((sent_at, self.now - sent_at))
            self.after(2 * self.one_way_seconds, then)

        self._enqueue(self.packet_bytes, passed)

    # Time.

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), call))

    def run(self, until: float) -> None:
        """Advance the time."""
        self._flush()
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, call = heapq.heappop(self._agenda)
            call()
            self._flush()
        self.now = until

    # Figures.

    def waits(self, begin: float = 0.0, end: float = float("inf")) -> list[float]:
        """Return how long keystrokes took, both ways, sorted."""
        return sorted(took for typed, took in self.echoes if begin <= typed < end)

    def share(self, begin: float, end: float) -> float:
        """Return the share of the line that bulk data had."""
        return sum(size for at, size in self.arrivals if begin <= at < end) / (
            (end - begin) * self.bytes_per_second
        )

    # Inside.

    def _flush(self) -> None:
        for role, session in ((Role.SERVER, self.relay), (Role.CLIENT, self.agent)):
            due = session.next_deadline()
            if due is not None and due <= self.now:
                session.handle_timeout(self.now)
            self._take_events(role, session)
            self._fill()
            while not self._is_full(role):
                message = b"".join(session.next_message(64 * KIB, self.now))
                if not message:
                    break
                self._send(role, message)
                self._take_events(role, session)
                self._fill()
            due = session.next_deadline()
            if due is not None and not self.now < self._wakes_at[role] <= due:
                self._wakes_at[role] = max(due, self.now)
                self.after(self._wakes_at[role] - self.now, lambda: None)

    def _is_full(self, role: Role) -> bool:
        return role is Role.CLIENT and self._own_bytes >= self.buffer_bytes + KERNEL_BYTES

    def _fill(self) -> None:
        for stream_id, size in self._bulk.items():
            if size and self.agent.queued_bytes(stream_id) <= 48 * KIB:
                piece = int(min(size, 64 * KIB))
                self.agent.send_data(stream_id, bytes(piece))
                self._bulk[stream_id] = size - piece

    def _take_events(self, role: Role, session: Session) -> None:
        for event in session.take_events():
            if isinstance(event, StreamOpened):
                session.accept_stream(event.stream_id)
            elif isinstance(event, DataReceived):
                session.data_taken(event.stream_id, len(event.data))
                if role is Role.SERVER:
                    self._arrived(event.stream_id, len(event.data))

    def _arrived(self, stream_id: int, size: int) -> None:
        if stream_id in self._bulk:
            self.arrivals.append((self.now, size))
        elif (typed := self._typed.get(stream_id)) is not None:
            self._typed_bytes += size
            while self._typed_bytes >= KEY_BYTES:
                self._typed_bytes -= KEY_BYTES
                typed_at = typed.popleft()
                self.echoes.append((typed_at, self.now - typed_at + self.one_way_seconds))

    def _send(self, role: Role, message: bytes) -> None:
        if role is Role.SERVER:
            if not self.answers_pings:
                frames, _ = read_frames(message)
                message = b"".join(
                    frame(one.kind, one.flags, one.stream_id, one.length, one.body)
                    for one in frames
                    if one.kind != PING
                )
            self._deliver(role.peer, message)
        else:
            parts = range(0, len(message), self.packet_bytes)
            for at in parts:
                packet = message[at : at + self.packet_bytes]
                self._own_bytes += len(packet)
                self._enqueue(len(packet), lambda packet=packet: self._arrive(packet))

    def _arrive(self, packet: bytes) -> None:
        self._own_bytes -= len(packet)
        self._deliver(Role.SERVER, packet)

    def _enqueue(self, size: int, then: Callable[[], object]) -> None:
        self._buffer.append((size, then))
        if not self._is_busy:
            self._pass_next()

    def _pass_next(self) -> None:
        self._is_busy = bool(self._buffer)
        if self._buffer:
            size, then = self._buffer[0]

            def passed() -> None:
                self._buffer.popleft()
                then()
                self._pass_next()

            self.after(size / self.bytes_per_second, passed)

    def _deliver(self, role: Role, data: bytes) -> None:
        delay = self.one_way_seconds + self._dice.uniform(0, self.jitter_seconds)
        due = max(self.now + delay, self._last_arrival[role])
        self._last_arrival[role] = due
        session = self.relay if role is Role.SERVER else self.agent
        self.after(due - self.now, lambda: session.receive_data(data, self.now))
