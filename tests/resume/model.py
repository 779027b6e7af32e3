"""Two ends of a link, and carriers between them that fail in every way a network can. No clock, no socket.

A ``Schedule`` plays one sequence of actions, drawn from a seed. Both ends write while they are not full.
Carriers deliver in pieces. They are cut inside a message, or at one end only, while the other end continues
to use them. They deliver data after another carrier has replaced them. Answers to a dial get lost, and
requests arrive after the agent has given them up. In the end the network recovers. Then each end must have
received all bytes of the other, once and in order, and nothing may be left in a queue.

Each end uses a ``Continuity`` as ``seance.carrier.ResumableTransport`` does. ``test_model.py`` also runs it
with broken versions, which must be detected.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from seance.errors import RemoteProtocolError
from seance.resume import Continuity

__all__ = ["Piece", "Schedule", "Violation"]

ORIGINS = (0, 0, 2**32 - 10, 2**64 - 40)
MAX_MESSAGE_BYTES = 60
STEPS = 120

Ack = tuple[int, int]


class Violation(AssertionError):
    """An invariant does not hold."""


class Piece(bytes):
    """Bytes as they are passed on.

    Attributes:
        whole: The message that starts with them; empty for a later piece of a message.
    """

    whole: bytes = b""


class Pipe:
    """One direction of a carrier: messages and acknowledgements, in order."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._waiting: deque[bytes | Ack] = deque()
        self._skipped = 0  # delivered bytes of the first message

    @property
    def is_full(self) -> bool:
        return sum(len(one) for one in self._waiting if isinstance(one, bytes)) > self._room_bytes

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    def put(self, one: bytes | Ack) -> None:
        self._waiting.append(one)

    def take(self, most: int) -> Piece | Ack:
        first = self._waiting[0]
        if isinstance(first, tuple):
            self._waiting.popleft()
            return first
        piece = Piece(first[self._skipped : self._skipped + most])
        piece.whole = b"" if self._skipped else first
        self._skipped += len(piece)
        if self._skipped == len(first):
            self._waiting.popleft()
            self._skipped = 0
        return piece

    def clear(self) -> None:
        self._waiting.clear()
        self._skipped = 0


class End:
    """One end of the link; the same code on both sides."""

    def __init__(self, continuity: Continuity, limit_bytes: int) -> None:
        self.continuity = continuity
        self.limit_bytes = limit_bytes
        self.written = bytearray()
        self.received = bytearray()
        self.carrier: Pipe | None = None
        self.epoch = 0
        self.is_caught_up = False

    @property
    def may_write(self) -> bool:
        is_full = self.carrier is None or self.carrier.is_full
        return not is_full and not self.continuity.outgoing.is_full

    def write(self, message: bytes) -> None:
        self.written += message
        outgoing = self.continuity.outgoing
        if self.is_caught_up and self.carrier is not None:
            outgoing.add(message)
            self.carrier.put(message)
        else:
            outgoing.hold(message)
        if outgoing.kept_bytes > self.limit_bytes + MAX_MESSAGE_BYTES:
            raise Violation(f"{outgoing.kept_bytes} bytes are kept, of {self.limit_bytes} allowed")

    def begin(self, count: int, crc: int) -> None:
        self.epoch = self.continuity.attach(count, crc)
        self.carrier, self.is_caught_up = None, False

    def join(self, carrier: Pipe) -> int:
        self.carrier = carrier
        self.catch_up()
        return self.epoch

    def catch_up(self) -> None:
        while self.carrier is not None and not self.carrier.is_full:
            message = self.continuity.outgoing.next_unsent()
            if message is None:
                self.is_caught_up = True
                return
            self.carrier.put(message)

    def lose(self, epoch: int) -> None:
        if self.continuity.detach(epoch):
            self.carrier, self.is_caught_up = None, False

    def take(self, epoch: int, one: Piece | Ack) -> None:
        if isinstance(one, tuple):
            self.continuity.acknowledge(epoch, *one)
        elif self.continuity.receive(epoch, one):
            self.received += one

    def send_ack(self) -> None:
        if self.carrier is not None and not self.carrier.is_full and self.continuity.incoming.unacked_bytes:
            self.carrier.put(self.continuity.incoming.make_ack())


@dataclass
class Carrier:
    """A carrier. Each end has its own epoch for it; 0 at an end that has never seen it."""

    ends: tuple[End, End]
    pipes: tuple[Pipe, Pipe]
    epochs: list[int] = field(default_factory=lambda: [0, 0])
    is_gone: list[bool] = field(default_factory=lambda: [False, False])

    def deliver(self, side: int, most: int, mangle: Callable[[Piece], Piece]) -> None:
        """Deliver to ``side`` a piece of the data that the other side has sent."""
        one = self.pipes[1 - side].take(most)
        if not self.is_gone[side] and self.epochs[side]:
            self.ends[side].take(self.epochs[side], one if isinstance(one, tuple) else mangle(one))

    def lose(self, side: int) -> None:
        """Report the loss of the carrier to one end, which can receive nothing from it any more."""
        self.is_gone[side] = True
        self.pipes[side].clear() if self.is_gone[1 - side] else None
        if self.epochs[side]:
            self.ends[side].lose(self.epochs[side])


