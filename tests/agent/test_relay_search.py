"""When an agent continues to search for another relay, and when it ends the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from seance.agent.relay_search import NO_RELAY_SECONDS, find_relay, no_relay_answers
from seance.errors import CarrierLost, Refusal
from seance.resume import DrainNotice
from tests.relay.rig import Rig, reactor, turn, until

REFUSED = CarrierLost("Nothing listens there.", code="unreachable", is_refused=True)
SILENT = CarrierLost("No answer.", code="unreachable")
BAD_GATEWAY = Refusal(502, "Bad gateway.", code="http_502")
TAKEN = Refusal(409, "This room is kept.", code="http_409")


class Search:
    """One search, with dials that take ``dial_seconds`` and end with ``answer``."""

    def __init__(
        self, answer: Callable[[int], object], *, dial_seconds: float = 0.05, **drain: float
    ) -> None:
        self.clock = Clock()
        self.dials: list[float] = []
        self.cancelled = 0
        self.ended_seconds: float | None = None
        self.result: object = None
        drain_message = {"in_seconds": 0.0, "try_seconds": 5.0} | drain

        def cancel(_: Deferred[Any]) -> None:
            self.cancelled += 1

        async def connect() -> object:
            self.dials.append(self.clock.seconds())
            dialled: Deferred[None] = Deferred(cancel)
            self.clock.callLater(dial_seconds, lambda: dialled.called or dialled.callback(None))
            await dialled
            outcome = answer(len(self.dials))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self.search = Deferred.fromCoroutine(
            find_relay(self.clock, DrainNotice(**drain_message), connect, lambda: 1.0)
        )
        self.search.addCallback(self._note)

    def _note(self, result: object) -> None:
        self.result, self.ended_seconds = result, self.clock.seconds()

    def pass_seconds(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))


@pytest.mark.parametrize("error", [REFUSED, BAD_GATEWAY, Refusal(503, "", code="http_503")])
def test_a_search_whose_dials_are_all_refused_ends_early(error: Exception) -> None:
    search = Search(lambda number: error)
    search.pass_seconds(8.0)
    assert search.result is None
    assert search.ended_seconds is not None
    assert NO_RELAY_SECONDS <= search.ended_seconds < NO_RELAY_SECONDS + 0.7
    assert len(search.dials) >= 3


@pytest.mark.parametrize("error", [SILENT, TAKEN])
def test_a_search_with_any_other_response_lasts_its_whole_time(error: Exception) -> None:
    search = Search(lambda number: error if number == 2 else REFUSED)
    search.pass_seconds(4.5)
    assert search.ended_seconds is None
    search.pass_seconds(2.0)
    assert search.result is None
    assert search.ended_seconds is not None


def test_a_relay_that_listens_a_moment_later_is_found() -> None:
    search = Search(lambda number: "relay" if number == 3 else REFUSED)
    search.pass_seconds(2.0)
    assert search.result == "relay"


def test_a_search_starts_at_the_given_time() -> None:
    search = Search(lambda number: "relay", in_seconds=2.0)
    search.pass_seconds(1.9)
    assert search.dials == []
    search.pass_seconds(0.3)
    assert search.result == "relay"


def test_a_dial_that_hangs_ends_with_the_search() -> None:
    """If one of a name's two addresses drops all packets, a single attempt takes 20 s."""
    search = Search(lambda number: "relay", dial_seconds=60.0)
    search.pass_seconds(5.1)
    assert search.ended_seconds == pytest.approx(5.0, abs=0.02)
    assert search.result is None
    assert search.cancelled == 1


def test_a_cancelled_search_cancels_its_dial() -> None:
    search = Search(lambda number: "relay", dial_seconds=60.0)
    search.pass_seconds(0.1)
    search.search.addErrback(lambda failure: failure.trap(CancelledError))
    search.search.cancel()
    assert search.cancelled == 1


def test_a_cancelled_search_ends_although_its_dial_reports_another_error() -> None:
    clock, failures = Clock(), list[Failure]()

    async def connect() -> None:
        try:
            await Deferred()
        except CancelledError:
            raise SILENT from None

    search = Deferred.fromCoroutine(find_relay(clock, DrainNotice(0.0, 5.0), connect, lambda: 1.0))
    search.addErrback(failures.append)
    clock.advance(0)
    search.cancel()
    assert failures[0].check(CancelledError)
    assert clock.getDelayedCalls() == []


@given(st.lists(st.sampled_from([REFUSED, BAD_GATEWAY, SILENT, TAKEN]), min_size=1))
def test_every_search_ends_in_time(errors: list[Exception]) -> None:
    search = Search(lambda number: errors[number % len(errors)])
    search.pass_seconds(5.7)
    assert search.ended_seconds is not None


def test_which_errors_mean_that_no_relay_runs() -> None:
    assert no_relay_answers(REFUSED)
    assert not no_relay_answers(SILENT)
    assert [status for status in range(400, 600) if no_relay_answers(Refusal(status, "", code="c"))] == [
        502,
        503,
        504,
    ]


@ensureDeferred
async def test_the_only_relay_exits_soon_after_its_agents_have_found_no_other() -> None:
    async with Rig() as rig:
        client, _ = await rig.joined()
        [agent] = rig._agents
        began = reactor.seconds()
        stopping = rig.relay.stopService()
        await client.ends()
        assert b"\x03\xf4" in client.received, "closed with 1012"
        client.leg.loseConnection()
        await stopping
        assert reactor.seconds() - began < 4.0, "it was 6 s and more"
        assert agent.status.state.value in ("waiting", "connecting")


@ensureDeferred
async def test_an_agent_that_has_found_no_relay_attaches_to_the_restarted_one() -> None:
    async with Rig(agent={"healthy_seconds": 0.0}) as rig:
        await rig.relay.stopService()
        await turn(0.5)
        rig.relay = type(rig.relay)(
            reactor, type(rig.relay.settings)(listen=(f"tcp:{rig.port}:interface=127.0.0.1",))
        )
        rig.relay.startService()
        await until(lambda: rig.relay.rooms.room_count == 1)
        await rig.joined()
