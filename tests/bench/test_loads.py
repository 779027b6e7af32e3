"""The loads against a local server: the counts are tested, not the speed."""

from __future__ import annotations

import pytest
import pytest_twisted

from seance.bench import loads as loads_module
from seance.bench.comparison import BenchTarget, Effort, compare
from seance.bench.loads import LOADS, Load, open_idle_clients, percentile
from seance.bench.local_server import EchoConnection, LocalServerFactory
from seance.errors import Gone
from seance.wsclient.frames import BINARY, Frame
from tests.bench.rig import listening, reactor, serving

BY_NAME = {load.name: load for load in LOADS}


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
@pytest_twisted.ensureDeferred
async def test_a_load_counts_the_messages_that_came_back(load: Load) -> None:
    async with serving() as target:
        sample = await load.run(reactor, target, 0.05)
    assert sample.messages > 0
    assert sample.seconds >= 0.05
    assert sample.payload_bytes % sample.messages == 0
    if "p50_seconds" in load.figures:
        assert len(sample.latencies_seconds) == sample.messages
        assert 0 < min(sample.latencies_seconds) <= max(sample.latencies_seconds) < 10


@pytest_twisted.ensureDeferred
async def test_every_client_receives_every_broadcast() -> None:
    async with serving() as target:
        sample = await BY_NAME["fan"].run(reactor, target, 0.05)
    assert sample.messages % loads_module.BROADCAST_CLIENTS == 0


class Reversing(EchoConnection):
    """Sends each message back reversed."""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        return (Frame(BINARY, frame.payload[::-1]),)


class Aborting(EchoConnection):
    """Aborts the connection at the tenth message."""

    count = 0

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        self.count += 1
        if self.count == 10:
            self.tcp.abortConnection()
        return (frame,)


class Dropping(EchoConnection):
    """Does not answer from the tenth message on."""

    count = 0

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        self.count += 1
        return (frame,) if self.count < 10 else ()


@pytest.mark.parametrize(
    ("server", "load", "message"),
    [
        (Reversing, "echo", "differed from its message"),
        (Aborting, "echo", "was lost"),
        (Aborting, "flood", "was lost"),
        (Dropping, "flood", "still outstanding"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_faulty_server_fails_the_load(
    server: type[EchoConnection], load: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads_module, "DRAIN_SECONDS", 0.2)
    async with listening(LocalServerFactory(reactor, {"": server})) as target:
        with pytest.raises(Gone, match=message):
            await BY_NAME[load].run(reactor, target, 0.05)


@pytest_twisted.ensureDeferred
async def test_all_idle_clients_are_connected_when_they_are_counted() -> None:
    factory = LocalServerFactory(reactor)
    seen: list[tuple[int, int]] = []
    async with listening(factory) as target:
        await open_idle_clients(
            reactor, target, 6, lambda count: seen.append((count, len(factory.connections))), (2, 6)
        )
    assert seen == [(2, 2), (6, 6)]


@pytest_twisted.ensureDeferred
async def test_targets_are_measured_in_turn_without_loads_that_they_do_not_support() -> None:
    progress: list[str] = []
    two = (BY_NAME["echo"], BY_NAME["fan"])
    async with serving() as target:
        targets = (BenchTarget("direct", target), BenchTarget("tunnel", target, can_broadcast=False))
        found = await compare(reactor, targets, Effort(0.05, 2, 0), progress.append, two)
    expected = [f"{two[0].words}: {name}, {n} of 2" for n in (1, 2) for name in ("direct", "tunnel")]
    assert progress[:4] == expected
    assert set(found.figures) == {("echo", "direct"), ("echo", "tunnel"), ("fan", "direct")}
    assert (found.figure("echo", "tunnel", "p50_seconds") or 9) <= (
        found.figure("echo", "tunnel", "p99_seconds") or 0
    )
    assert found.figure("echo", "tunnel", "relay_cpu_seconds") is None
    assert found.figure("echo", "tunnel", "messages_per_second") is None


@pytest.mark.parametrize(
    ("values", "share", "result"), [([], 0.5, 0), ([3], 0.99, 3), ([3, 1, 2], 0.5, 2), ([1, 2, 3], 1, 3)]
)
def test_a_percentile_is_one_of_the_values(values: list[float], share: float, result: float) -> None:
    assert percentile(values, share) == result
