"""A client of this project resumes its last session, and not one that was verified for something else."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from seance.agent.service import AgentState
from seance.net import ServerTls
from seance.net.client_tls import ClientTls
from seance.net.tls_connection import TlsConnection
from tests.certificates import Authority
from tests.relay.rig import until
from tests.tls.rig import TlsRig
from tests.tls.test_client import Server, expired, refused


async def talk(server: Server, tls: ClientTls) -> bool:
    """Connect, exchange a word, close, and return whether the session was resumed."""
    player = await server.connect(tls)
    player.send(b"hello")
    await until(lambda: server.players[-1].received == b"hello")
    handle: Any = server.players[-1].leg.getHandle()
    is_resumed: bool = handle.tls.session_reused
    server.players[-1].send(b"hello")
    await until(lambda: player.received == b"hello")
    player.leg.loseConnection()
    await player.goes()
    return is_resumed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@ensureDeferred
async def test_the_last_session_is_resumed(authority: Authority, version: ssl.TLSVersion) -> None:
    files = authority.issue("localhost")
    server_tls = ServerTls(files.chain, files.key)
    tls = ClientTls("localhost", ca_file=authority.file)
    async with Server(server_tls) as server:
        assert isinstance(server_tls.content, ssl.SSLContext)
        server_tls.content.maximum_version = version
        assert [await talk(server, tls) for _ in range(3)] == [False, True, True]


@ensureDeferred
async def test_a_session_is_not_resumed_for_another_host_or_with_other_settings(authority: Authority) -> None:
    """OpenSSL does not verify a resumed session again, so it must not cross these borders."""
    files = authority.issue("localhost")
    async with Server(ServerTls(files.chain, files.key)) as server:
        assert not await talk(server, ClientTls("localhost", ca_file=authority.file))
        assert not await talk(server, ClientTls("localhost", insecure=True))
        sentence = await refused(server, ClientTls("relay.example", ca_file=authority.file))
        assert "is for another name" in sentence


@ensureDeferred
async def test_a_session_is_dropped_when_the_trusted_authorities_change(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue("localhost")
    tls = ClientTls("localhost", ca_file=authority.file)
    async with Server(ServerTls(files.chain, files.key)) as server:
        assert [await talk(server, tls) for _ in range(2)] == [False, True]
        shutil.copy(Authority(tmp_path, "other").file, authority.file)
        assert "not trusted here" in await refused(server, tls)


@ensureDeferred
async def test_a_certificate_is_verified_again_after_a_while(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seance.net.client_tls.RESUME_SECONDS", 0.0)
    files = authority.issue("localhost")
    tls = ClientTls("localhost", ca_file=authority.file)
    async with Server(ServerTls(files.chain, files.key)) as server:
        assert [await talk(server, tls) for _ in range(2)] == [False, False]


@ensureDeferred
async def test_resuming_does_not_extend_the_time_until_the_next_verification(authority: Authority) -> None:
    files = authority.issue("localhost")
    tls = ClientTls("localhost", ca_file=authority.file)
    async with Server(ServerTls(files.chain, files.key)) as server:
        await talk(server, tls)
        first = tls._session
        assert await talk(server, tls)
        assert first is not None
        assert tls._session is not None
        assert tls._session.session != first.session
        assert tls._session.usable_until == first.usable_until


@ensureDeferred
async def test_a_server_that_has_lost_its_keys_is_verified_again(authority: Authority) -> None:
    files = authority.issue("localhost")
    server_tls = ServerTls(files.chain, files.key)
    tls = ClientTls("localhost", ca_file=authority.file)
    async with Server(server_tls) as server:
        assert [await talk(server, tls) for _ in range(2)] == [False, True]
        expired(authority, authority.file)
        assert server_tls.check()
        assert "has expired" in await refused(server, tls)


@ensureDeferred
async def test_an_agent_resumes_its_session_when_it_connects_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    are_resumed: list[bool] = []
    keep = ClientTls.keep_session

    def note(tls: ClientTls, connection: TlsConnection) -> None:
        are_resumed.append(bool(connection.tls.session_reused))
        keep(tls, connection)

    monkeypatch.setattr(ClientTls, "keep_session", note)
    async with TlsRig(authority) as rig:
        rig.agent._relay_link.carrier.abortConnection()  # type: ignore[union-attr]
        await until(lambda: rig.agent.status.state is not AgentState.CONNECTED)
        await rig.agent.when_connected()
    assert are_resumed == [False, True]
