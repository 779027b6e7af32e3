"""Charges of windows that have grown and are idle since (``seance.yamux.budget``)."""

from __future__ import annotations

import pytest

from seance.yamux import KIB, MIB, DataReceived, Event, Role, StreamAborted, StreamClosed, WindowBudget
from seance.yamux.windows import UNCHARGED_BYTES, ReceiveWindow
from tests.yamux.test_growth import LONG, START, growing, uploading, window_of

DOCUMENT = 5 * MIB


class Clients:
    """Clients that load a document one after the other over a long path, and stay connected."""

    def __init__(self, budget: WindowBudget) -> None:
        limits = growing(window_budget=budget)
        self.budget = budget
        self.path, self.uploads, first = uploading(limits, DOCUMENT, **LONG)
        self.ids = [first]
        self.resets: list[StreamAborted] = []
        hear = self.path.heard

        def heard(role: Role, event: Event) -> None:
            if isinstance(event, StreamAborted) and role is Role.SERVER:
                self.resets.append(event)
            hear(role, event)

        self.path.heard = heard
        self.load(first)

    def load(self, stream_id: int = 0) -> float:
        """Load a document; return the seconds that it took."""
        if not stream_id:
            stream_id = self.path.relay.open_stream(self.path.now)
            self.ids.append(stream_id)
        began, wanted = self.path.now, self.uploads.arrived[stream_id] + DOCUMENT
        while self.uploads.arrived[stream_id] < wanted:
            self.path.run(until=self.path.now + 0.05)
        return self.path.now - began

    def be_quiet(self, seconds: float = 40.0) -> None:
        """Send little data, as people do who only move their cursors."""
        for _ in range(int(seconds)):
            for stream_id in self.ids:
                self.uploads.missing[stream_id] += 200
            self.path.run(until=self.path.now + 1.0)

    def flood(self, stream_id: int, count: int) -> None:
        """Send much data to a client that does not read any more."""

        def take(event: DataReceived) -> None:
            if event.stream_id != stream_id:
                self.path.relay.data_taken(event.stream_id, len(event.data))

        self.path.take = take  # type: ignore[method-assign]
        self.uploads.missing[stream_id] += count
        self.path.run(until=self.path.now + 5.0)

    @property
    def trusted(self) -> list[int]:
        return [one for one in self.ids if window_of(self.path.relay, one).uncharged_bytes]


def test_late_client_gets_budget_of_idle_clients() -> None:
    """Forty clients load 5 MB each over 300 ms and 100 Mbit/s, and stay.

    Without the release of idle windows the last ones take 9 s.
    """
    clients = Clients(WindowBudget(8 * MIB))
    alone = clients.load()
    while clients.load() < 4.0:
        assert len(clients.ids) < 30, "the budget is never used up"
    clients.be_quiet()
    assert clients.load() < 1.5 * alone
    assert clients.trusted
    assert clients.budget.charged_bytes <= clients.budget.total_bytes


def test_charge_is_kept_for_the_first_half_minute_of_idleness() -> None:
    clients = Clients(WindowBudget(4 * MIB))
    for _ in range(3):
        clients.load()
    assert clients.path.now < 30
    assert window_of(clients.path.relay, clients.ids[-1]).size_bytes < 1 * MIB, "little of the budget is left"
    assert clients.trusted == []


def filled() -> Clients:
    """A budget that is used up again, after the first windows were released."""
    clients = Clients(WindowBudget(8 * MIB))
    while clients.load() < 4.0:
        pass
    clients.be_quiet()
    clients.load()
    return clients


def test_fast_reader_keeps_its_window_without_a_charge() -> None:
    clients = filled()
    [one, *_] = clients.trusted
    clients.budget.total_bytes = clients.budget.charged_bytes
    clients.uploads.missing[one] += DOCUMENT
    assert clients.load(one) < 2.0, "the window keeps its size"
    assert clients.resets == []


def test_stopped_reader_is_charged_and_reset_only_if_the_budget_is_used_up() -> None:
    clients = filled()
    one, other, *_ = clients.trusted
    relay, budget = clients.path.relay, clients.budget
    before, had = budget.charged_bytes, window_of(relay, one).uncharged_bytes
    budget.total_bytes = before + had
    clients.flood(one, 16 * MIB)
    window = window_of(relay, one)
    assert window.remaining_bytes == 0, "the whole window has arrived"
    assert window.charged_bytes == window.held_bytes - START - UNCHARGED_BYTES > 0
    assert window.charged_bytes + window.uncharged_bytes == had
    assert budget.charged_bytes == before + window.charged_bytes
    assert clients.resets == []
    for stream in relay._streams.values():
        stream.receive_window._measured_at = clients.path.now  # no window is idle
    budget.total_bytes = budget.charged_bytes + 100 * KIB
    told: list[int] = []
    budget.on_exhausted = lambda: told.append(budget.charged_bytes)
    clients.flood(other, 16 * MIB)
    assert [(reset.stream_id, reset.code) for reset in clients.resets] == [(other, "window_budget")]
    assert len(told) == 1, "the owner of the budget is notified"
    assert budget.charged_bytes <= budget.total_bytes
    clients.path.run(until=clients.path.now + 5.0)
    assert other not in clients.path.agent._streams, "RST was sent"
    assert not relay.is_closed


