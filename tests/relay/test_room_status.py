"""The status of a room for web pages: one answer or a stream of events, and access to it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from seance.core.observers import NullObserver
from seance.core.settings import RelaySettings
from seance.net import ProtocolSwitch
from seance.relay.context import RelayContext
from seance.relay.edge.room_status import (
    HEARTBEAT_SECONDS,
    RETRY_MILLISECONDS,
    Presence,
)
from seance.relay.rooms.directory import RoomState, RoomStatus
from seance.relay.rooms.local_directory import LocalRoomDirectory
from tests.relay.rig import Player, Rig, request, turn, until
from tests.relay.test_active_grants import AGENT, CLIENT, JWT, TokenRig, Verifier, attach_raw, bearer
from tests.relay.test_resumption import raw_of


def plain(target: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: relay.example", *fields, "", ""]).encode()


def watching(target: str = "/c/r/status", *fields: str) -> bytes:
    return plain(target, "Accept: text/event-stream", *fields)


async def answer(rig: Rig, sent: bytes) -> tuple[int, dict[str, str], str]:
    player = await rig.connect(sent)
    await player.ends()
    return parsed(player)


def parsed(player: Player) -> tuple[int, dict[str, str], str]:
    head, _, body = player.received.decode().partition("\r\n\r\n")
    first, *fields = head.split("\r\n")
    return int(first.split(" ")[1]), dict(field.split(": ", 1) for field in fields), body


async def state_of(rig: Rig, target: str = "/c/r/status") -> Any:
    status, fields, body = await answer(rig, plain(target))
    assert (status, fields["Content-Type"]) == (200, "application/json")
    return json.loads(body)


def events(player: Player) -> list[dict[str, Any]]:
    lines = player.received.decode().partition("\r\n\r\n")[2].split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


# One answer


@ensureDeferred
async def test_status_follows_the_agent() -> None:
    async with Rig() as rig:
        assert await state_of(rig, "/c/nobody/status") == {
            "room": "nobody",
            "state": "unknown",
            "since": None,
        }
        online = await state_of(rig)
        assert (online["room"], online["state"]) == ("r", "online")
        assert 0 <= online["since"] < 60
        await turn(0.2)
        assert (await state_of(rig))["since"] >= 0.2
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        away = await state_of(rig)
        assert away["state"] == "away"
        assert away["since"] < 0.2


@ensureDeferred
@pytest.mark.parametrize(
    "target", ["/c/r/status", "/c/r/status?x=1", "/client/status?room=r", "/client?room=r/status"]
)
async def test_the_status_is_at_every_form_of_the_url(target: str) -> None:
    async with Rig() as rig:
        assert (await state_of(rig, target))["state"] == "online"


@ensureDeferred
async def test_an_upgrade_at_the_status_path_reaches_the_local_server() -> None:
    async with Rig() as rig:
        await rig.connect(request("/c/r/status", "Accept: text/event-stream"))
        assert (await rig.local()).received.startswith(b"GET /status HTTP/1.1\r\n")


@ensureDeferred
@pytest.mark.parametrize(
    "target", ["/c/r", "/c/r/", "/c/r/status/", "/c/r/statuses", "/c/r/a/status", "/status"]
)
async def test_the_status_is_at_no_other_path(target: str) -> None:
    async with Rig() as rig:
        assert (await answer(rig, plain(target)))[0] in (404, 426)


@ensureDeferred
async def test_head_gets_no_body_and_other_methods_are_refused() -> None:
    async with Rig() as rig:
        status, fields, body = await answer(rig, plain("/c/r/status", method="HEAD"))
        assert (status, body) == (200, "")
        assert int(fields["Content-Length"]) > 0
        status, fields, _ = await answer(rig, plain("/c/r/status", method="PUT"))
        assert (status, fields["Allow"]) == (405, "GET, HEAD")
        assert (await answer(rig, plain("/c/r/status", "Accept: text/event-stream", method="HEAD")))[2] == ""


@ensureDeferred
async def test_status_requests_have_a_rate_limit() -> None:
    async with Rig(relay={"upgrades_per_room": 1}) as rig:
        seen = [(await answer(rig, plain("/c/other/status")))[0] for _ in range(11)]
        assert seen == [200] * 10 + [429]
        assert (await answer(rig, watching("/c/other/status")))[0] == 429


# Other origins


@ensureDeferred
async def test_any_page_may_read_the_status_if_any_page_may_connect() -> None:
    async with Rig() as rig:
        for target in ("/c/r/status", "/c/r/status?room=x"):
            _, fields, _ = await answer(rig, plain(target, "Origin: https://app.example"))
            assert fields["Access-Control-Allow-Origin"] == "*"


@ensureDeferred
async def test_only_listed_origins_may_read_the_status() -> None:
    async with Rig(relay={"origins": ("https://app.example", "https://two.example")}) as rig:
        _, fields, _ = await answer(rig, plain("/c/r/status", "Origin: https://two.example"))
        assert (fields["Access-Control-Allow-Origin"], fields["Vary"]) == ("https://two.example", "Origin")
        status, fields, body = await answer(rig, plain("/c/r/status", "Origin: https://evil.example"))
        assert status == 403
        assert "online" not in body
        assert "Access-Control-Allow-Origin" not in fields
        _, fields, _ = await answer(rig, plain("/c/r/status"))
        assert "Access-Control-Allow-Origin" not in fields


@ensureDeferred
async def test_a_preflight_request_for_a_token_is_allowed() -> None:
    async with Rig() as rig:
        preflight = plain(
            "/c/r/status",
            "Origin: https://app.example",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Headers: authorization",
            method="OPTIONS",
        )
        status, fields, body = await answer(rig, preflight)
        assert (status, body) == (200, "")
        assert fields["Access-Control-Allow-Origin"] == "*"
        assert fields["Access-Control-Allow-Headers"] == "Authorization"
        assert "Access-Control-Allow-Credentials" not in fields


# Tokens


@ensureDeferred
async def test_the_status_needs_the_token_of_a_client() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": CLIENT})
    async with TokenRig(verifier) as rig:
        await attach_raw(rig)
        for fields in ((), (bearer(JWT + "x"),)):
            for accept in ("*/*", "text/event-stream"):
                status, headers, body = await answer(rig, plain("/c/r/status", f"Accept: {accept}", *fields))
                upgrade = await answer(rig, request("/c/r", *fields))
                assert (status, body) == (upgrade[0], upgrade[2])
                assert status == 401
                assert headers["Access-Control-Allow-Origin"] == "*"
        assert "online" in (await answer(rig, plain("/c/r/status", bearer(JWT + "c"))))[2]
        assert "online" in (await answer(rig, plain(f"/c/r/status?access_token={JWT}c")))[2]


@ensureDeferred
async def test_a_page_of_an_origin_that_the_token_does_not_allow_is_refused() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": replace(CLIENT, origins=("https://app.example",))})
    async with TokenRig(verifier) as rig:
        status, _, body = await answer(
            rig, plain("/c/r/status", bearer(JWT + "c"), "Origin: https://evil.example")
        )
        assert status == 403
        assert "unknown" not in body


@ensureDeferred
async def test_a_watcher_ends_with_its_token_and_uses_no_client_slot() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": replace(CLIENT, max_clients=1)})
    async with TokenRig(verifier) as rig:
        await attach_raw(rig)
        watcher = await rig.connect(watching("/c/r/status", bearer(JWT + "c")))
        await watcher.receives(b"online")
        await rig.connect(request("/c/r", bearer(JWT + "c")))
        await until(lambda: rig.relay.rooms.client_count == 1)
        assert rig.relay.context.grants is not None
        assert len(rig.relay.context.grants) == 3
        watcher.leg.abortConnection()
        await until(lambda: len(rig.relay.context.grants or ()) == 2)
        watcher = await rig.connect(watching("/c/r/status", bearer(JWT + "c")))
        await watcher.receives(b"online")
        del verifier.grants[JWT + "c"]
        verifier.listeners[0]()
        await watcher.ends()
        assert len(rig.relay.context.grants) == 1
        assert rig.relay.front.presence.watcher_count == 0


# Streams of events


@ensureDeferred
async def test_a_watcher_gets_every_change() -> None:
    async with Rig() as rig:
        watcher = await rig.connect(watching())
        await watcher.receives(b"online")
        _, fields, body = parsed(watcher)
        assert fields["Content-Type"] == "text/event-stream; charset=utf-8"
        assert fields["Access-Control-Allow-Origin"] == "*"
        assert "Content-Length" not in fields
        milliseconds = int(body.split("\n")[0].removeprefix("retry: "))
        assert RETRY_MILLISECONDS[0] <= milliseconds <= RETRY_MILLISECONDS[1]
        await rig.agent.stopService()
        await watcher.receives(b"away")
        await rig.attach()
        await until(lambda: len(events(watcher)) == 3)
        assert [event["state"] for event in events(watcher)] == ["online", "away", "online"]
        assert {event["room"] for event in events(watcher)} == {"r"}


@ensureDeferred
async def test_a_watcher_gets_resuming_while_a_new_client_waits() -> None:
    slow = {"backoff_base_seconds": 0.5, "resume_backoff_cap_seconds": 0.5}
    async with Rig(agent=slow) as rig:
        watcher = await rig.connect(watching())
        await watcher.receives(b"online")
        link = rig.relay.rooms._table.find("r")
        raw_of(link).abortConnection()
        await watcher.receives(b"resuming")
        assert link.is_resuming
        await rig.connect(request())
        await until(lambda: len(rig.relay.rooms.wait_queue) == 1)
        assert not rig.locals
        await rig.local()
        assert [event["state"] for event in events(watcher)] == ["online", "resuming", "online"]


@ensureDeferred
async def test_a_watcher_gets_events_of_its_room_only() -> None:
    async with Rig() as rig:
        watcher = await rig.connect(watching("/c/other/status"))
        await watcher.receives(b"unknown")
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        await turn(0.02)
        assert len(events(watcher)) == 1


@ensureDeferred
async def test_watchers_are_limited_per_room_and_in_total_and_slots_are_freed() -> None:
    async with Rig(relay={"watchers_per_room": 1, "watchers": 2}) as rig:
        first = await rig.connect(watching())
        await first.receives(b"online")
        assert (await answer(rig, watching()))[0] == 429
        second = await rig.connect(watching("/c/other/status"))
        await second.receives(b"unknown")
        status, fields, _ = await answer(rig, watching("/c/third/status"))
        assert (status, fields["Access-Control-Allow-Origin"]) == (429, "*")
        first.leg.abortConnection()
        second.leg.loseWriteConnection()
        await until(lambda: rig.relay.front.presence.watcher_count == 0)
        again = await rig.connect(watching())
        await again.receives(b"online")


@ensureDeferred
async def test_a_watcher_that_sends_data_is_cut() -> None:
    async with Rig() as rig:
        watcher = await rig.connect(watching())
        await watcher.receives(b"online")
        watcher.send(b"GET /c/r/status HTTP/1.1\r\n")
        await watcher.goes()
        assert rig.relay.front.presence.watcher_count == 0


@ensureDeferred
async def test_a_stopping_relay_ends_its_watchers_and_refuses_new_ones() -> None:
    async with Rig(with_agent=False) as rig:
        watcher = await rig.connect(watching())
        await watcher.receives(b"unknown")
        rig.relay.front.presence.close()
        await watcher.ends()
        assert (await answer(rig, watching()))[0] == 503
        rig.relay.front.presence.open()
        again = await rig.connect(watching())
        await again.receives(b"unknown")
        await rig.relay.stopService()
        await again.ends()


# On a clock


class Seat:
    """A link, as presence sees it."""

    is_attached = True
    is_resuming = False


class Wire:
    """A transport that records what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.producer: Any = None
        self.is_cut = False

    def write(self, data: bytes) -> None:
        self.written += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def abortConnection(self) -> None:
        self.is_cut = True


