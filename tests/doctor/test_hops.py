"""What the issue asks for: each thing that can be killed is named as the hop that it is, and no other."""

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
from seance.doctor.findings import Hop, Mark, Report
from seance.relay.rooms.directory import RoomState
from tests.certificates import Authority
from tests.doctor.rig import HEALTHY, Stand, diagnose, finding, hosted, nothing_but, opening, plain
from tests.processes import free_port
from tests.relay.rig import Rig, turn, until
from tests.tls.rig import TlsRig
from tests.yserver.client import connect


@pytest.fixture
def authority(tmp_path: Any) -> Authority:
    return Authority(tmp_path)


# All is well


@ensureDeferred
async def test_all_hops_of_a_healthy_tunnel_are_well_and_timed() -> None:
    async with hosted() as (rig, _):
        report = await diagnose(f"ws://localhost:{rig.port}", "r", local=rig.agent.settings.local)
        assert report.exit_code == 0
        assert [one.hop for one in report.findings] == list(Hop)
        assert {one.mark for one in report.findings} == {Mark.WELL, Mark.NOT_NEEDED}
        assert set(report.round_trips) == {"tcp", "local", "tunnel"}
        assert "Yjs sync" in finding(report, Hop.SYNC).sentence
        assert abs(report.clock_ahead_seconds or 0.0) < 5
        told = report.as_json()
        assert (told["ok"], told["hop"]) == (True, None)
        await until(lambda: rig.relay.rooms.client_count == 0)


@ensureDeferred
async def test_all_hops_are_well_with_tls_too(authority: Authority) -> None:
    async with hosted(lambda **options: TlsRig(authority, **options)) as (rig, _):
        report = await diagnose(rig.relay_url, "r", ca_file=str(authority.file))
        assert report.exit_code == 0
        assert finding(report, Hop.TLS).mark is Mark.WELL
        assert "authority" in finding(report, Hop.TLS).sentence


@ensureDeferred
async def test_a_document_that_is_looked_at_stays_as_it_is_and_those_who_edit_it_hear_nothing() -> None:
    async with hosted() as (rig, server):
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
async def test_without_a_room_the_relay_alone_is_looked_at() -> None:
    async with Rig(with_agent=False) as rig:
        report = await diagnose(rig.relay_url)
        assert report.hops == (Hop.URL, Hop.DNS, Hop.TCP, Hop.TLS, Hop.PROXY, Hop.RELAY)
        assert report.exit_code == 0
        assert rig.relay.rooms.room_count == 0


@ensureDeferred
async def test_without_a_relay_the_local_server_alone_is_looked_at() -> None:
    async with hosted() as (rig, _):
        report = await diagnose(None, local=rig.agent.settings.local)
        assert (report.hops, report.exit_code) == ((Hop.LOCAL,), 0)
        assert "Yjs sync" in finding(report, Hop.LOCAL).sentence


# The local server


@ensureDeferred
async def test_a_local_server_that_was_killed_is_named_by_way_of_the_tunnel() -> None:
    async with hosted() as (rig, server):
        await server.stopService()
        failed = nothing_but(await diagnose(rig.relay_url, "r"), Hop.LOCAL)
        assert "does not take connections" in failed.sentence
        assert "--local" in failed.advice


@ensureDeferred
async def test_a_local_server_that_was_killed_is_named_when_asked_directly() -> None:
    async with hosted() as (rig, server):
        await server.stopService()
        report = await diagnose(rig.relay_url, "r", local=rig.agent.settings.local)
        assert "nothing listens there" in nothing_but(report, Hop.LOCAL).sentence
        assert rig.relay.rooms.client_count == 0, "the tunnel was tried though the way is known to end"


@ensureDeferred
async def test_an_agent_that_asks_elsewhere_is_told_from_a_server_that_is_down() -> None:
    async with hosted(agent={"local": f"127.0.0.1:{free_port()}"}) as (rig, server):
        port: Any = await server.when_listening()
        report = await diagnose(rig.relay_url, "r", local=f"127.0.0.1:{port.getHost().port}")
        failed = finding(report, Hop.LOCAL)
        assert report.failed is Hop.LOCAL
        assert "answers here, so the agent asks somewhere else" in failed.sentence


@ensureDeferred
async def test_a_local_server_that_speaks_no_websocket_is_named() -> None:
    async with Stand(lambda _: plain(404, "no such page")) as web:
        report = await diagnose(None, local=f"127.0.0.1:{web.port}")
        assert '404, "no such page"' in nothing_but(report, Hop.LOCAL).sentence
        async with Rig(agent={"local": f"127.0.0.1:{web.port}"}) as rig:
            report = await diagnose(rig.relay_url, "r")
            assert '404, "no such page"' in nothing_but(report, Hop.LOCAL).sentence


