"""Rooms and clients in the API, and disconnecting them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from seance.admin import routes
from seance.admin.responses import AdminResponse
from seance.admin.site import AdminRequest, AdminRoute
from seance.core.interfaces import Grant, TokenRole
from tests.admin.rig import AdminRig, ask_at
from tests.conftest import Watch
from tests.relay.rig import request, until

QUICK = {"backoff_base_seconds": 0.02, "backoff_cap_seconds": 0.02, "resume_backoff_cap_seconds": 0.02}


@ensureDeferred
async def test_running_relay_is_alive_and_ready() -> None:
    async with AdminRig() as rig:
        for path, body in (("/healthz", "ok\n"), ("/readyz", "ready\n")):
            answer = await rig.ask(path)
            assert (answer.status_code, answer.text) == (200, body)
            head = await rig.ask(path, "HEAD")
            assert (head.status_code, head.content) == (200, b"")


@ensureDeferred
async def test_draining_relay_is_alive_and_not_ready() -> None:
    async with AdminRig(relay={"drain_try_seconds": 0.05}) as rig:
        client, _local = await rig.joined()
        leaving = rig.relay.stopService()
        answer = await rig.ask("/readyz")
        assert (answer.status_code, answer.text) == (503, "draining\n")
        assert (await rig.ask("/healthz")).status_code == 200
        assert "seance_draining 1.0" in (await rig.ask("/metrics")).text
        client.leg.abortConnection()
        for agent in rig._agents:
            await agent.stopService()
        await leaving


@ensureDeferred
async def test_relay_that_does_not_listen_is_not_ready() -> None:
    async with AdminRig(with_agent=False) as rig:
        await rig.relay.stopService()
        rig.relay.front.is_draining = False
        assert (await rig.ask("/readyz")).status_code == 503
        rig.relay.startService()


@ensureDeferred
async def test_rooms_are_listed_by_name_and_page_by_page() -> None:
    async with AdminRig() as rig:
        for name in ("c", "a", "b"):
            await rig.attach(room=name)
        await until(lambda: rig.relay.rooms.room_count == 4)
        whole = await rig.json("/api/rooms")
        assert ([room["room"] for room in whole["rooms"]], whole["next"]) == (["a", "b", "c", "r"], None)
        first = await rig.json("/api/rooms?limit=3")
        assert ([room["room"] for room in first["rooms"]], first["next"]) == (["a", "b", "c"], "c")
        rest = await rig.json("/api/rooms?limit=3&after=c")
        assert ([room["room"] for room in rest["rooms"]], rest["next"]) == (["r"], None)


@ensureDeferred
async def test_room_has_its_clients_and_byte_counts() -> None:
    async with AdminRig() as rig:
        client, local = await rig.joined()
        client.send(b"12345")
        local.send(b"123")
        await local.receives(b"12345")
        await client.receives(b"123")
        room = await rig.json("/api/rooms/r")
        assert {name: room[name] for name in ("room", "state", "clients")} == {
            "room": "r",
            "state": "online",
            "clients": 1,
        }
        assert (room["received_bytes"], room["sent_bytes"]) == (5, 3)
        assert room["agent_address"] == "127.0.0.1"
        [one] = room["list"]
        assert (one["state"], one["received_bytes"], one["sent_bytes"]) == ("joined", 5, 3)
        assert one["address"] == "127.0.0.1"
        client.leg.abortConnection()
        await until(lambda: rig.relay.rooms.client_count == 0)
        later = await rig.json("/api/rooms/r")
        assert (later["list"], later["received_bytes"], later["sent_bytes"]) == ([], 5, 3)


@ensureDeferred
async def test_client_that_waits_for_its_101_is_pending() -> None:
    async with AdminRig() as rig:
        await rig.connect(request())
        await rig.local()
        [one] = (await rig.json("/api/rooms/r"))["list"]
        assert (one["state"], one["received_bytes"]) == ("pending", 0)


@ensureDeferred
async def test_list_of_clients_is_bounded() -> None:
    async with AdminRig() as rig:
        for _ in range(3):
            await rig.joined()
        room = await rig.json("/api/rooms/r?limit=2")
        assert (room["clients"], len(room["list"])) == (3, 2)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1&limit=2"])
@ensureDeferred
async def test_invalid_limit_is_refused(limit: str) -> None:
    async with AdminRig(with_agent=False) as rig:
        answer = await rig.ask(f"/api/rooms?limit={limit}")
        assert (answer.status_code, answer.json()["code"]) == (400, "admin_parameter")


def test_a_response_has_at_most_a_thousand_rooms() -> None:
    assert routes.MAX_ITEMS == 1000


@ensureDeferred
async def test_room_without_an_agent_is_not_found() -> None:
    async with AdminRig(with_agent=False) as rig:
        for method in ("GET", "DELETE"):
            answer = await rig.ask("/api/rooms/nobody", method)
            assert (answer.status_code, answer.json()["code"]) == (404, "admin_room")


@ensureDeferred
async def test_deleting_a_client_disconnects_only_this_client() -> None:
    async with AdminRig() as rig:
        client, local = await rig.joined()
        other, _ = await rig.joined()
        number = min(one["client"] for one in (await rig.json("/api/rooms/r"))["list"])
        answer = await rig.ask(f"/api/rooms/r/clients/{number}", "DELETE")
        assert (answer.status_code, answer.content) == (204, b"")
        await client.goes()
        await local.goes()
        assert other.lost is None
        gone = await rig.ask(f"/api/rooms/r/clients/{number}", "DELETE")
        assert (gone.status_code, gone.json()["code"]) == (404, "admin_client")


@ensureDeferred
async def test_deleting_a_pending_client_sends_a_response() -> None:
    async with AdminRig() as rig:
        client = await rig.connect(request())
        await rig.local()
        [one] = (await rig.json("/api/rooms/r"))["list"]
        await rig.ask(f"/api/rooms/r/clients/{one['client']}", "DELETE")
        await client.receives(b"An operator has disconnected this client.")
        assert client.received.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("number", ["0", "x", "1e3", "9999999999999999999", "%31"])
@ensureDeferred
async def test_invalid_client_number_is_not_found(number: str) -> None:
    async with AdminRig() as rig:
        answer = await rig.ask(f"/api/rooms/r/clients/{number}", "DELETE")
        assert answer.status_code == 404


@ensureDeferred
async def test_deleting_a_room_disconnects_all_and_its_agent_may_reconnect() -> None:
    async with AdminRig(agent=QUICK) as rig:
        client, _local = await rig.joined()
        link = rig.relay.rooms.link_of("r")
        answer = await rig.ask("/api/rooms/r", "DELETE")
        assert answer.status_code == 204
        await client.ends()
        await until(
            lambda: (
                rig.relay.rooms.link_of("r") not in (None, link)
                and rig.relay.rooms._table.find("r").is_attached
            )
        )
        assert (await rig.json("/api/rooms/r"))["state"] == "online"


@ensureDeferred
async def test_deleting_a_room_discards_a_resumable_session() -> None:
    async with AdminRig(agent={"backoff_base_seconds": 20.0, "resume_backoff_cap_seconds": 20.0}) as rig:
        client, _local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        link._below.carrier.transport.abortConnection()
        await until(lambda: link.is_resuming)
        room = await rig.json("/api/rooms/r")
        assert room["state"] == "resuming"
        assert (await rig.ask("/api/rooms/r", "DELETE")).status_code == 204
        await client.ends()
        assert rig.relay.rooms.link_of("r") is None


@ensureDeferred
async def test_registry_removes_an_empty_room() -> None:
    async with AdminRig(relay={"resume_seconds": 0.0}) as rig:
        await rig.joined()
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0 and not rig.admin._registry._rooms)
        assert (await rig.json("/api/rooms")) == {"rooms": [], "next": None}


@ensureDeferred
async def test_unknown_paths_are_not_found() -> None:
    async with AdminRig() as rig:
        for path in (
            "/",
            "/static/app.js",
            "/api",
            "/api/rooms/",
            "/api/rooms/r/clients",
            "/metrics/",
            "//healthz",
        ):
            answer = await rig.ask(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "admin_path"), path


@ensureDeferred
async def test_other_methods_are_refused_with_allow() -> None:
    async with AdminRig() as rig:
        answer = await rig.ask("/api/rooms/r", "PUT")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "HEAD, GET, DELETE")
        answer = await rig.ask("/healthz", "POST")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "HEAD, GET")


@ensureDeferred
async def test_static_pages_are_served() -> None:
    pages = {
        "/": ("text/html; charset=utf-8", b"<!doctype html>hello"),
        "/static/app.js": ("text/javascript", b"1"),
    }
    async with AdminRig(with_agent=False, routes=routes.page_routes(pages)) as rig:
        page = await rig.ask("/")
        assert (page.text, page.headers["Content-Type"]) == (
            "<!doctype html>hello",
            "text/html; charset=utf-8",
        )
        assert page.headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert (await rig.ask("/static/app.js")).content == b"1"


@ensureDeferred
async def test_unknown_parameter_is_refused() -> None:
    async with AdminRig(with_agent=False) as rig:
        for path in ("/healthz?token=x", "/api/rooms?room=r", "/metrics?name[]=x"):
            answer = await rig.ask(path)
            assert (answer.status_code, answer.json()["code"]) == (400, "admin_parameter")


@ensureDeferred
async def test_unexpected_error_is_a_500_without_details_and_is_logged(watch: Watch) -> None:
    def fail(request: AdminRequest) -> AdminResponse:
        msg = "secret"
        raise ValueError(msg)

    async with AdminRig(with_agent=False, routes=[AdminRoute("/broken", {"GET": fail})]) as rig:
        answer = await rig.ask("/broken")
        assert (answer.status_code, answer.json()["code"]) == (500, "admin_failed")
        assert "secret" not in answer.text
        watch.take(ValueError)
        assert (await rig.ask("/healthz")).status_code == 200


@ensureDeferred
async def test_request_that_ends_during_verification_is_cancelled() -> None:
    waiting: list[Deferred[Grant]] = []

    class Slow:
        def verify(self, token: str, role: TokenRole, room: str) -> Deferred[Grant]:
            waiting.append(Deferred())
            return waiting[-1]

        def is_still_good(self, grant: Grant) -> bool:
            return True

        def on_change(self, listener: Any) -> Any:
            return lambda: None

    async with AdminRig(relay={"admin_token": True}, verifier=Slow(), with_agent=False) as rig:
        with pytest.raises(httpx.ReadTimeout):
            await ask_at(f"{rig.url}/api/rooms", headers={"Authorization": "Bearer x"}, timeout=0.2)
        [deciding] = waiting
        await until(lambda: deciding.called)
