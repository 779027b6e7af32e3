"""The doctor asks as a browser would, with an Origin, and names the option that helps."""

from __future__ import annotations

import re

import pytest
from pytest_twisted import ensureDeferred

from seance.doctor.findings import Finding, Hop, Mark
from tests.doctor.rig import Stand, diagnose, finding, opening, plain
from tests.relay.rig import Rig


def compares_origin(head: bytes) -> bytes:
    """Answer as gorilla/websocket does by default: an Origin has to be of the same host as Host."""
    origin = re.search(rb"\r\norigin: [a-z]+://([^\r]*)\r", head.lower())
    host = re.search(rb"\r\nhost: ([^\r]*)\r", head.lower())
    assert host is not None
    return opening(head) if origin is None or origin[1] == host[1] else plain(403, "bad origin")


async def found(**options: dict[str, object]) -> Finding:
    async with (
        Stand(compares_origin, closes=False) as strict,
        Rig(
            relay=options.get("relay"),
            agent={"local": f"127.0.0.1:{strict.port}", **options.get("agent", {})},
        ) as rig,
    ):
        return finding(await diagnose(rig.relay_url, "r", timeout_seconds=0.5), Hop.TUNNEL)


@ensureDeferred
async def test_local_server_that_refuses_the_public_origin_is_named_with_the_option() -> None:
    one = await found()
    assert one.mark is Mark.WARNING
    assert '403, "bad origin"' in one.sentence
    assert "--rewrite-origin" in one.advice


@pytest.mark.parametrize("option", ["rewrite_origin", "keep_host"])
@ensureDeferred
async def test_with_either_option_all_is_well(option: str) -> None:
    assert (await found(agent={option: True})).mark is Mark.WELL


@ensureDeferred
async def test_list_of_the_relay_is_not_taken_for_the_local_servers() -> None:
    one = await found(relay={"origins": ("https://app.example",)})
    assert one.mark is Mark.WELL
