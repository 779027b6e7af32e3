"""Two sessions and a lossless wire under random actions: nothing may be lost or reordered.

The model is the list of actions of each side. Every message is checked against the send rules and every event
against the life of a stream, and after each step the sessions check their invariants. At the end, all streams
are ended or reset. Then no stream, queued byte or credit may be left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seance.yamux import (
    KIB,
    MIB,
    DataReceived,
    Event,
    Role,
    StreamAborted,
    StreamClosed,
    StreamEnded,
    StreamOpened,
    WindowBudget,
)
from seance.yamux.half_states import Receiving
from seance.yamux.windows import UNCHARGED_BYTES
from tests.yamux.event_rules import EventRules
from tests.yamux.pair import CALM, End, code_of

SETTINGS = settings(stateful_step_count=60, report_multiple_bugs=False)

SIDES = st.sampled_from([Role.CLIENT, Role.SERVER])
PICK = st.integers(0, 2**30)
WINDOWS = st.sampled_from([256 * KIB, 300 * KIB])


def stream_bytes(stream_id: int, start: int, count: int) -> bytes:
    """Bytes ``start`` to ``start + count`` of the data of a stream, the same both ways."""
    unit = bytes((stream_id + at) * 31 % 251 for at in range(251))
    shift = start % 251
    return (unit * (count // 251 + 2))[shift : shift + count]


@dataclass
class Direction:
    """The data that one side was asked to send on a stream, and the data that the other has received."""

    sent: int = 0
    arrived: int = 0
    held: int = 0
    """Data that arrived and was not consumed."""
    is_ended: bool = False
    end_arrived: bool = False
    is_flushed: bool = False
    """Whether the sender resets the stream when everything was sent."""


@dataclass
class Side:
    end: End
    inbound_wire: bytearray = field(default_factory=bytearray)
    event_rules: EventRules = field(default_factory=EventRules)
    known: list[int] = field(default_factory=list)
    """Streams that this side has opened or seen, and that are not over here."""
    untaken: list[int] = field(default_factory=list)
    """Streams that the peer has reset and whose data this side has not consumed."""


class TwoSessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.budget = WindowBudget(2 * MIB)
        self.sides: dict[Role, Side] = {}
        self.directions: dict[tuple[int, Role], Direction] = {}
        """By stream and sender."""
        self.is_cut: set[int] = set()

    @initialize(
        relay=WINDOWS,
        agent=WINDOWS,
        streams=st.sampled_from([3, 256]),
        most=st.sampled_from([256 * KIB, 16 * MIB]),
        grown=st.integers(0, 3),
    )
    def begin(self, relay: int, agent: int, streams: int, most: int, grown: int) -> None:
        self.most_bytes = most
        for role, window_bytes in ((Role.SERVER, relay), (Role.CLIENT, agent)):
            limits = replace(
                CALM,
                receive_window_bytes=window_bytes,
                receive_window_max_bytes=most,
                window_budget=self.budget,
                streams=streams,
                send_queue_bytes=700 * KIB,
            )
            self.sides[role] = Side(End(role, limits))
        for _ in range(grown):
            self.open(Role.SERVER)
            self.move()
            for role, side in self.sides.items():
                for pick in range(len(side.known)):
                    self.grow(role, pick)
            self.move()

    # Actions of the owners.

    @rule(role=SIDES)
    def open(self, role: Role) -> None:
        session = self.sides[role].end.session
        stream_id = session._session_state.table._next_stream_id
        if code := code_of(session.open_stream, self.now):
            assert code in ("too_many_streams", "going_away")
            return
        self.sides[role].known.append(stream_id)
        self.directions[stream_id, Role.CLIENT] = Direction()
        self.directions[stream_id, Role.SERVER] = Direction()
        self.collect(role)

    def pick(self, role: Role, pick: int) -> int | None:
        known = self.sides[role].known
        return known[pick % len(known)] if known else None

    @rule(role=SIDES, pick=PICK)
    def accept(self, role: Role, pick: int) -> None:
        if (stream_id := self.pick(role, pick)) is not None:
            self.sides[role].end.session.accept_stream(stream_id)

    @rule(role=SIDES, pick=PICK, count=st.sampled_from([1, 100, 5000, 20_000, 70_000, 300_000]))
    def send(self, role: Role, pick: int, count: int) -> None:
        if (stream_id := self.pick(role, pick)) is None:
            return
        direction = self.directions[stream_id, role]
        session = self.sides[role].end.session
        code = code_of(session.send_data, stream_id, stream_bytes(stream_id, direction.sent, count))
        if code == "send_queue_full":
            self.is_cut.add(stream_id)
            self.over(role, stream_id)
        else:
            assert code == ("stream_closed" if direction.is_ended else "")
            direction.sent += 0 if code else count

    @rule(role=SIDES, pick=PICK)
    def end(self, role: Role, pick: int) -> None:
        if (stream_id := self.pick(role, pick)) is not None:
            self.directions[stream_id, role].is_ended = True
            self.sides[role].end.session.end_stream(stream_id)
            self.collect(role)

    @rule(role=SIDES, pick=PICK, is_sure=st.sampled_from([False, False, True]))
    def reset(self, role: Role, pick: int, is_sure: bool) -> None:
        if is_sure and (stream_id := self.pick(role, pick)) is not None:
            self.is_cut.add(stream_id)
            self.directions[stream_id, role].is_flushed = False
            self.sides[role].end.session.reset_stream(stream_id)
            self.over(role, stream_id)

    @rule(role=SIDES, pick=PICK, is_sure=st.sampled_from([False, True]))
    def reset_when_sent(self, role: Role, pick: int, is_sure: bool) -> None:
        if is_sure and (stream_id := self.pick(role, pick)) is not None:
            self.is_cut.add(stream_id)
            self.directions[stream_id, role].is_ended = True
            self.directions[stream_id, role].is_flushed = True
            if self.sides[role].end.session.reset_when_sent(stream_id):
                self.over(role, stream_id)
            self.collect(role)

    @rule(role=SIDES, pick=PICK)
    def take_after_a_reset(self, role: Role, pick: int) -> None:
        untaken = self.sides[role].untaken
        if untaken:
            stream_id = untaken[pick % len(untaken)]
            direction = self.directions[stream_id, role.peer]
            self.sides[role].end.session.data_taken(stream_id, direction.held)
            direction.held = 0
            untaken.remove(stream_id)
            self.collect(role)

    @rule(role=SIDES, pick=PICK, share=st.sampled_from([0.1, 0.5, 1.0]))
    def take(self, role: Role, pick: int, share: float) -> None:
        if (stream_id := self.pick(role, pick)) is not None:
            direction = self.directions[stream_id, role.peer]
            count = int(direction.held * share)
            self.sides[role].end.session.data_taken(stream_id, count)
            direction.held -= count
            self.collect(role)

    @rule(role=SIDES, pick=PICK)
    def grow(self, role: Role, pick: int) -> None:
        """Grow a window, as for a fast reader on a long path; there is no such path here."""
        session = self.sides[role].end.session
        if (stream_id := self.pick(role, pick)) is not None:
            stream = session._streams[stream_id]
            window = stream.receive_window
            if stream.receiving is Receiving.OPEN and window._double(self.most_bytes, self.budget, self.now):
                session.accept_stream(stream_id)
                session._outbox.add_credit(stream)

    @rule(role=SIDES, pick=PICK)
    def release_idle(self, role: Role, pick: int) -> None:
        """Release the charges, as after half a minute without much data."""
        if (stream_id := self.pick(role, pick)) is not None:
            window = self.sides[role].end.session._streams[stream_id].receive_window
            if window.held_bytes <= window.start_bytes:
                self.budget.release(window, window.release_idle())

    @rule(role=SIDES)
    def ping(self, role: Role) -> None:
        self.sides[role].end.session.ping(self.now)

    @rule(role=SIDES, is_sure=st.sampled_from([False] * 9 + [True]))
    def go_away(self, role: Role, is_sure: bool) -> None:
        if is_sure:
            self.sides[role].end.session.go_away()

    @rule(role=SIDES, seconds=st.sampled_from([0.1, 12.0]))
    def wait(self, role: Role, seconds: float) -> None:
        """Advance the time, possibly beyond the timeout of unanswered opens."""
        self.now += seconds
        session = self.sides[role].end.session
        if (
            deadline := session.next_deadline()
        ) is not None and not session._session_state.keepalive._awaits_reply:
            assert deadline > 0
            session.handle_timeout(self.now)
            self.collect(role)

    # Actions of the wire.

    @rule(role=SIDES, limit=st.sampled_from([13, 100, 5000, 65536]))
    def transmit(self, role: Role, limit: int) -> None:
        message = self.sides[role].end.message(limit)
        self.sides[role.peer].inbound_wire += message
        self.collect(role)

    @precondition(lambda self: any(side.inbound_wire for side in self.sides.values()))
    @rule(role=SIDES, count=st.sampled_from([1, 11, 12, 13, 500, 20_000, 10**6]))
    def deliver(self, role: Role, count: int) -> None:
        side = self.sides[role]
        chunk = bytes(side.inbound_wire[:count])
        del side.inbound_wire[:count]
        if chunk:
            side.end.receive(chunk, self.now)
            self.collect(role)

    @rule(role=SIDES, pick=PICK)
    def flood(self, role: Role, pick: int) -> None:
        """Send more than an initial window."""
        self.send(role, pick, 600_000)
        self.move()

    @rule()
    def move(self) -> None:
        """Deliver everything that can be sent, without consuming it."""
        while self.moved():
            pass

    def moved(self) -> bool:
        has_moved = False
        for role, side in self.sides.items():
            while side.end.session.wants_to_send:
                self.transmit(role, 65536)
                has_moved = True
            if side.inbound_wire:
                self.deliver(role, 10**9)
                has_moved = True
        return has_moved

    # Invariants.

    def over(self, role: Role, stream_id: int) -> None:
        side = self.sides[role]
        side.event_rules.cut(stream_id)
        if stream_id in side.known:
            side.known.remove(stream_id)

    def collect(self, role: Role) -> None:
        side = self.sides[role]
        for event in side.end.take_all():
            side.event_rules.note(event)
            self.note(role, event)

    def note(self, role: Role, event: Event) -> None:
        if isinstance(event, StreamOpened):
            self.sides[role].known.append(event.stream_id)
        elif isinstance(event, DataReceived):
            direction = self.directions[event.stream_id, role.peer]
            count = len(event.data)
            assert event.data == stream_bytes(event.stream_id, direction.arrived, count), "in order, unharmed"
            direction.arrived += count
            direction.held += count
            assert direction.arrived <= direction.sent
        elif isinstance(event, StreamEnded):
            direction = self.directions[event.stream_id, role.peer]
            assert direction.is_ended, "only what was ended ends"
            assert direction.arrived == direction.sent, "everything comes before the end"
            direction.end_arrived = True
        elif isinstance(event, StreamAborted):
            assert event.code in ("reset", "refused", "open_timeout", "window_budget", "sent")
            direction = self.directions[event.stream_id, role.peer]
            is_peers = event.code in ("reset", "refused")
            if is_peers and direction.is_flushed:
                assert direction.arrived == direction.sent, "everything comes before the reset"
            if event.code in ("open_timeout", "window_budget"):
                self.directions[event.stream_id, role].is_flushed = False
            if is_peers and direction.held:
                self.sides[role].untaken.append(event.stream_id)
            self.is_cut.add(event.stream_id)
            self.over(role, event.stream_id)
        elif isinstance(event, StreamClosed):
            assert self.directions[event.stream_id, role.peer].end_arrived
            self.over(role, event.stream_id)

    @invariant()
    def sessions_are_sound(self) -> None:
        live = [stream for side in self.sides.values() for stream in side.end.session._streams.values()]
        windows = [stream.receive_window for stream in live]
        assert self.budget.charged_bytes == sum(window.charged_bytes for window in windows)
        assert self.budget.charged_bytes <= self.budget.total_bytes
        for window in windows:
            assert window.held_bytes <= window.start_bytes + UNCHARGED_BYTES + window.charged_bytes
        for side in self.sides.values():
            side.end.session.check()
            assert not side.end.session.is_closed
            assert sorted(side.known + side.untaken) == sorted(side.end.session._streams)

    def settle(self) -> None:
        """Move and consume everything until both sides are idle."""
        while True:
            for role, side in self.sides.items():
                for stream_id in list(side.known):
                    side.end.session.accept_stream(stream_id)
                    self.take(role, side.known.index(stream_id), 1.0)
                while side.untaken:
                    self.take_after_a_reset(role, 0)
            if not self.moved():
                return

    def credit_is_conserved(self) -> None:
        """At rest, the send window of one side equals the credit that the other has granted and not used."""
        for role, side in self.sides.items():
            others = self.sides[role.peer].end.session._streams
            for stream_id, stream in side.end.session._streams.items():
                if self.directions[stream_id, role].end_arrived:
                    continue
                window = others[stream_id].receive_window
                assert stream.send_window.available_bytes == window.remaining_bytes

    def teardown(self) -> None:
        if not self.sides:
            return
        self.settle()
        assert self.sides[Role.CLIENT].known == list(self.sides[Role.CLIENT].end.session._streams)
        self.credit_is_conserved()
        for role, side in self.sides.items():
            for stream_id in list(side.known):
                self.directions[stream_id, role].is_ended = True
                side.end.session.end_stream(stream_id)
                self.collect(role)
        self.settle()
        for (stream_id, _), direction in self.directions.items():
            if stream_id not in self.is_cut:
                assert direction.end_arrived
                assert direction.arrived == direction.sent, "nothing is lost"
        for side in self.sides.values():
            session_state = side.end.session._session_state
            assert side.known == []
            assert (
                session_state.table.live,
                session_state.table.deadlines,
                session_state.table.unaccepted_count,
            ) == ({}, {}, 0)
            assert not session_state.outbox.wants_to_send
            assert not session_state.outbox._drained
            assert self.budget.charged_bytes == 0
            assert side.end.session.take_events() == []


def test_two_sessions_agree_under_random_actions() -> None:
    run_state_machine_as_test(TwoSessions, settings=SETTINGS)