@pytest.mark.parametrize(
    ("local", "words"),
    [
        ("tls://127.0.0.1:{port}", "did not take the connection within 0.5 s"),
        ("unix:{folder}/no-such-socket", "does not take connections"),
        ("127.0.0.1:{port}", "closed the connection instead of answering"),
    ],
)
@ensureDeferred
async def test_a_local_server_of_any_kind_is_asked_as_the_agent_would(
    local: str, words: str, tmp_path: Path
) -> None:
    async with Stand(lambda _: b"") as server:
        address = local.format(port=server.port, folder=tmp_path)
        failed = nothing_but(await diagnose(None, local=address, timeout_seconds=0.5), Hop.LOCAL)
        assert words in failed.sentence
        assert ("drop tls://" in failed.advice) == address.startswith("tls:")


@ensureDeferred
async def test_what_the_local_server_itself_answers_is_not_taken_for_the_relays() -> None:
    async with (
        Stand(lambda _: plain(503, "<p>down for maintenance", kind="text/html")) as web,
        Rig(agent={"local": f"127.0.0.1:{web.port}"}) as rig,
    ):
        report = await diagnose(rig.relay_url, "r")
        assert "503 (text/html)" in nothing_but(report, Hop.LOCAL).sentence


@ensureDeferred
async def test_a_local_server_that_takes_connections_and_says_nothing_is_named() -> None:
    async with Rig(relay={"upgrade_seconds": 0.2}) as rig:
        report = await diagnose(rig.relay_url, "r")
        assert "did not answer within" in nothing_but(report, Hop.LOCAL).sentence


# The tunnel, and what is spoken in it


@ensureDeferred
async def test_an_upgrade_that_is_never_answered_is_the_tunnels() -> None:
    async with Rig() as rig:
        report = await diagnose(rig.relay_url, "r", timeout_seconds=0.4)
        # Without an answer through the tunnel, nothing is known of the local server.
        assert report.failed is Hop.TUNNEL
        assert finding(report, Hop.LOCAL).mark is Mark.NOT_TRIED
        assert "although the agent counts as attached" in finding(report, Hop.TUNNEL).sentence


@ensureDeferred
async def test_a_room_that_is_full_is_the_tunnels() -> None:
    async with Rig(relay={"streams_per_agent": 1}) as rig:
        await rig.joined()
        report = await diagnose(rig.relay_url, "r")
        assert report.failed is Hop.TUNNEL
        assert "429" in finding(report, Hop.TUNNEL).sentence


@ensureDeferred
async def test_a_server_that_opens_and_stays_silent_is_named_as_that() -> None:
    async with Stand(opening, closes=False) as mute, Rig(agent={"local": f"127.0.0.1:{mute.port}"}) as rig:
        report = await diagnose(rig.relay_url, "r", timeout_seconds=0.5)
        assert "nothing is answered" in nothing_but(report, Hop.SYNC).sentence


@ensureDeferred
async def test_a_server_that_closes_at_once_is_named_with_its_code_and_reason() -> None:
    close = b"\x88\x0e" + (4401).to_bytes(2, "big") + b"no password!"
    async with (
        Stand(lambda head: opening(head, close), closes=False) as strict,
        Rig(agent={"local": f"127.0.0.1:{strict.port}"}) as rig,
    ):
        failed = nothing_but(await diagnose(rig.relay_url, "r"), Hop.SYNC)
        assert "with code 4401 and 'no password!'" in failed.sentence
        assert "--document" in failed.advice


# The agent


@ensureDeferred
async def test_an_agent_that_has_left_is_named() -> None:
    async with hosted() as (rig, _):
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        failed = nothing_but(await diagnose(rig.relay_url, "r"), Hop.AGENT)
        assert "has gone" in failed.sentence
        assert f"seance agent --room r --relay {rig.relay_url}" in failed.advice


@ensureDeferred
async def test_an_agent_that_has_lost_its_network_is_named() -> None:
    async with Rig(agent={"backoff_base_seconds": 600.0, "resume_backoff_cap_seconds": 600.0}) as rig:
        relay_link: Any = rig.agent.relay_link
        rig.agent._waits.quick.next_seconds = lambda: 600.0  # type: ignore[method-assign]
        relay_link.drop_carrier()
        await until(lambda: rig.relay.front.presence.status("r").state is RoomState.RESUMING)
        failed = nothing_but(await diagnose(rig.relay_url, "r"), Hop.AGENT)
        assert "waits for it to come back" in failed.sentence


@ensureDeferred
async def test_a_room_that_nobody_serves_is_named() -> None:
    async with hosted() as (rig, _):
        failed = nothing_but(await diagnose(rig.relay_url, "R"), Hop.AGENT)
        assert "No agent serves the room R" in failed.sentence
        assert "capitals count" in failed.advice


