"""Each failure in a tunnel is reported for the right hop, and for no other."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError

from seance.doctor import network_checks
from seance.doctor.findings import DoctorReport, Hop, HopStatus
from seance.relay.rooms.directory import RoomState
from tests.certificates import Authority
from tests.doctor.rig import (
    HEALTHY,
    StubServer,
    accept_upgrade,
    diagnose,
    finding,
    only_failure,
    reply,
    running_tunnel,
)
from tests.processes import free_port
from tests.relay.rig import Rig, turn, until
from tests.tls.rig import TlsRig
from tests.yserver.client import connect


@pytest.fixture
def authority(tmp_path: Any) -> Authority:
    return Authority(tmp_path)


# No failure


@ensureDeferred
async def test_all_hops_of_a_working_tunnel_pass_and_are_timed() -> None:
    async with running_tunnel() as (rig, _):
        report = await diagnose(f"ws://localhost:{rig.port}", "r", local=rig.agent.settings.local)
        assert report.exit_code == 0
        assert [one.hop for one in report.findings] == list(Hop)
        assert {one.status for one in report.findings} == {HopStatus.OK, HopStatus.NOT_NEEDED}
        assert set(report.round_trips) == {"tcp", "local", "tunnel"}
        assert "Yjs sync" in finding(report, Hop.SYNC).message
        assert abs(report.clock_ahead_seconds or 0.0) < 5
        fields = report.as_json()
        assert (fields["ok"], fields["hop"]) == (True, None)
        await until(lambda: rig.relay.rooms.client_count == 0)


@ensureDeferred
async def test_all_hops_pass_with_tls(authority: Authority) -> None:
    async with running_tunnel(lambda **options: TlsRig(authority, **options)) as (rig, _):
        report = await diagnose(rig.relay_url, "r", ca_file=str(authority.file))
        assert report.exit_code == 0
        assert finding(report, Hop.TLS).status is HopStatus.OK
        assert "authority" in finding(report, Hop.TLS).message


@ensureDeferred
async def test_checked_document_does_not_change_and_its_editors_receive_nothing() -> None:
    async with running_tunnel() as (rig, server):
        port: Any = await server.when_listening()
        writer = await connect(port.getHost().port, "/novel")
        writer.write("It was a dark and stormy night")
        await until(lambda: writer.is_synced)
        before, heard = writer.doc.get_state(), dict(writer.others)
        report = await diagnose(rig.relay_url, "r", document="/novel")
        assert report.exit_code == 0
        assert writer.doc.get_state() == before
        assert writer.others == heard
        reader = await connect(port.getHost().port, "/novel")
        await until(lambda: reader.is_synced)
        assert str(reader.text) == "It was a dark and stormy night"
        for client in (writer, reader):
            client.sendClose()
            await until(lambda client=client: client.closed)


@ensureDeferred
async def test_without_a_room_only_the_relay_is_checked() -> None:
    async with Rig(with_agent=False) as rig:
        report = await diagnose(rig.relay_url)
        assert report.hops == (Hop.URL, Hop.DNS, Hop.TCP, Hop.TLS, Hop.PROXY, Hop.RELAY)
        assert report.exit_code == 0
        assert rig.relay.rooms.room_count == 0


@ensureDeferred
async def test_without_a_relay_only_the_local_server_is_checked() -> None:
    async with running_tunnel() as (rig, _):
        report = await diagnose(None, local=rig.agent.settings.local)
        assert (report.hops, report.exit_code) == ((Hop.LOCAL,), 0)
        assert "Yjs sync" in finding(report, Hop.LOCAL).message


# The local server


@ensureDeferred
async def test_killed_local_server_is_reported_through_the_tunnel() -> None:
    async with running_tunnel() as (rig, server):
        await server.stopService()
        failed = only_failure(await diagnose(rig.relay_url, "r"), Hop.LOCAL)
        assert "The agent does not reach its local server: 502" in failed.message
        assert "--local" in failed.advice


@ensureDeferred
async def test_killed_local_server_is_reported_by_the_direct_check() -> None:
    async with running_tunnel() as (rig, server):
        await server.stopService()
        report = await diagnose(rig.relay_url, "r", local=rig.agent.settings.local)
        assert "connection refused" in only_failure(report, Hop.LOCAL).message
        assert rig.relay.rooms.client_count == 0, "the tunnel was tried although the local server is down"


@ensureDeferred
async def test_agent_with_another_local_address_is_distinguished_from_a_server_that_is_down() -> None:
    async with running_tunnel(agent={"local": f"127.0.0.1:{free_port()}"}) as (rig, server):
        port: Any = await server.when_listening()
        report = await diagnose(rig.relay_url, "r", local=f"127.0.0.1:{port.getHost().port}")
        failed = finding(report, Hop.LOCAL)
        assert report.failed is Hop.LOCAL
        assert "answers here, so the agent uses another address" in failed.message


@ensureDeferred
async def test_local_server_without_websocket_is_reported() -> None:
    async with StubServer(lambda _: reply(404, "no such page")) as web:
        report = await diagnose(None, local=f"127.0.0.1:{web.port}")
        assert '404, "no such page"' in only_failure(report, Hop.LOCAL).message
        async with Rig(agent={"local": f"127.0.0.1:{web.port}"}) as rig:
            report = await diagnose(rig.relay_url, "r")
            assert '404, "no such page"' in only_failure(report, Hop.LOCAL).message


@pytest.mark.parametrize(
    ("local", "words"),
    [
        ("tls://127.0.0.1:{port}", "did not take the connection within 0.5 s"),
        ("unix:{folder}/no-such-socket", "does not accept connections"),
        ("127.0.0.1:{port}", "closed the connection instead of answering"),
    ],
)
@ensureDeferred
async def test_local_server_is_dialled_as_by_the_agent(local: str, words: str, tmp_path: Path) -> None:
    async with StubServer(lambda _: b"") as server:
        address = local.format(port=server.port, folder=tmp_path)
        failed = only_failure(await diagnose(None, local=address, timeout_seconds=0.5), Hop.LOCAL)
        assert words in failed.message
        assert ("remove tls://" in failed.advice) == address.startswith("tls:")


@ensureDeferred
async def test_503_of_the_local_server_is_not_attributed_to_the_relay() -> None:
    async with (
        StubServer(lambda _: reply(503, "<p>down for maintenance", kind="text/html")) as web,
        Rig(agent={"local": f"127.0.0.1:{web.port}"}) as rig,
    ):
        report = await diagnose(rig.relay_url, "r")
        assert "503 (text/html)" in only_failure(report, Hop.LOCAL).message


@ensureDeferred
async def test_local_server_that_never_answers_is_reported() -> None:
    async with Rig(relay={"upgrade_seconds": 0.2}) as rig:
        report = await diagnose(rig.relay_url, "r")
        assert "did not answer within" in only_failure(report, Hop.LOCAL).message


# The tunnel and the sync


@ensureDeferred
async def test_upgrade_without_a_response_is_a_failure_of_the_tunnel() -> None:
    async with Rig() as rig:
        report = await diagnose(rig.relay_url, "r", timeout_seconds=0.4)
        # Without a response, the local server has not been checked.
        assert report.failed is Hop.TUNNEL
        assert finding(report, Hop.LOCAL).status is HopStatus.NOT_TRIED
        assert "although the agent is connected" in finding(report, Hop.TUNNEL).message


@ensureDeferred
async def test_full_room_is_a_failure_of_the_tunnel() -> None:
    async with Rig(relay={"streams_per_agent": 1}) as rig:
        await rig.joined()
        report = await diagnose(rig.relay_url, "r")
        assert report.failed is Hop.TUNNEL
        assert "429" in finding(report, Hop.TUNNEL).message


@ensureDeferred
async def test_server_that_accepts_and_never_answers_is_reported() -> None:
    async with (
        StubServer(accept_upgrade, closes=False) as mute,
        Rig(agent={"local": f"127.0.0.1:{mute.port}"}) as rig,
    ):
        report = await diagnose(rig.relay_url, "r", timeout_seconds=0.5)
        assert "does not answer within 0.5 s" in only_failure(report, Hop.SYNC).message


@ensureDeferred
async def test_immediate_close_is_reported_with_code_and_reason() -> None:
    close = b"\x88\x0e" + (4401).to_bytes(2, "big") + b"no password!"
    async with (
        StubServer(lambda head: accept_upgrade(head, close), closes=False) as strict,
        Rig(agent={"local": f"127.0.0.1:{strict.port}"}) as rig,
    ):
        failed = only_failure(await diagnose(rig.relay_url, "r"), Hop.SYNC)
        assert "with code 4401 and 'no password!'" in failed.message
        assert "--document" in failed.advice


# The agent


@ensureDeferred
async def test_disconnected_agent_is_reported() -> None:
    async with running_tunnel() as (rig, _):
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        failed = only_failure(await diagnose(rig.relay_url, "r"), Hop.AGENT)
        assert "disconnected" in failed.message
        assert f"seance agent --room r --relay {rig.relay_url}" in failed.advice


@ensureDeferred
async def test_agent_without_network_is_reported() -> None:
    async with Rig(agent={"backoff_base_seconds": 600.0, "resume_backoff_cap_seconds": 600.0}) as rig:
        relay_link: Any = rig.agent.relay_link
        rig.agent._waits.quick.next_seconds = lambda: 600.0  # type: ignore[method-assign]
        relay_link.drop_carrier()
        await until(lambda: rig.relay.rooms.status("r").state is RoomState.RESUMING)
        failed = only_failure(await diagnose(rig.relay_url, "r"), Hop.AGENT)
        assert "waits for it to reconnect" in failed.message


@ensureDeferred
async def test_unknown_room_is_reported() -> None:
    async with running_tunnel() as (rig, _):
        failed = only_failure(await diagnose(rig.relay_url, "R"), Hop.AGENT)
        assert "No agent serves the room R" in failed.message
        assert "case matters" in failed.advice


@ensureDeferred
async def test_agent_that_disconnects_between_two_requests_is_reported() -> None:
    def answer(head: bytes) -> bytes:
        if b"/status" in head:
            return reply(
                200, json.dumps({"room": "r", "state": "online", "since": 1.0}), kind="application/json"
            )
        if b"Sec-WebSocket-Key: seance-doctor\r\n" in head:
            return reply(400, "Exactly one key.")
        return (
            reply(503, "The agent of this room has just gone; try again.") if b"Upgrade" in head else HEALTHY
        )

    async with StubServer(answer) as relay:
        report = await diagnose(relay.url, "r")
        assert report.failed is Hop.AGENT
        assert "has just disconnected" in finding(report, Hop.AGENT).message


# The certificate


@pytest.mark.parametrize(
    ("names", "options", "words", "advice"),
    [
        (["localhost"], {"valid": (timedelta(-2), timedelta(-1))}, "has expired, on ", "was not renewed"),
        (["localhost"], {"valid": (timedelta(1), timedelta(2))}, "is not valid before ", "NTP"),
        (["other.example"], {}, "is for another name: it is for other.example", "in --relay"),
        (["localhost"], {"for_servers": False}, "is not a server certificate", "Replace it"),
    ],
)
@ensureDeferred
async def test_invalid_certificate_is_reported_with_the_reason(
    authority: Authority, names: list[str], options: dict[str, Any], words: str, advice: str
) -> None:
    async with TlsRig(authority, authority.issue(*names, **options), with_agent=False) as rig:
        report = await diagnose(rig.relay_url, "r", ca_file=str(authority.file))
        failed = only_failure(report, Hop.TLS)
        assert words in failed.message
        assert advice in failed.advice


@ensureDeferred
async def test_unknown_authority_is_reported_with_the_option_to_trust_it(
    authority: Authority,
) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        failed = only_failure(await diagnose(rig.relay_url, "r"), Hop.TLS)
        assert "comes from an authority that is not trusted here" in failed.message
        assert "--tls-ca FILE" in failed.advice


@ensureDeferred
async def test_wss_url_of_a_relay_without_tls_is_reported() -> None:
    async with Rig(with_agent=False) as rig:
        failed = only_failure(await diagnose(f"wss://localhost:{rig.port}", "r"), Hop.TLS)
        assert "does not speak TLS" in failed.message
        assert "ws://" in failed.advice


@ensureDeferred
async def test_ws_url_of_a_relay_with_tls_is_reported(authority: Authority) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        failed = only_failure(await diagnose(f"ws://localhost:{rig.port}", "r"), Hop.PROXY)
        assert "wss://" in failed.advice


@ensureDeferred
async def test_port_that_never_answers_the_tls_handshake_is_reported(authority: Authority) -> None:
    async with StubServer(lambda _: None) as silent:
        report = await diagnose(f"wss://127.0.0.1:{silent.port}", timeout_seconds=0.3)
        assert "did not finish within 0.3 s" in only_failure(report, Hop.TLS).message


# Ctrl-C


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@ensureDeferred
async def test_cancelling_before_a_response_closes_everything(scheme: str) -> None:
    async with StubServer(lambda _: None, closes=False) as silent:
        running = Deferred.fromCoroutine(diagnose(f"{scheme}://127.0.0.1:{silent.port}", "r"))
        await turn(0.05)
        await until_cancelled(running)


@ensureDeferred
async def test_cancelling_while_connecting_closes_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connecting: list[Deferred[Any]] = []

    class Never:
        def connect(self, factory: object) -> Deferred[Any]:
            connecting.append(Deferred(lambda one: one.errback(ConnectingCancelledError(None))))
            return connecting[-1]

    async with StubServer(lambda _: None) as silent:
        monkeypatch.setattr(network_checks, "endpoint_at", lambda *_: Never())
        running = Deferred.fromCoroutine(diagnose(silent.url, "r"))
        await until(lambda: connecting)
        await until_cancelled(running)


@ensureDeferred
async def test_cancelling_during_the_sync_closes_everything() -> None:
    async with (
        StubServer(accept_upgrade, closes=False) as mute,
        Rig(agent={"local": f"127.0.0.1:{mute.port}"}) as rig,
    ):
        running = Deferred.fromCoroutine(diagnose(rig.relay_url, "r"))
        await until(lambda: mute.heads)
        await turn(0.05)
        await until_cancelled(running)
        await until(lambda: rig.relay.rooms.client_count == 0)


async def until_cancelled(running: Deferred[DoctorReport]) -> None:
    assert not running.called, running.result
    running.cancel()
    with pytest.raises(CancelledError):
        await running
