"""The event stream."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from seance.admin import event_stream
from seance.auth.service import AuthService
from seance.core.interfaces import LinkChange
from tests.admin.rig import AdminRig
from tests.admin.test_access_control import admin_token, rig_with_tokens
from tests.auth.tokens import token
from tests.docs.pages import DOCS, table
from tests.relay.rig import turn, until

QUICK = {"backoff_base_seconds": 0.02, "resume_backoff_cap_seconds": 0.02}


@ensureDeferred
async def test_figures_and_rooms_are_sent_immediately() -> None:
    async with AdminRig() as rig:

        def read() -> tuple[str, list[str]]:
            client = httpx.Client(timeout=30, trust_env=False)
            with client, client.stream("GET", f"{rig.url}/api/events") as answer:
                names: list[str] = []
                for line in answer.iter_lines():
                    names += [line] if line.startswith("event: ") else []
                    if len(names) == 2:
                        break
                return answer.headers["content-type"], names

        kind, names = await deferToThread(read)
        assert (kind, names) == ("text/event-stream", ["event: figures", "event: rooms"])
        await until(lambda: rig.admin._events.subscriber_count == 0)


@ensureDeferred
async def test_states_of_a_room_are_events() -> None:
    async with AdminRig(relay={"known_room_seconds": 0.1}, agent=QUICK, with_agent=False) as rig:
        events = await rig.events()
        agent = await rig.attach()
        await events.until("room", room="r", state="online", reason="attached")
        link = rig.relay.rooms._table.find("r")
        link._below.carrier.transport.abortConnection()  # type: ignore[union-attr]  # it lasts
        await events.until("room", room="r", state="resuming")
        await events.until("room", room="r", state="online", reason="resumed")
        await agent.stopService()
        await events.until("room", room="r", state="away", reason="left")
        await events.until("room", room="r", state="gone")


@ensureDeferred
async def test_client_events_have_bytes_and_reason() -> None:
    async with AdminRig() as rig:
        events = await rig.events()
        client, local = await rig.joined()
        joined = await events.until("client", state="in")
        assert joined["room"] == "r"
        assert joined["upgrade_seconds"] >= 0
        client.send(b"12345")
        await local.receives(b"12345")
        client.leg.abortConnection()
        left = await events.until("client", state="out", client=joined["client"])
        assert (left["received_bytes"], left["sent_bytes"], left["reason"]) == (5, 0, "near_gone")


@ensureDeferred
async def test_refused_client_is_no_event() -> None:
    async with AdminRig() as rig:
        events = await rig.events()
        client = await rig.connect(b"GET /client?room=r HTTP/1.1\r\n\r\n")
        await client.ends()
        await until(lambda: sum(events.all("figures")[-1]["refusals"].values()) == 1)
        assert events.all("client") == []


@ensureDeferred
async def test_reached_limit_is_an_event() -> None:
    async with AdminRig(relay={"unanswered_connections": 1}) as rig:
        events = await rig.events()
        for _ in range(2):
            await rig.connect(b"G")
        await events.until("limit", limit="unanswered", count=1)


@ensureDeferred
async def test_repeated_limit_events_are_combined() -> None:
    async with AdminRig(with_agent=False) as rig:
        rig.admin._events.limit_hit("unanswered")
        events = await rig.events()
        for _ in range(1000):
            rig.admin._events.limit_hit("unanswered")
        await events.until("limit", limit="unanswered", count=999)
        assert [one["count"] for one in events.all("limit")] == [1, 999]
        seen = len(events.all("figures"))
        await until(lambda: len(events.all("figures")) > seen + 1)
        rig.admin._events.limit_hit("unanswered")
        await until(lambda: len(events.all("limit")) == 3)
        assert [one["count"] for one in events.all("limit")] == [1, 999, 1]


@ensureDeferred
async def test_figures_and_rooms_are_sent_repeatedly() -> None:
    async with AdminRig() as rig:
        events = await rig.events()
        await until(lambda: len(events.all("figures")) >= 2 and len(events.all("rooms")) >= 2)
        figures = events.all("figures")[-1]
        assert (figures["rooms"], figures["agents"], figures["clients"]) == (1, 1, 0)
        [room] = events.all("rooms")[-1]["rooms"]
        assert room["room"] == "r"


@ensureDeferred
async def test_token_for_some_rooms_gets_only_their_events(service: AuthService) -> None:
    async with rig_with_tokens(service) as rig:
        await rig.attach(room="team-1")
        events = await rig.events(f"Authorization: Bearer {admin_token(room='team-*')}")
        await rig.joined_with(token(room="r"))
        await rig.joined_with(token(room="team-1"), room="team-1")
        await events.until("client", room="team-1", state="in")
        await until(lambda: len(events.all("rooms")) > 1)
        assert {one["room"] for one in events.all("client")} == {"team-1"}
        assert [room["room"] for room in events.all("rooms")[-1]["rooms"]] == ["team-1"]
        assert events.all("figures") == [], "figures cover all rooms"


@ensureDeferred
async def test_number_of_subscribers_is_limited() -> None:
    async with AdminRig(with_agent=False) as rig:
        subscribers = [await rig.events() for _ in range(event_stream.MAX_SUBSCRIBERS)]
        refused = await rig.ask("/api/events")
        assert (refused.status_code, refused.json()["code"]) == (429, "admin_watchers")
        assert refused.headers["Retry-After"] == "5"
        subscribers[0].player.leg.abortConnection()
        await until(lambda: rig.admin._events.subscriber_count < event_stream.MAX_SUBSCRIBERS)
        assert (await rig.events()).status == 200


@ensureDeferred
async def test_subscriber_that_does_not_read_is_disconnected() -> None:
    async with AdminRig(with_agent=False) as rig:
        deaf, other = await rig.events(), await rig.events()
        deaf.player.leg.pauseProducing()
        events = rig.admin._events
        for _ in range(2_000):
            events.link_changed("x" * 20_000, LinkChange.ATTACHED)
            await turn()
            if events.subscriber_count == 1:
                break
        assert events.subscriber_count == 1
        await other.until("room")
        deaf.player.leg.resumeProducing()
        await deaf.player.goes()


@ensureDeferred
async def test_streams_end_when_the_port_closes() -> None:
    async with AdminRig() as rig:
        events = await rig.events()
        for agent in rig._agents:
            await agent.stopService()
        await rig.admin.stopService()
        await until(lambda: events.player.has_ended or events.player.lost)
        assert rig.admin._events.subscriber_count == 0


@ensureDeferred
async def test_rooms_gone_before_the_first_subscriber_are_not_reported() -> None:
    async with AdminRig(relay={"known_room_seconds": 0.05}, with_agent=False) as rig:
        agent = await rig.attach()
        await agent.stopService()
        await until(lambda: not rig.relay.rooms.is_known("r"))
        events = await rig.events()
        await until(lambda: len(events.all("figures")) > 1)
        assert events.all("room") == []


def test_number_of_away_rooms_is_limited() -> None:
    unused: Any = None
    events = event_stream.EventStream(unused, unused, dict, lambda grant: True)
    for number in range(event_stream.MAX_AWAY_ROOMS + 10):
        events.link_changed(f"r{number}", LinkChange.LOST, "left")
    assert len(events._away) == event_stream.MAX_AWAY_ROOMS
    events.link_changed("r100", LinkChange.ATTACHED)
    assert len(events._away) == event_stream.MAX_AWAY_ROOMS - 1


@pytest.mark.parametrize("method", ["HEAD"])
@ensureDeferred
async def test_who_asks_for_the_head_does_not_watch(method: str) -> None:
    async with AdminRig(with_agent=False) as rig:
        answer = await rig.ask("/api/events", method)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert rig.admin._events.subscriber_count == 0


def test_every_event_is_on_the_page() -> None:
    rows = table(DOCS / "admin-port.md", "Events")
    assert tuple(row[0].strip("`") for row in rows) == event_stream.EVENTS