class Schedule:
    """One sequence of actions.

    Args:
        seed: The seed of the random choices.
        make: Makes the ``Continuity`` of an end, given its limit and the initial count.
        corrupts: Whether the network changes bytes.
    """

    def __init__(self, seed: int, make: Callable[[int, int], Continuity], *, corrupts: bool = False) -> None:
        self._random = random.Random(seed)
        self._corrupts = corrupts
        self.has_corrupted = False
        origin = self._random.choice(ORIGINS)
        limit_bytes = self._random.choice([30, 100, 300])
        self.agent, self.relay = (End(make(limit_bytes, origin), limit_bytes) for _ in range(2))
        self._ends = (self.agent, self.relay)
        self._carriers: list[Carrier] = []
        self._late_wish: Ack | None = None

    def run(self) -> None:
        """Play the sequence.

        Raises:
            Violation: A byte was lost, doubled or moved, or too many are kept.
            RemoteProtocolError: An end rejects the other's counts, although they are correct.
        """
        for end in self._ends:
            end.begin(end.continuity.incoming.count, 0)
        self._carriers.append(self._new_carrier())
        for side, end in enumerate(self._ends):
            self._carriers[0].epochs[side] = end.join(self._carriers[0].pipes[side])
        steps = [self._write] * 6 + [self._deliver] * 14 + [self._catch_up] * 5 + [self._acknowledge] * 3
        steps += [
            self._cut,
            self._cut_one_end,
            self._dial,
            self._dial,
            self._dial_unanswered,
            self._late_dial,
        ]
        for _ in range(STEPS):
            self._random.choice(steps)()
            self._check()
        self._heal()

    # -- actions ----------------------------------------------------------------------------

    def _write(self) -> None:
        end = self._random.choice(self._ends)
        if end.may_write:
            end.write(self._random.randbytes(self._random.randint(1, MAX_MESSAGE_BYTES)))

    def _deliver(self) -> None:
        carrier, side = self._random.choice(self._carriers[-4:]), self._random.randrange(2)
        if not carrier.pipes[1 - side].is_empty:
            carrier.deliver(
                side, self._random.choice([1, 7, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES]), self._mangle
            )

    def _mangle(self, piece: Piece) -> Piece:
        if not self._corrupts or self._random.random() > 0.02:
            return piece
        self.has_corrupted = True
        mangled = Piece(bytes([piece[0] ^ 1]) + piece[1:])
        mangled.whole = piece.whole
        return mangled

    def _catch_up(self) -> None:
        self._random.choice(self._ends).catch_up()

    def _acknowledge(self) -> None:
        self._random.choice(self._ends).send_ack()

    def _cut(self) -> None:
        carrier = self._random.choice(self._carriers[-2:])
        carrier.lose(0)
        carrier.lose(1)

    def _cut_one_end(self) -> None:
        """Data of the other end may still arrive at the carrier; this end ignores it."""
        self._random.choice(self._carriers[-2:]).lose(self._random.randrange(2))

    def _dial(self) -> None:
        """The agent dials again, whether or not the relay has noticed the loss."""
        if self.agent.continuity.is_attached:
            return
        carrier = self._attach_at_relay(self._resume_request())
        incoming = self.relay.continuity.incoming
        self.agent.begin(incoming.count, incoming.crc)
        carrier.epochs[0] = self.agent.join(carrier.pipes[0])

    def _dial_unanswered(self) -> None:
        """The relay answers and the answer gets lost: only the relay uses this carrier."""
        if not self.agent.continuity.is_attached:
            self._attach_at_relay(self._resume_request()).is_gone[0] = True

    def _late_dial(self) -> None:
        """A request that the agent has given up arrives, or the current request is delayed."""
        resume_request, self._late_wish = self._late_wish, None
        if resume_request is None:
            if not self.agent.continuity.is_attached:
                self._late_wish = self._resume_request()
            return
        try:
            self._attach_at_relay(resume_request).is_gone[0] = True
        except RemoteProtocolError as error:
            if error.code != "ack_gap":
                raise

    # -- inside ----------------------------------------------------------------------------

    def _resume_request(self) -> Ack:
        incoming = self.agent.continuity.incoming
        return incoming.count, incoming.crc

    def _new_carrier(self) -> Carrier:
        room_bytes = self._random.choice([10, 100, 1000])
        return Carrier(self._ends, (Pipe(room_bytes), Pipe(room_bytes)))

    def _attach_at_relay(self, resume_request: Ack) -> Carrier:
        self.relay.begin(*resume_request)
        carrier = self._new_carrier()
        self._carriers.append(carrier)
        carrier.epochs[1] = self.relay.join(carrier.pipes[1])
        return carrier

    def _check(self) -> None:
        for end, other in (self._ends, self._ends[::-1]):
            if not self.has_corrupted and not other.written.startswith(end.received):
                raise Violation("received and written bytes differ")
        for carrier in self._carriers[-4:]:
            for end, epoch, is_gone in zip(self._ends, carrier.epochs, carrier.is_gone, strict=True):
                if epoch == end.epoch and not is_gone and not end.continuity.is_current(epoch):
                    raise Violation("an end has dropped a carrier that it has not lost")

    def _heal(self) -> None:
        for carrier in self._carriers:
            carrier.lose(0)
            if self._random.random() < 0.5:
                carrier.lose(1)
        if self.agent.continuity.is_attached:
            raise Violation("a carrier is gone, but its end uses it")
        self._dial()
        last = self._carriers[-1]
        for _ in range(2000):
            for side, end in enumerate(self._ends):
                end.catch_up()
                if not last.pipes[1 - side].is_empty:
                    last.deliver(side, MAX_MESSAGE_BYTES, self._mangle)
                end.send_ack()
            if all(end.continuity.outgoing.kept_bytes == 0 for end in self._ends):
                break
        for end, other in (self._ends, self._ends[::-1]):
            if end.received != other.written:
                raise Violation("written data was not received")
            if end.continuity.outgoing.kept_bytes or not end.may_write:
                raise Violation("all data has arrived, but some is still kept")