@ensureDeferred
async def test_an_agent_that_goes_between_two_questions_is_named_and_not_the_local_server() -> None:
    def answer(head: bytes) -> bytes:
        if b"/status" in head:
            return plain(
                200, json.dumps({"room": "r", "state": "online", "since": 1.0}), kind="application/json"
            )
        if b"Sec-WebSocket-Key: seance-doctor\r\n" in head:
            return plain(400, "Exactly one key.")
        return (
            plain(503, "The agent of this room has just gone; try again.") if b"Upgrade" in head else HEALTHY
        )

    async with Stand(answer) as relay:
        report = await diagnose(relay.url, "r")
        assert report.failed is Hop.AGENT
        assert "has just gone" in finding(report, Hop.AGENT).sentence


# The certificate


@pytest.mark.parametrize(
    ("names", "options", "words", "advice"),
    [
        (["localhost"], {"valid": (timedelta(-2), timedelta(-1))}, "has expired, on ", "was not renewed"),
        (["localhost"], {"valid": (timedelta(1), timedelta(2))}, "is not valid before ", "NTP"),
        (["other.example"], {}, "is for another name: it is for other.example", "in --relay"),
        (["localhost"], {"for_servers": False}, "is not a server certificate", "another one"),
    ],
)
@ensureDeferred
async def test_a_certificate_that_will_not_do_is_named_with_its_fault(
    authority: Authority, names: list[str], options: dict[str, Any], words: str, advice: str
) -> None:
    async with TlsRig(authority, authority.issue(*names, **options), with_agent=False) as rig:
        report = await diagnose(rig.relay_url, "r", ca_file=str(authority.file))
        failed = nothing_but(report, Hop.TLS)
        assert words in failed.sentence
        assert advice in failed.advice


@ensureDeferred
async def test_a_certificate_of_an_unknown_authority_is_named_and_how_to_name_that(
    authority: Authority,
) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        failed = nothing_but(await diagnose(rig.relay_url, "r"), Hop.TLS)
        assert "comes from an authority that is not trusted here" in failed.sentence
        assert "--tls-ca FILE" in failed.advice


@ensureDeferred
async def test_a_relay_without_tls_is_named_where_tls_was_wanted() -> None:
    async with Rig(with_agent=False) as rig:
        failed = nothing_but(await diagnose(f"wss://localhost:{rig.port}", "r"), Hop.TLS)
        assert "does not speak TLS" in failed.sentence
        assert "ws://" in failed.advice


@ensureDeferred
async def test_a_relay_with_tls_is_named_where_none_was_wanted(authority: Authority) -> None:
    async with TlsRig(authority, with_agent=False) as rig:
        failed = nothing_but(await diagnose(f"ws://localhost:{rig.port}", "r"), Hop.PROXY)
        assert "wss://" in failed.advice


@ensureDeferred
async def test_a_port_that_never_answers_a_handshake_is_named(authority: Authority) -> None:
    async with Stand(lambda _: None) as silent:
        report = await diagnose(f"wss://127.0.0.1:{silent.port}", timeout_seconds=0.3)
        assert "was not over within 0.3 s" in nothing_but(report, Hop.TLS).sentence


# Ctrl-C


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@ensureDeferred
async def test_a_walk_that_is_cancelled_before_an_answer_leaves_nothing(scheme: str) -> None:
    async with Stand(lambda _: None, closes=False) as silent:
        walking = Deferred.fromCoroutine(diagnose(f"{scheme}://127.0.0.1:{silent.port}", "r"))
        await turn(0.05)
        await until_cancelled(walking)


@ensureDeferred
async def test_a_walk_that_is_cancelled_while_it_connects_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connecting: list[Deferred[Any]] = []

    class Never:
        def connect(self, factory: object) -> Deferred[Any]:
            connecting.append(Deferred(lambda one: one.errback(ConnectingCancelledError(None))))
            return connecting[-1]

    async with Stand(lambda _: None) as silent:
        monkeypatch.setattr(network_checks, "endpoint_at", lambda *_: Never())
        walking = Deferred.fromCoroutine(diagnose(silent.url, "r"))
        await until(lambda: connecting)
        await until_cancelled(walking)


@ensureDeferred
async def test_a_walk_that_is_cancelled_while_it_talks_leaves_nothing() -> None:
    async with Stand(opening, closes=False) as mute, Rig(agent={"local": f"127.0.0.1:{mute.port}"}) as rig:
        walking = Deferred.fromCoroutine(diagnose(rig.relay_url, "r"))
        await until(lambda: mute.heads)
        await turn(0.05)
        await until_cancelled(walking)
        await until(lambda: rig.relay.rooms.client_count == 0)


async def until_cancelled(walking: Deferred[Report]) -> None:
    assert not walking.called, walking.result
    walking.cancel()
    with pytest.raises(CancelledError):
        await walking
