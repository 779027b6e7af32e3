"""Clients in the initial-sync queue of a relay, seen by themselves and by the local server."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import LoopingCall

from seance.relay.rooms import sync_limiter
from seance.relay.rooms.sync_limiter import NEWCOMERS
from tests.relay.rig import Player, Rig, answer_101, reactor, request, turn, until


class Full:
    """A local server that sends one long message slowly, so its client is in its initial sync."""

    def __init__(self, local: Player) -> None:
        self._local = local
        local.send(bytes([0x82, 127]) + (1 << 30).to_bytes(8, "big"))
        self._sending = LoopingCall(self._send)
        self._done = self._sending.start(0.01, now=True)

    def _send(self) -> None:
        if self._local.lost is None:
            self._local.send(bytes(2000))

    def stop(self) -> None:
        self._sending.stop()


async def loading(rig: Rig) -> tuple[Player, Player, Full]:
    """Connect a client in its initial sync, and wait until the relay has found that."""
    first, local = await rig.joined()
    full = Full(local)
    link: Any = rig.relay.rooms.link_of("r")
    await until(lambda: link.syncs._loading)
    return first, local, full


@ensureDeferred
async def test_a_queued_client_gets_no_answer_and_reaches_no_local_server() -> None:
    async with Rig(relay={"initial_syncs": 1, "hold_seconds": 2.0}) as rig:
        first, local, full = await loading(rig)
        second = await rig.connect(request())
        await turn(0.1)
        assert (bytes(second.received), len(rig.locals)) == (b"", 1)
        full.stop()
        first.leg.abortConnection()
        other = await rig.local(1)
        other.send(answer_101())
        await second.receives(b"101 Switching")
        await local.goes()


@ensureDeferred
async def test_a_queued_client_that_disconnects_is_removed() -> None:
    async with Rig(relay={"initial_syncs": 1, "hold_seconds": 2.0}) as rig:
        _, _, full = await loading(rig)
        second = await rig.connect(request())
        link = rig.relay.rooms.link_of("r")
        assert link is not None
        await until(lambda: len(link.syncs) == 1)
        second.leg.abortConnection()
        await until(lambda: len(link.syncs) == 0)
        assert len(rig.locals) == 1
        full.stop()


@ensureDeferred
async def test_a_queued_client_waits_for_its_agent_to_return() -> None:
    async with Rig(relay={"initial_syncs": 1}) as rig:
        _, _, full = await loading(rig)
        second = await rig.connect(request())
        link = rig.relay.rooms.link_of("r")
        assert link is not None
        await until(lambda: len(link.syncs) == 1)
        full.stop()
        await rig.agent.stopService()
        await until(lambda: len(rig.relay.rooms.wait_queue) == 1)
        await rig.attach()
        other = await rig.local(1)
        other.send(answer_101())
        await second.receives(b"101 Switching")


@ensureDeferred
async def test_queued_clients_of_a_replaced_agent_are_queued_by_the_next_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The end of the old link does not release all of them: each may begin its initial sync."""
    monkeypatch.setattr(sync_limiter, "MAX_ROUND_SECONDS", 10.0)
    async with Rig(relay={"initial_syncs": 1}, agent={"resume": False}) as rig:
        _, _, full = await loading(rig)
        held = [await rig.connect(request()) for _ in range(NEWCOMERS + 3)]
        old: Any = rig.relay.rooms.link_of("r")
        await until(lambda: len(old.syncs) == len(held))
        full.stop()
        await rig.agent.stopService()
        await until(lambda: len(rig.relay.rooms.wait_queue) == len(held))
        await rig.attach()
        await until(lambda: len(rig.relay.rooms.wait_queue) == 0)
        link: Any = rig.relay.rooms.link_of("r")
        await until(lambda: len(link.syncs) == len(held) - NEWCOMERS)
        for one in held:
            one.leg.abortConnection()
        await until(lambda: len(link.syncs) == 0)


@ensureDeferred
async def test_the_time_in_the_queue_counts_for_the_wait_for_the_agent() -> None:
    settings = {"initial_syncs": 1, "hold_seconds": 2.0, "park_seconds": 2.0}
    async with Rig(relay=settings, agent={"resume": False}) as rig:
        _, _, full = await loading(rig)
        began_seconds = reactor.seconds()
        second = await rig.connect(request())
        await turn(1.5)
        full.stop()
        await rig.agent.stopService()
        await second.ends()
        assert second.received.startswith(b"HTTP/1.1 503 ")
        assert reactor.seconds() - began_seconds < 3.3, "the two together are 3.5 s"
        assert len(rig.relay.rooms.wait_queue) == 0


@ensureDeferred
async def test_a_refused_client_does_not_hold_a_slot_in_the_queue() -> None:
    async with Rig(relay={"initial_syncs": 1}) as rig:
        await until(lambda: rig.relay.rooms.link_of("r"))
        link: Any = rig.relay.rooms.link_of("r")
        link.max_clients = 0
        refused = await rig.connect(request())
        await refused.ends()
        assert refused.received.startswith(b"HTTP/1.1 429 ")
        assert not link.syncs._sampled
        link.max_clients = None
        await rig.joined()
