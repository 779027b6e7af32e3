"""The lifetime of an agent's certificate, over a real handshake."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from seance.agent.service import AgentState
from seance.net import PeerCertificate
from seance.relay.rooms.active_grants import ActiveGrants, CertificateGrant
from tests.certificates import HOUR, Authority
from tests.relay.rig import until
from tests.tls.rig import TlsRig

NAME = "spiffe://example/agent"


def certificate(authority: Authority, seconds: float) -> dict[str, Any]:
    """Issue an agent's certificate for this time; it overwrites the previous files."""
    files = authority.issue(NAME, file="agent", valid=(-HOUR, timedelta(seconds=seconds)))
    return {"tls_cert": str(files.chain), "tls_key": str(files.key)}


@pytest.mark.slow
@ensureDeferred
async def test_session_ends_with_the_certificate_and_a_renewed_one_begins_another(
    authority: Authority,
) -> None:
    relay = {"agent_ca": str(authority.file)}
    async with TlsRig(authority, relay=relay, with_agent=False) as rig:
        agent = await rig.attach(**certificate(authority, 3))
        client, _ = await rig.joined()
        await client.goes()
        await until(lambda: rig.relay.rooms.room_count == 0)
        # It dials with the old certificate, which the handshake rejects, until there is a new one.
        await until(lambda: agent.status.state is AgentState.WAITING)
        certificate(authority, 3600)
        await until(lambda: rig.relay.rooms.room_count == 1)


def test_grant_of_a_certificate_ends_when_it_expires() -> None:
    clock = Clock()
    grants = ActiveGrants(clock, None, now=lambda: 1000.0 + clock.seconds())
    said: list[str] = []
    grants.start()
    grant = CertificateGrant.of(PeerCertificate(None, (), (NAME,), "f00", expires_at=1005.5))
    assert grant.allows_room("any")
    grants.add(grant, said.append)
    for _ in range(5):
        clock.advance(1)
    assert said == []
    clock.advance(1)
    assert said == ["The certificate of this session has expired."]
    assert len(grants) == 0
    grants.stop()
