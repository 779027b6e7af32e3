"""Access to the admin port: tokens, hosts, limits, and what a refused client learns."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock

from seance.admin import site
from seance.admin.access_control import FULL_ACCESS, AccessControl, check_change
from seance.admin.site import MAX_BODY_BYTES, MAX_CONNECTIONS
from seance.auth.service import AuthService
from seance.core.interfaces import TokenRole
from seance.errors import Refusal
from tests.admin.rig import AdminRig
from tests.auth.tokens import NOW, token
from tests.relay.rig import Player, reactor, turn, until

PATHS = ("/metrics", "/api/rooms", "/api/rooms/r", "/api/events", "/api/openapi.json", "/", "/nothing")
"""Paths that need a token if the port requires one, and one that does not exist."""


def admin_token(**changes: object) -> str:
    return token(**{"role": "admin", "room": "*", **changes})


def rig_with_tokens(service: AuthService) -> AdminRig:
    agent = {"token": token(role="agent", room="*", sub="laptop"), "backoff_base_seconds": 0.02}
    return AdminRig(relay={"admin_token": True}, verifier=service, agent=agent)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@ensureDeferred
async def test_without_a_token_everything_is_401_and_nothing_leaks(service: AuthService) -> None:
    async with rig_with_tokens(service) as rig:
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer"},
            bearer("x.y.z"),
            bearer(admin_token(exp=int(NOW) - 1)),
            {"Authorization": "Basic !!!"},
            {"Authorization": "Basic " + base64.b64encode(b"\xff").decode()},
            {"Authorization": "Digest " + admin_token()},
        ]
        bodies = set()
        for fields in wrong:
            for path in PATHS:
                answer = await rig.ask(path, headers=fields)
                assert answer.status_code == 401, (path, fields)
                schemes = answer.headers.get_list("WWW-Authenticate")
                assert [one.partition(" ")[0] for one in schemes] == ["Bearer", "Basic"]
                bodies.add(answer.text)
            for path in ("/api/rooms/r", "/api/rooms/r/clients/1", "/api/rooms/nobody"):
                assert (await rig.ask(path, "DELETE", headers=fields)).status_code == 401
        assert len(bodies) == 1, "a response must not show what is wrong with a token, nor which rooms exist"
        assert rig.relay.rooms.room_count == 1


@ensureDeferred
async def test_health_needs_no_token(service: AuthService) -> None:
    async with rig_with_tokens(service) as rig:
        assert (await rig.ask("/healthz")).status_code == 200
        assert (await rig.ask("/readyz")).status_code == 200


@pytest.mark.parametrize("role", ["agent", "client"])
@ensureDeferred
async def test_token_of_another_role_is_403(service: AuthService, role: str) -> None:
    async with rig_with_tokens(service) as rig:
        answer = await rig.ask("/api/rooms", headers=bearer(token(role=role, room="*")))
        assert (answer.status_code, answer.json()["code"]) == (403, "admin_role")
        assert "WWW-Authenticate" not in answer.headers


@ensureDeferred
async def test_token_of_role_admin_opens_as_bearer_and_as_password(service: AuthService) -> None:
    async with rig_with_tokens(service) as rig:
        good = admin_token()
        basic = base64.b64encode(f"user:{good}".encode()).decode()
        for fields in (
            bearer(good),
            {"Authorization": f"Basic {basic}"},
            {"Authorization": f"bearer  {good}"},
        ):
            answer = await rig.ask("/api/rooms", headers=fields)
            assert [room["room"] for room in answer.json()["rooms"]] == ["r"]
        assert (await rig.ask("/metrics", headers=bearer(good))).status_code == 200


@ensureDeferred
async def test_token_for_some_rooms_is_limited_to_them(service: AuthService) -> None:
    async with rig_with_tokens(service) as rig:
        await rig.attach(room="team-1")
        await rig.attach(room="team-2")
        fields = bearer(admin_token(room=["team-*"]))
        rooms = (await rig.ask("/api/rooms", headers=fields)).json()["rooms"]
        assert [room["room"] for room in rooms] == ["team-1", "team-2"]
        for path in ("/api/rooms/r", "/api/rooms/nobody"):
            for method in ("GET", "DELETE"):
                answer = await rig.ask(path, method, headers=fields)
                assert (answer.status_code, answer.json()["code"]) == (404, "admin_room")
        _client, _local = await rig.joined_with(token(room="r"))
        number = (await rig.ask("/api/rooms/r", headers=bearer(admin_token()))).json()["list"][0]["client"]
        answer = await rig.ask(f"/api/rooms/r/clients/{number}", "DELETE", headers=fields)
        assert answer.status_code == 404
        assert (await rig.ask("/metrics", headers=fields)).json()["code"] == "admin_rooms"
        assert (await rig.ask("/api/rooms/team-1", "DELETE", headers=fields)).status_code == 204
        await until(lambda: rig.relay.rooms.link_of("r") is not None)


@ensureDeferred
async def test_stream_ends_when_its_token_is_revoked(service: AuthService, deny: Path, clock: Clock) -> None:
    async with rig_with_tokens(service) as rig:
        events = await rig.events(f"Authorization: Bearer {admin_token(jti='stolen')}")
        other = await rig.events(f"Authorization: Bearer {admin_token(jti='kept')}")
        await events.until("figures", rooms=1)
        deny.write_text("jti:stolen\n")
        clock.advance(1.0)
        await events.player.receives(b"\r\n0\r\n\r\n")
        assert other.player.lost is None


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
@ensureDeferred
async def test_host_of_another_domain_is_refused(host: str) -> None:
    async with AdminRig() as rig:
        for path in ("/healthz", "/metrics", "/api/rooms"):
            answer = await rig.ask(path, headers={"Host": host})
            assert (answer.status_code, answer.json()["code"]) == (403, "admin_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9090", "127.1.2.3", "[::1]:9090"])
@ensureDeferred
async def test_loopback_hosts_are_accepted(host: str) -> None:
    async with AdminRig() as rig:
        assert (await rig.ask("/api/rooms", headers={"Host": host})).status_code == 200


@ensureDeferred
async def test_two_host_fields_are_refused() -> None:
    async with AdminRig() as rig:
        answer = await raw(rig, b"GET /api/rooms HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
        assert b" 403 " in answer or b" 400 " in answer


@ensureDeferred
async def test_page_of_another_origin_changes_nothing() -> None:
    async with AdminRig() as rig:
        await rig.joined()
        for path in ("/api/rooms/r", "/api/rooms/r/clients/1"):
            answer = await rig.ask(path, "DELETE", headers={"Seance-Admin": ""})
            assert (answer.status_code, answer.json()["code"]) == (403, "admin_change")
        # The preflight request that a browser sends for another origin.
        preflight = await rig.ask("/api/rooms/r", "OPTIONS")
        assert preflight.status_code == 405
        assert not [name for name in preflight.headers if name.startswith("access-control")]
        assert rig.relay.rooms.client_count == 1


@ensureDeferred
async def test_responses_forbid_caching_framing_and_other_origins() -> None:
    async with AdminRig() as rig:
        for path in ("/healthz", "/metrics", "/api/rooms", "/nothing"):
            fields = (await rig.ask(path)).headers
            assert fields["Cache-Control"] == "no-store"
            assert fields["X-Content-Type-Options"] == "nosniff"
            assert fields["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "frame-ancestors 'none'" in fields["Content-Security-Policy"]
            assert "twisted" not in fields["Server"].lower()


@ensureDeferred
async def test_bodies_are_bounded() -> None:
    async with AdminRig() as rig:
        head = b"DELETE /api/rooms/x HTTP/1.1\r\nHost: localhost\r\nSeance-Admin: 1\r\n"
        small = await raw(rig, head + b"Content-Length: 3\r\n\r\nabc")
        assert b" 404 " in small
        player = await connection(rig)
        player.send(head + b"Content-Length: 1000000000\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1))
        await player.goes()
        assert player.received == b""


@ensureDeferred
async def test_number_of_connections_is_limited() -> None:
    async with AdminRig() as rig:
        players = [await connection(rig) for _ in range(MAX_CONNECTIONS)]
        one_more = await connection(rig)
        await one_more.ends()
        assert all(player.lost is None for player in players)
        players[0].leg.abortConnection()
        await players[0].goes()
        await turn(0.01)
        assert b" 200 " in await raw(rig, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")


@ensureDeferred
async def test_idle_connections_are_closed_but_streams_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "IDLE_SECONDS", 0.1)
    async with AdminRig(with_agent=False) as rig:
        subscriber = await rig.events()
        silent, slow = await connection(rig), await connection(rig)
        slow.send(b"GET /healthz HTTP/1.1\r\nHost: loc")
        await silent.ends()
        await slow.ends()
        seen = len(subscriber.all("figures"))
        await until(lambda: len(subscriber.all("figures")) > seen + 3)
        assert subscriber.player.lost is None


@ensureDeferred
async def test_endless_head_closes_the_connection() -> None:
    async with AdminRig(with_agent=False) as rig:
        player = await connection(rig)
        player.send(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * 200_000)
        await player.ends()
        assert b" 200 " not in player.received


@ensureDeferred
async def test_slow_verifier_times_out() -> None:
    from twisted.internet.defer import Deferred

    class Verifier:
        def verify(self, token: str, role: TokenRole, room: str) -> Deferred[object]:
            return Deferred()

    clock = Clock()
    access_control = AccessControl(clock, Verifier(), is_local=False, requires_token=True)  # type: ignore[arg-type]  # only the method that is used
    admitting = Deferred.fromCoroutine(access_control.admit("Bearer x", None))
    failures: list[object] = []
    admitting.addErrback(lambda failure: failures.append(failure.value))
    clock.advance(15.0)
    [refusal] = failures
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.code) == (503, "token_wait")


def test_full_access_never_expires_and_allows_every_room() -> None:
    assert FULL_ACCESS.expires_at == math.inf
    assert FULL_ACCESS.allows_room("whatever")
    access_control = AccessControl(Clock(), None, is_local=True, requires_token=False)
    assert access_control.is_still_good(FULL_ACCESS)


@pytest.mark.parametrize("value", [None, ""])
def test_change_without_the_field_is_refused(value: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        check_change(value)
    assert caught.value.status == 403


async def connection(rig: AdminRig) -> Player:
    from twisted.internet.endpoints import TCP4ClientEndpoint
    from twisted.internet.protocol import Factory

    player = Player()
    rig.clients.append(player)
    factory = Factory.forProtocol(lambda: player)  # type: ignore[arg-type]  # any callable does
    factory.noisy = False
    await TCP4ClientEndpoint(reactor, "127.0.0.1", rig.admin_number).connect(factory)
    return player


async def raw(rig: AdminRig, request: bytes) -> bytes:
    """Send a request and return the response."""
    player = await connection(rig)
    player.send(request)
    await player.receives(b"\r\n\r\n")
    return bytes(player.received)


@ensureDeferred
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("GET /healthz HTTP/1.0", 200),
        ("HEAD /healthz HTTP/1.0", 200),
        ("GET /readyz HTTP/1.0", 200),
        ("HEAD /readyz HTTP/1.0", 200),
        ("GET /readyz HTTP/1.0\r\nHost: evil.example", 403),
        ("GET /readyz HTTP/1.0\r\nHost: localhost\r\nHost: evil.example", 403),
        ("GET /metrics HTTP/1.0", 403),
        ("GET /nowhere HTTP/1.0", 403),
        ("POST /readyz HTTP/1.0", 405),
    ],
)
async def test_only_health_checks_in_http_10_may_omit_host(sent: str, expected: int) -> None:
    async with AdminRig(with_agent=False) as rig:
        player = Player()
        rig.clients.append(player)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", rig.admin_number)
        await connectProtocol(endpoint, player)
        player.send(sent.encode() + b"\r\n\r\n")
        await player.ends()
        assert int(player.received.split(b" ", 2)[1]) == expected
