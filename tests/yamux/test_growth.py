"""Windows that grow with the path, and the budget that limits them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.errors import RemoteProtocolError
from seance.yamux import KIB, MIB, DataReceived, Limits, PingAnswered, Role, Session, WindowBudget
from seance.yamux.windows import ReceiveWindow
from tests.yamux.frame_bytes import PING, SYN, data, read_frames, window
from tests.yamux.pair import CALM, accepted
from tests.yamux.path import MBIT, Path, Uploads

START = 256 * KIB
LONG = {"bytes_per_second": 100 * MBIT, "one_way_seconds": 0.15}
"""A path of 300 ms and 100 Mbit/s: 3.75 MB are in flight."""


def growing(most_bytes: int = 16 * MIB, **others: object) -> Limits:
    own: dict[str, object] = {"window_budget": WindowBudget(), "receive_window_max_bytes": most_bytes}
    return replace(CALM, **own | others)  # type: ignore[arg-type]


def window_of(session: Session, stream_id: int) -> ReceiveWindow:
    return session._streams[stream_id].receive_window


def uploading(limits: Limits, size: int = 10**9, **shape: float) -> tuple[Path, Uploads, int]:
    """A path on which the agent sends much data on one stream."""
    path = Path(relay_limits=limits, agent_limits=CALM, **shape)  # type: ignore[arg-type]
    uploads = Uploads(path, size)
    return path, uploads, path.relay.open_stream(0.0)


class TestPath:
    def test_one_stream_fills_a_long_path(self) -> None:
        path, uploads, stream_id = uploading(growing(), **LONG)
        path.run(until=4.0)
        before = uploads.arrived[stream_id]
        path.run(until=8.0)
        moved = uploads.arrived[stream_id] - before
        assert moved >= 0.95 * 4.0 * path.bytes_per_second
        assert 2 * 3.75e6 <= window_of(path.relay, stream_id).size_bytes <= 4.5 * 3.75e6

    def test_full_speed_is_reached_within_a_few_round_trips(self) -> None:
        path, uploads, stream_id = uploading(growing(), **LONG)
        path.run(until=12.0)
        assert uploads.arrived[stream_id] >= 0.7 * 12.0 * path.bytes_per_second

    def test_without_growth_a_long_path_stays_empty(self) -> None:
        path, uploads, stream_id = uploading(CALM, **LONG)
        path.run(until=8.0)
        assert uploads.arrived[stream_id] <= 8 / 0.3 * START

    def test_window_grows_to_its_limit(self) -> None:
        path, _, stream_id = uploading(growing(1 * MIB), **LONG)
        path.run(until=8.0)
        assert window_of(path.relay, stream_id).size_bytes == 1 * MIB

    def test_initial_window_above_the_maximum_does_not_grow(self) -> None:
        path, _, stream_id = uploading(growing(1 * MIB, receive_window_bytes=2 * MIB), **LONG)
        path.run(until=8.0)
        assert window_of(path.relay, stream_id).size_bytes == 2 * MIB

    def test_window_does_not_grow_on_a_short_path(self) -> None:
        path, _, stream_id = uploading(growing(), bytes_per_second=100 * MBIT, one_way_seconds=0.0005)
        path.message_bytes = 16 * KIB
        path.run(until=3.0)
        assert window_of(path.relay, stream_id).size_bytes == START

    @pytest.mark.parametrize("has_fast_neighbour", [False, True])
    def test_slow_reader_keeps_the_initial_window(self, has_fast_neighbour: bool) -> None:
        """On a path of any length: 20 kB/s need no more."""
        path, uploads, slow = uploading(growing(), **LONG)
        if has_fast_neighbour:
            path.relay.open_stream(0.0)
        waiting = 0

        def take(event: DataReceived) -> None:
            nonlocal waiting
            if event.stream_id == slow:
                waiting += len(event.data)
            else:
                path.relay.data_taken(event.stream_id, len(event.data))

        def read() -> None:
            nonlocal waiting
            count = min(waiting, 2000)
            path.relay.data_taken(slow, count)
            waiting -= count
            path.after(0.1, read)

        path.take = take  # type: ignore[method-assign]
        read()
        path.run(until=60.0)
        assert window_of(path.relay, slow).size_bytes == START
        assert uploads.arrived[slow] <= START + 60 * 20_000

    def test_window_shrinks_when_little_data_moves(self) -> None:
        limits = growing()
        path, uploads, stream_id = uploading(limits, size=30 * MIB, **LONG)
        path.run(until=8.0)
        assert uploads.arrived[stream_id] == 30 * MIB
        assert limits.window_budget.charged_bytes == window_of(path.relay, stream_id).size_bytes - START > 0

        def trickle() -> None:
            uploads.missing[stream_id] += 10_000
            path.after(0.2, trickle)

        trickle()
        path.run(until=408.0)
        assert window_of(path.relay, stream_id).size_bytes == START
        assert limits.window_budget.charged_bytes == 0
        assert uploads.arrived[stream_id] > 30 * MIB + 399 * 50_000


class TestTune:
    """The rule itself, on a path of one second."""

    def tuned(self, *, taken: int, after: float, held: int = 0) -> int:
        """Let an application consume data some time after the last measurement; return the window size."""
        window = ReceiveWindow()
        window.widen(1 * MIB)
        window.tune(10.0, 1.0, 16 * MIB, WindowBudget())
        window.receive(taken + held)
        window.take(taken)
        window.tune(10.0 + after, 1.0, 16 * MIB, WindowBudget())
        window.check()
        return window.size_bytes

    def test_window_consumed_within_two_round_trips_doubles(self) -> None:
        assert self.tuned(taken=1 * MIB, after=1.9) == 2 * MIB
        assert self.tuned(taken=1 * MIB, after=2.1) == 1 * MIB

    def test_half_a_window_in_half_the_time_doubles(self) -> None:
        assert self.tuned(taken=512 * KIB, after=0.9) == 2 * MIB
        assert self.tuned(taken=512 * KIB, after=1.1) == 1 * MIB

    def test_less_than_half_a_window_changes_nothing(self) -> None:
        assert self.tuned(taken=511 * KIB, after=0.1) == 1 * MIB

    def test_window_does_not_grow_while_half_of_it_is_held(self) -> None:
        assert self.tuned(taken=512 * KIB, after=0.1, held=512 * KIB) == 1 * MIB
        assert self.tuned(taken=512 * KIB, after=0.1, held=511 * KIB) == 2 * MIB

    def test_next_growth_waits_for_a_round_trip(self) -> None:
        window, budget = ReceiveWindow(), WindowBudget()
        window.tune(10.0, 1.0, 16 * MIB, budget)
        sizes = []
        for now in (10.1, 10.2, 11.0, 11.2):
            window.receive(window.remaining_bytes)
            window.take(window.held_bytes)
            window.tune(now, 1.0, 16 * MIB, budget)
            window.grant()
            sizes.append(window.size_bytes // KIB)
        assert sizes == [512, 512, 512, 1024]


class TestMeasuring:
    def pings(self, path: Path, seconds: float) -> int:
        answered = 0
        told = path.heard

        def heard(role: Role, event: object) -> None:
            nonlocal answered
            answered += role is Role.SERVER and isinstance(event, PingAnswered)
            told(role, event)  # type: ignore[arg-type]

        path.heard = heard
        path.run(until=path.now + seconds)
        return answered

    def test_round_trip_is_measured_every_five_seconds_during_bulk_data(self) -> None:
        path, _, _ = uploading(growing(), **LONG)
        assert 5 <= self.pings(path, 30.0) <= 7
        assert path.relay.round_trip_seconds == pytest.approx(0.3, abs=0.02)

    def test_link_without_bulk_data_is_not_measured(self) -> None:
        path, uploads, stream_id = uploading(growing(), size=100 * KIB, **LONG)
        assert self.pings(path, 100.0) == 0
        assert uploads.arrived[stream_id] == 100 * KIB

    def test_link_is_not_measured_after_bulk_data(self) -> None:
        path, uploads, stream_id = uploading(growing(), size=4 * MIB, **LONG)
        path.run(until=10.0)

        def trickle() -> None:
            uploads.missing[stream_id] += 100
            path.after(0.1, trickle)

        trickle()
        assert self.pings(path, 100.0) <= 1

    def test_link_is_not_measured_if_windows_cannot_grow(self) -> None:
        path, _, _ = uploading(CALM, **LONG)
        assert self.pings(path, 30.0) == 0

    def test_window_does_not_grow_before_a_round_trip_is_known(self) -> None:
        """The peer does not answer pings."""
        end = accepted(growing())
        for at in range(100):
            end.receive(data(2, bytes(START // 2)), at * 0.001)
            end.session.data_taken(2, START // 2)
            asked = [frame for frame in end.frames() if frame.kind == PING]
            assert [frame.flags for frame in asked] == ([SYN] if at == 1 else [])
        assert window_of(end.session, 2).size_bytes == START

    def test_window_does_not_grow_with_a_round_trip_of_zero(self) -> None:
        """A clock that is too coarse for the path measures a round trip of zero."""
        path, uploads, stream_id = uploading(
            growing(), size=10 * MIB, bytes_per_second=1e18, one_way_seconds=0.0
        )
        path.run(until=1.0)
        assert uploads.arrived[stream_id] == 10 * MIB
        assert window_of(path.relay, stream_id).size_bytes == START


class TestBudget:
    def test_few_windows_cannot_use_the_whole_budget(self) -> None:
        budget = WindowBudget(64 * MIB)
        got = []
        for _ in range(12):
            window = ReceiveWindow()
            while window.charged_bytes < 16 * MIB:
                more_bytes = max(window.charged_bytes, START)
                if not budget.charge(window, more_bytes, 0.0):
                    break
                window.charged_bytes += more_bytes
            got.append(window.charged_bytes)
        assert got == sorted(got, reverse=True)
        assert got[:4] == [16 * MIB, 16 * MIB, 16 * MIB, 8 * MIB]
        assert got[6] > 0
        assert budget.charged_bytes == sum(got) < 64 * MIB

    def test_released_bytes_can_be_charged_again(self) -> None:
        budget = WindowBudget(10)
        window = ReceiveWindow()
        assert budget.charge(window, 5, 0.0)
        assert not budget.charge(window, 5, 0.0)
        budget.release(window, 5)
        assert budget.charge(window, 5, 0.0)
        assert repr(budget) == "<WindowBudget 5 of 10 charged>"
        with pytest.raises(AssertionError):
            budget.release(window, 6)

    def test_windows_of_all_sessions_share_one_budget(self) -> None:
        """Reaches the limit of the budget."""
        budget = WindowBudget(2 * MIB)
        paths = [uploading(growing(window_budget=budget), **LONG)[0] for _ in range(3)]
        for path in paths:
            path.run(until=4.0)
        excess = [
            sum(window_of(path.relay, one).charged_bytes for one in path.relay._streams) for path in paths
        ]
        assert sum(excess) == budget.charged_bytes <= 2 * MIB
        assert excess == [768 * KIB, 256 * KIB, 256 * KIB]

    @pytest.mark.parametrize("end", ["reset by us", "reset by them", "ended by them", "over", "broken"])
    def test_every_end_of_a_stream_releases_its_charge(self, end: str) -> None:
        limits = growing()
        path, uploads, stream_id = uploading(limits, **LONG)
        path.run(until=4.0)
        assert limits.window_budget.charged_bytes > 0
        if end == "reset by us":
            path.relay.reset_stream(stream_id)
        elif end == "reset by them":
            uploads.missing.clear()
            path.agent.reset_stream(stream_id)
        elif end == "ended by them":
            uploads.missing[stream_id] = 0
            path.agent.end_stream(stream_id)
        elif end == "over":
            path.relay.close()
            path.relay.close()
        else:
            with pytest.raises(RemoteProtocolError, match="version"):
                path.relay.receive_data(b"\xff" * 1_000_000, path.now)
        path.run(until=8.0)
        assert limits.window_budget.charged_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("rttgue"), st.integers(0, 4 * MIB), st.floats(0, 2))))
def test_credit_is_conserved_however_a_window_grows_and_shrinks(steps: list[tuple[str, int, float]]) -> None:
    """Case 49 again: every byte is counted once, and the charge equals the growth."""
    budget = WindowBudget(5 * MIB)
    window, now = ReceiveWindow(), 0.0
    for step, count, seconds in steps:
        now += seconds
        if step == "r":
            window.receive(min(count, window.remaining_bytes))
        elif step == "t":
            window.take(min(count, window.held_bytes))
        elif step == "g":
            window.grant()
        elif step == "e":
            budget.release(window, window.release_idle())
        else:
            window.tune(now, 0.5, 2 * MIB, budget)
        window.check()
        if not window.recharge(budget, now):
            assert window.held_bytes > 2 * START
            assert window.uncharged_bytes > budget.total_bytes - budget.charged_bytes
        assert budget.charged_bytes == window.charged_bytes
        assert window.remaining_bytes + window.taken_bytes + window.held_bytes >= START
        assert window.size_bytes <= 2 * MIB


def test_pending_grant_is_tuned_once() -> None:
    end = accepted(growing())
    end.receive(data(2, bytes(START)), 1.0)
    end.session.data_taken(2, START // 2)
    end.session.data_taken(2, START // 2)
    end.receive(window(2), 1.0)
    kinds = [frame.kind for frame in read_frames(end.message())[0]]
    assert kinds == [PING, 1]
