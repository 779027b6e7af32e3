"""Clients that a relay holds while another one loads: what they and the local server see of it."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import LoopingCall

from seance.relay.rooms import sync_limiter
from seance.relay.rooms.sync_limiter import NEWCOMERS
from tests.relay.rig import Player, Rig, answer_101, reactor, request, turn, until


class Full:
    """A local server that sends one long message slowly: the client loads."""

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
    """A client that loads, and a relay that knows it."""
    first, local = await rig.joined()
    full = Full(local)
    link: Any = rig.relay.rooms.link_of("r")
    await until(lambda: link.syncs._loading)
    return first, local, full


@ensureDeferred
async def test_a_held_client_is_not_answered_and_the_local_server_knows_nothing_of_it() -> None:
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
async def test_a_held_client_that_goes_is_forgotten() -> None:
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
async def test_a_held_client_whose_agent_goes_waits_for_it_to_come_back() -> None:
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
async def test_held_clients_whose_agent_is_replaced_are_held_by_the_next_link_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not all let in by the end of the old one: they may all be about to load."""
    monkeypatch.setattr(sync_limiter, "MOST_ROUND_SECONDS", 10.0)
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
async def test_the_time_of_being_held_is_a_part_of_the_time_for_an_agent_that_goes() -> None:
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
async def test_who_is_refused_after_it_was_let_in_keeps_nobody_waiting() -> None:
    async with Rig(relay={"initial_syncs": 1}) as rig:
        await until(lambda: rig.relay.rooms.link_of("r"))
        link: Any = rig.relay.rooms.link_of("r")
        link.max_clients = 0
        refused = await rig.connect(request())
        await refused.ends()
        assert refused.received.startswith(b"HTTP/1.1 429 ")
        assert not link.syncs._watched
        link.max_clients = None
        await rig.joined()
