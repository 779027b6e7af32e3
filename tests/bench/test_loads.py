"""The loads against a local server; what they count, not how fast it is."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from seance.bench import loads as loads_module
from seance.bench.comparison import Effort, Side, compare
from seance.bench.loads import LOADS, Load, idle_clients, percentile
from seance.bench.local_server import Conversation, LocalServerFactory
from seance.errors import Gone
from seance.wsclient.frames import BINARY, Frame
from tests.bench.rig import listening, reactor, serving

BY_NAME = {load.name: load for load in LOADS}


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
@pytest_twisted.ensureDeferred
async def test_a_load_counts_what_came_back(load: Load) -> None:
    async with serving() as target:
        sample = await load.run(reactor, target, 0.05)
    assert sample.messages > 0
    assert sample.seconds >= 0.05
    if load.is_latency:
        assert len(sample.latencies_seconds) == sample.messages
        assert 0 < min(sample.latencies_seconds) <= max(sample.latencies_seconds) < 10
    if load.name not in ("connect",):
        assert sample.payload_bytes % sample.messages == 0


@pytest_twisted.ensureDeferred
async def test_everybody_hears_everything_that_is_told() -> None:
    async with serving() as target:
        sample = await BY_NAME["fan"].run(reactor, target, 0.05)
    assert sample.messages % loads_module.FAN_CLIENTS == 0


class Wrong(Conversation):
    """Answers something else than it was asked."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        return (Frame(BINARY, frame.payload[::-1]),)


class Hangs(Conversation):
    """Hangs up at the tenth message."""

    heard = 0

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        self.heard += 1
        if self.heard == 10:
            self.leg.abortConnection()
        return (frame,)


class Silent(Conversation):
    """Keeps the last messages to itself."""

    heard = 0

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        self.heard += 1
        return (frame,) if self.heard < 70 else ()


@pytest.mark.parametrize(
    ("kind", "load", "words"),
    [
        (Wrong, "echo", "not what had been sent"),
        (Hangs, "echo", "was lost"),
        (Hangs, "flood", "was lost"),
        (Silent, "flood", "did not come back"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_load_that_goes_wrong_says_so(
    kind: type[Conversation], load: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads_module, "DRAIN_SECONDS", 0.2)
    async with listening(LocalServerFactory({"": kind})) as target:
        with pytest.raises(Gone, match=words):
            await BY_NAME[load].run(reactor, target, 0.05)


@pytest_twisted.ensureDeferred
async def test_idle_clients_are_all_there_when_somebody_looks_and_then_go() -> None:
    factory = LocalServerFactory()
    seen: list[tuple[int, int]] = []
    async with listening(factory) as target:
        await idle_clients(
            reactor, target, 6, lambda count: seen.append((count, len(factory.conversations))), (2, 6)
        )
    assert seen == [(2, 2), (6, 6)]


@pytest_twisted.ensureDeferred
async def test_both_sides_are_measured_in_turn_and_what_a_side_cannot_do_is_left_out() -> None:
    said: list[str] = []
    two = (BY_NAME["echo"], BY_NAME["fan"])
    async with serving() as target:
        sides = (Side("direct", target), Side("tunnel", target, has_fan=False))
        found = await compare(reactor, sides, Effort(0.05, 2, 0), said.append, two)
    assert said[:4] == [f"{two[0].words}: {side}, {n} of 2" for n in (1, 2) for side in ("direct", "tunnel")]
    assert set(found.figures) == {("echo", "direct"), ("echo", "tunnel"), ("fan", "direct")}
    echo: Any = found.of(two[0], "tunnel")
    assert echo.p50_seconds <= echo.p99_seconds
    assert echo.relay_cpu_seconds is None


@pytest.mark.parametrize(
    ("values", "share", "result"), [([], 0.5, 0), ([3], 0.99, 3), ([3, 1, 2], 0.5, 2), ([1, 2, 3], 1, 3)]
)
def test_a_percentile_is_one_of_the_values(values: list[float], share: float, result: float) -> None:
    assert percentile(values, share) == result
