"""Two sessions at the ends of a path with a delay and a bandwidth. The time is simulated.

The carrier accepts one message at a time and asks for the next one when it was sent, like a socket with a
small send buffer. ``Uploads`` plays splices on the agent's side, which keep little more than 64 KiB in the
session.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from seance.yamux import KIB, DataReceived, Event, Limits, Role, Session, StreamAborted, StreamOpened

__all__ = ["MBIT", "Path", "Uploads"]

MBIT = 1_000_000 / 8
"""1 Mbit/s, in bytes per second."""


@dataclass
class Path:
    """A relay and an agent, and messages in flight.

    Attributes:
        bytes_per_second: Bandwidth from the agent to the relay; the other direction is unlimited.
        one_way_seconds: Delay in one direction.
        message_bytes: Maximum size of a message.
        before_message: Called before the agent is asked for a message.
        heard: Called with the events of a side, after the side has handled them.
    """

    bytes_per_second: float
    one_way_seconds: float
    relay_limits: Limits
    agent_limits: Limits
    message_bytes: int = 64 * KIB
    before_message: Callable[[], object] = lambda: None
    heard: Callable[[Role, Event], object] = lambda role, event: None
    now: float = 0.0
    sent_bytes: int = 0
    _is_sending: dict[Role, bool] = field(default_factory=lambda: dict.fromkeys(Role, False))
    _agenda: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.relay = Session(Role.SERVER, limits=self.relay_limits)
        self.agent = Session(Role.CLIENT, limits=self.agent_limits)
        self.sessions = {Role.SERVER: self.relay, Role.CLIENT: self.agent}

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), call))

    def run(self, until: float) -> None:
        """Advance the time."""
        self.flush()
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, call = heapq.heappop(self._agenda)
            call()
            self.flush()
        self.now = until

    def flush(self) -> None:
        """Report the events, and send what can be sent."""
        for role, session in self.sessions.items():
            self._tell(role)
            if not self._is_sending[role] and not session.is_closed:
                self._send(role)

    def _tell(self, role: Role) -> None:
        while events := self.sessions[role].take_events():
            for event in events:
                if isinstance(event, DataReceived) and role is Role.SERVER:
                    self.take(event)
                self.heard(role, event)

    def take(self, event: DataReceived) -> None:
        """Consume the data that arrived at the relay; a slow reader replaces this method."""
        self.relay.data_taken(event.stream_id, len(event.data))

    def _send(self, role: Role) -> None:
        if role is Role.CLIENT:
            self.before_message()
        message = b"".join(self.sessions[role].next_message(self.message_bytes, self.now))
        if message:
            seconds = len(message) / self.bytes_per_second if role is Role.CLIENT else 0.0
            self.sent_bytes += len(message) if role is Role.CLIENT else 0
            self._is_sending[role] = True
            self.after(seconds, lambda: self._is_sending.update({role: False}))
            self.after(seconds + self.one_way_seconds, lambda: self._arrive(role.peer, message))

    def _arrive(self, role: Role, message: bytes) -> None:
        if not self.sessions[role].is_closed:
            self.sessions[role].receive_data(message, self.now)


@dataclass
class Uploads:
    """The data that the agent's local server sends on each stream, and the part that has arrived."""

    path: Path
    size: int = 0
    """Bytes sent on each new stream."""
    missing: dict[int, int] = field(default_factory=dict)
    arrived: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.path.before_message = self.fill
        self.path.heard = self.hear

    def hear(self, role: Role, event: Event) -> None:
        if role is Role.SERVER:
            if isinstance(event, DataReceived):
                self.arrived[event.stream_id] += len(event.data)
        elif isinstance(event, StreamOpened):
            self.path.agent.accept_stream(event.stream_id)
            self.missing[event.stream_id] = self.size
        elif isinstance(event, StreamAborted):
            self.missing.pop(event.stream_id, None)

    def fill(self) -> None:
        agent = self.path.agent
        for stream_id, missing in self.missing.items():
            if missing and agent.queued_bytes(stream_id) <= agent.limits.send_low_water_bytes:
                piece = min(missing, 64 * KIB)
                agent.send_data(stream_id, bytes(piece))
                self.missing[stream_id] -= piece
