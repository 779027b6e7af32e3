"""An internal error ends one client immediately and leaves nothing behind."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from seance.core.observers import NullObserver
from tests.conftest import Watch
from tests.relay.rig import Rig, answer_101, request, until


class Faulty(NullObserver):
    """An observer that fails at one event."""

    def __init__(self, what: str) -> None:
        setattr(self, what, lambda *_: 1 // 0)


@pytest.mark.parametrize("what", ["client_answered", "client_joined"])
@pytest.mark.parametrize("glued", [b"", b"\x82\x05glued"])
@ensureDeferred
async def test_a_client_whose_observer_fails_is_cut_and_its_slot_is_free(
    what: str, glued: bytes, watch: Watch
) -> None:
    async with Rig() as rig:
        await until(lambda: rig.relay.front.admission.open_count == 1)
        rig.relay.context.observer = Faulty(what)
        client = await rig.connect(request())
        local = await rig.local()
        local.send(answer_101() + (glued or b"\x82\x00"))
        await client.goes()
        await local.goes()
        await until(lambda: rig.relay.front.admission.open_count == 1)
        assert rig.relay.rooms.client_count == 0
        assert len(watch.take(ZeroDivisionError)) == 1