class Stage:
    """One watcher of a room, on a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        settings = RelaySettings(known_room_seconds=100.0)
        context = RelayContext(self.clock, settings, NullObserver(), None, None, None)
        directory = LocalRoomDirectory(context, max_waiting=1)
        self.rooms: Any = directory._table
        self.presence = Presence(context, directory, random=lambda least, most: least)
        self.seat = Seat()
        self.wire = Wire()
        self.switch = ProtocolSwitch()
        self.switch.transport = self.wire  # type: ignore[assignment]  # what a watcher asks of one

    def watch(self) -> None:
        self.presence._watch("r", self.switch, (), None)

    def told(self) -> list[str]:
        return [
            json.loads(line[6:])["state"]
            for line in self.wire.written.decode().split("\n")
            if line[:5] == "data:"
        ]


def test_a_lost_carrier_is_reported_as_resuming() -> None:
    stage = Stage()
    stage.rooms.claim("r", stage.seat, now=0.0)
    stage.watch()
    stage.clock.advance(5.0)
    stage.seat.is_attached, stage.seat.is_resuming = False, True
    stage.rooms.note_change("r", stage.seat, 5.0)
    stage.rooms.note_change("r", stage.seat, 5.0)
    assert stage.presence.status("r") == RoomStatus("r", RoomState.RESUMING, 0.0)
    stage.clock.advance(2.25)
    assert stage.presence.status("r").to_json() == b'{"room": "r", "state": "resuming", "since": 2.2}'
    stage.seat.is_attached, stage.seat.is_resuming = True, False
    stage.rooms.note_change("r", stage.seat, 7.25)
    assert stage.told() == ["online", "resuming", "online"]


def test_the_heartbeat_is_a_comment_or_a_change_by_time() -> None:
    stage = Stage()
    stage.rooms.claim("r", stage.seat, now=0.0)
    stage.rooms.release("r", stage.seat, now=0.0)
    stage.watch()
    stage.wire.written = b""
    stage.clock.advance(HEARTBEAT_SECONDS)
    assert stage.wire.written == b":\n\n"
    stage.clock.pump([HEARTBEAT_SECONDS] * 6)
    assert stage.told() == ["unknown"]


def test_a_watcher_that_does_not_read_is_cut() -> None:
    stage = Stage()
    stage.watch()
    stage.wire.producer.pauseProducing()
    assert stage.wire.is_cut
    stage.switch.connectionLost()
    assert stage.presence.watcher_count == 0
    assert stage.clock.getDelayedCalls() == []
    assert stage.presence._watchers == {}
