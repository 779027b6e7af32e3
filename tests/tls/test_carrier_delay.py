"""TLS between a carrier and its socket does not delay data.

``tests/shaping`` measures the delay of a keystroke during a transfer, over ``ws`` and ``wss``.
"""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred

from tests.certificates import Authority
from tests.relay.rig import check_is_prompt
from tests.tls.rig import TlsRig


@ensureDeferred
async def test_tls_does_not_delay_data_of_a_carrier(authority: Authority) -> None:
    async with TlsRig(authority) as rig:
        link: Any = rig.relay.rooms.link_of("r")
        relay_link: Any = rig.agent._relay_link
        check_is_prompt(link._below.carrier)
        check_is_prompt(relay_link._carrier)
