"""The upgrade with a browser's ``Origin``: a local server that refuses it is a warning."""

from __future__ import annotations

import re

import pytest
from pytest_twisted import ensureDeferred

from seance.doctor.findings import Finding, Hop, HopStatus
from tests.doctor.rig import StubServer, accept_upgrade, diagnose, finding, reply
from tests.relay.rig import Rig


def compare_origin(head: bytes) -> bytes:
    """Answer as gorilla/websocket does by default: the host of ``Origin`` must equal ``Host``."""
    origin = re.search(rb"\r\norigin: [a-z]+://([^\r]*)\r", head.lower())
    host = re.search(rb"\r\nhost: ([^\r]*)\r", head.lower())
    assert host is not None
    return accept_upgrade(head) if origin is None or origin[1] == host[1] else reply(403, "bad origin")


async def tunnel_finding(**options: dict[str, object]) -> Finding:
    async with (
        StubServer(compare_origin, closes=False) as strict,
        Rig(
            relay=options.get("relay"),
            agent={"local": f"127.0.0.1:{strict.port}", **options.get("agent", {})},
        ) as rig,
    ):
        return finding(await diagnose(rig.relay_url, "r", timeout_seconds=0.5), Hop.TUNNEL)


@ensureDeferred
async def test_refused_origin_is_a_warning_with_the_option_to_set() -> None:
    one = await tunnel_finding()
    assert one.status is HopStatus.WARNING
    assert '403, "bad origin"' in one.message
    assert "--rewrite-origin" in one.advice


@pytest.mark.parametrize("option", ["rewrite_origin", "keep_host"])
@ensureDeferred
async def test_either_option_avoids_the_warning(option: str) -> None:
    assert (await tunnel_finding(agent={option: True})).status is HopStatus.OK


@ensureDeferred
async def test_refusal_by_the_relays_own_list_is_no_warning() -> None:
    one = await tunnel_finding(relay={"origins": ("https://app.example",)})
    assert one.status is HopStatus.OK
