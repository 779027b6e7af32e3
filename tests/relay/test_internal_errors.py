"""An internal error ends one client immediately and leaves nothing behind."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from seance.core.events import ClientAnswered, ClientJoined, Event
from tests.conftest import Watch
from tests.relay.rig import Rig, answer_101, request, until


class Faulty:
    """An observer that fails at one kind of event."""

    def __init__(self, kind: type[Event]) -> None:
        self._kind = kind

    def notify(self, event: Event) -> None:
        if isinstance(event, self._kind):
            raise ZeroDivisionError


@pytest.mark.parametrize("kind", [ClientAnswered, ClientJoined])
@pytest.mark.parametrize("glued", [b"", b"\x82\x05glued"])
@ensureDeferred
async def test_a_client_whose_observer_fails_is_cut_and_its_slot_is_free(
    kind: type[Event], glued: bytes, watch: Watch
) -> None:
    async with Rig() as rig:
        await until(lambda: rig.relay.front.admission.open_count == 1)
        rig.relay.context.observer = Faulty(kind)
        client = await rig.connect(request())
        local = await rig.local()
        local.send(answer_101() + (glued or b"\x82\x00"))
        await client.goes()
        await local.goes()
        await until(lambda: rig.relay.front.admission.open_count == 1)
        assert rig.relay.rooms.client_count == 0
        assert len(watch.take(ZeroDivisionError)) == 1
