"""TLS between a carrier and its socket changes nothing about when bytes leave.

What a keystroke's way beside a transfer comes to is in ``tests/shaping``, over ``ws`` and ``wss``.
"""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred

from tests.certificates import Authority
from tests.tls.rig import TlsRig
from tests.tunnel.rig import check_is_prompt


@ensureDeferred
async def test_carriers_are_as_prompt_as_without_tls(authority: Authority) -> None:
    async with TlsRig(authority) as rig:
        link: Any = rig.relay.link_of("r")
        attachment: Any = rig.agent._attachment
        check_is_prompt(link._below.carrier)
        check_is_prompt(attachment._carrier)