def grown(budget: WindowBudget, most_bytes: int = 16 * MIB) -> ReceiveWindow:
    """A window that is charged for all its growth, up to a number of bytes."""
    window = ReceiveWindow()
    while window._double(most_bytes, budget, 0.0):
        window.grant()
    return window


def on_trust(budget: WindowBudget) -> ReceiveWindow:
    window = grown(budget)
    budget.release(window, window.release_idle())
    return window


class TestABudgetOf64MiB:
    """The default budget, and windows of 16 MiB, as for Seance agents."""

    def test_small_excess_survives_beside_four_loading_clients(self) -> None:
        budget = WindowBudget()
        old, *loaders = on_trust(budget), *(grown(budget) for _ in range(4))
        assert sum(window.charged_bytes for window in loaders) == budget.charged_bytes
        assert [window.size_bytes // MIB for window in loaders] == [16, 16, 16, 8]
        old.receive(513 * KIB)
        assert old.recharge(budget, 1.0)
        assert old.charged_bytes == 1 * KIB, "not a byte more"

    def test_small_excess_of_five_streams_leaves_the_rest_of_the_budget(self) -> None:
        budget = WindowBudget()
        for window in [on_trust(budget) for _ in range(5)]:
            window.receive(513 * KIB)
            assert window.recharge(budget, 1.0)
        assert budget.charged_bytes == 5 * KIB
        assert grown(budget).size_bytes == 16 * MIB

    def test_memory_of_five_streams_that_do_not_read_is_bounded(self) -> None:
        """Reaches the limit of the budget, to the last byte."""
        budget = WindowBudget()
        held = 0
        windows = [on_trust(budget) for _ in range(5)]
        while all(window.recharge(budget, 1.0) for window in windows):
            held = sum(window.held_bytes for window in windows)
            for window in windows:
                window.receive(16 * KIB)
        assert budget.charged_bytes == budget.total_bytes
        assert 0 <= budget.total_bytes + 5 * (START + UNCHARGED_BYTES) - held < 5 * 16 * KIB

    def test_larger_initial_window_may_hold_more(self) -> None:
        budget = WindowBudget()
        window = ReceiveWindow()
        window.widen(1 * MIB)
        while window._double(16 * MIB, budget, 0.0):
            window.grant()
        budget.release(window, window.release_idle())
        window.receive(1 * MIB + UNCHARGED_BYTES)
        assert window.recharge(budget, 1.0)
        assert not budget.charged_bytes
        window.receive(1)
        assert window.recharge(budget, 1.0)
        assert budget.charged_bytes == 1


def test_uncharged_window_may_hold_one_read_and_its_initial_size() -> None:
    """One read of a carrier has at most 256 KiB; events wait until all of it was decoded."""
    assert UNCHARGED_BYTES == START == 256 * KIB


@pytest.mark.parametrize("ends_first", ["ours", "theirs"])
def test_data_held_after_the_end_stays_charged_until_consumed(ends_first: str) -> None:
    clients = filled()
    path, relay, budget = clients.path, clients.path.relay, clients.budget
    one = clients.ids[-1]
    assert window_of(relay, one).charged_bytes > 1 * MIB
    clients.flood(one, 3 * MIB)
    others = budget.charged_bytes - window_of(relay, one).charged_bytes
    closed: list[int] = []
    hear = path.heard

    def heard(role: Role, event: Event) -> None:
        if isinstance(event, StreamClosed) and role is Role.SERVER:
            closed.append(event.stream_id)
        hear(role, event)

    path.heard = heard
    first, second = (relay, path.agent) if ends_first == "ours" else (path.agent, relay)
    for end in (first, second):
        end.end_stream(one)
        path.run(until=path.now + 10.0)
    held = window_of(relay, one).held_bytes
    assert held == 3 * MIB
    while held > START:
        assert budget.charged_bytes == others + held - START
        assert closed == []
        relay.data_taken(one, 256 * KIB)
        held -= 256 * KIB
    assert budget.charged_bytes == others
    path.run(until=path.now + 1.0)
    assert closed == [one]
    assert one not in relay._streams


@pytest.mark.parametrize("end", ["reset", "ended", "closed"])
def test_no_charge_remains_after_the_end(end: str) -> None:
    clients = filled()
    for one in clients.ids:
        if end == "reset":
            clients.path.relay.reset_stream(one)
        elif end == "ended":
            clients.path.agent.end_stream(one)
    if end == "closed":
        clients.path.relay.close()
    clients.path.run(until=clients.path.now + 5.0)
    assert clients.budget.charged_bytes == 0
    assert not clients.budget._users
