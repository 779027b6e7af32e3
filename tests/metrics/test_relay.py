"""The metrics of a relay under a known load."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from seance.agent.service import AgentState
from seance.core import events
from seance.metrics import relay as relay_module
from seance.metrics.catalogue import PROCESS, RELAY, Kind
from seance.metrics.exposition import MAX_LABEL_VALUES, OTHER
from seance.metrics.exposition import counts as counts_in
from seance.metrics.relay import RelayMetrics
from seance.yamux.windows import ReceiveWindow
from tests.admin.rig import AdminRig
from tests.conftest import Watch
from tests.metrics.pages import families, series, value
from tests.relay.rig import Player, request, until
from tests.tools import require

QUICK = {"backoff_base_seconds": 0.02, "resume_backoff_cap_seconds": 0.02}


async def page(rig: AdminRig) -> str:
    answer = await rig.ask("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return answer.text


async def exchange(client: Player, local: Player, up: int, down: int) -> None:
    client.send(b"u" * up)
    local.send(b"d" * down)
    await until(lambda: len(local.received) == up and len(client.received) == down)


def counts(text: str, name: str) -> dict[str, float]:
    """A counter with one label, without its zeros."""
    found = {labels: number for (one, labels), number in series(text).items() if one == name and number}
    return {labels[0][1]: number for labels, number in found.items()}


@ensureDeferred
async def test_relays_counts_are_exact() -> None:
    async with AdminRig(agent=QUICK) as rig:
        pairs = [await rig.joined() for _ in range(5)]
        for number, (client, local) in enumerate(pairs):
            await exchange(client, local, 1000 * number, 700 * number)
        text = await page(rig)
        for name, expected in {
            "seance_agents": 1,
            "seance_rooms": 1,
            "seance_resuming_links": 0,
            "seance_clients": 5,
            "seance_pending_upgrades": 0,
            "seance_links_attached_total": 1,
            "seance_streams_opened_total": 5,
            "seance_client_received_bytes_total": 10_000,
            "seance_client_sent_bytes_total": 7_000,
            "seance_upgrade_seconds_count": 5,
            "seance_first_byte_seconds_count": 4,
        }.items():
            assert value(text, name) == expected, name
        assert counts(text, "seance_streams_ended_total") == {}
        assert counts(text, "seance_refusals_total") == {}
        # Two disconnect, the operator disconnects one, a local server refuses one, one gives up early, and
        # three ask for an unknown room.
        pairs[0][0].leg.abortConnection()
        pairs[1][1].leg.abortConnection()
        numbers = [one["client"] for one in (await rig.json("/api/rooms/r"))["list"]]
        await rig.ask(f"/api/rooms/r/clients/{max(numbers)}", "DELETE")
        refused = await rig.connect(request())
        (await rig.local(5)).send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await refused.receives(b" 403 ")
        impatient = await rig.connect(request())
        deserted = await rig.local(6)
        impatient.leg.abortConnection()
        await deserted.ends()
        deserted.leg.loseConnection()
        for _ in range(3):
            await (await rig.connect(request("/client?room=nobody"))).receives(b"agent not connected")
        await until(lambda: rig.relay.rooms.client_count == 2)
        text = await page(rig)
        for name, expected in {
            "seance_clients": 2,
            "seance_pending_upgrades": 0,
            "seance_streams_opened_total": 7,
            "seance_client_received_bytes_total": 10_000,
            "seance_client_sent_bytes_total": 7_000,
            "seance_upgrade_seconds_count": 5,
        }.items():
            assert value(text, name) == expected, name
        assert counts(text, "seance_streams_ended_total") == {
            "near_gone": 1,
            "far_gone": 1,
            "sent_away": 1,
            "answered": 1,
            "left_early": 1,
        }
        assert counts(text, "seance_refusals_total") == {"room_not_found": 3}


@ensureDeferred
async def test_links_and_resumptions_are_counted_by_outcome() -> None:
    async with AdminRig(agent=QUICK) as rig:
        link: Any = rig.relay.rooms._table.find("r")
        for times in (1, 2):
            link._below.carrier.transport.abortConnection()
            await until(lambda times=times: counts_in(rig.admin._metrics._resumptions)["resumed"] == times)
            await until(lambda: rig.agent.status.state is AgentState.CONNECTED)
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        text = await page(rig)
        assert value(text, "seance_links_attached_total") == 1
        assert value(text, "seance_links_detached_total") == 2
        assert counts(text, "seance_resumptions_total") == {"resumed": 2}
        assert counts(text, "seance_links_lost_total") == {"left": 1}


@pytest.mark.parametrize("detected_by", ["relay", "agent"])
@ensureDeferred
async def test_link_whose_ends_disagree_is_counted_as_desync(detected_by: str, watch: Watch) -> None:
    async with AdminRig(agent=QUICK) as rig:
        link: Any = rig.relay.rooms._table.find("r")
        at_relay, at_agent = link._session.transport, rig.agent._relay_link._resumable
        wrong = at_agent if detected_by == "relay" else at_relay
        wrong.continuity.incoming.crc ^= 1
        link.measure()  # sends a ping, which is answered
        await until(lambda: counts_of(rig) != {})
        assert counts_of(rig) == {"desync": 1}
        assert "link.desync" in [event["event"] for event in watch.take()]


def counts_of(rig: AdminRig) -> dict[str, int]:
    return {reason: count for reason, count in counts_in(rig.admin._metrics._lost).items() if count}


@ensureDeferred
async def test_clients_that_wait_for_their_agent_are_counted() -> None:
    async with AdminRig() as rig:
        await rig.agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        waiting = await rig.connect(request())
        await until(lambda: len(rig.relay.rooms.wait_queue) == 1)
        text = await page(rig)
        assert (value(text, "seance_parked_clients"), value(text, "seance_clients_parked_total")) == (1, 1)
        await rig.attach()
        (await rig.local()).leg.abortConnection()
        await waiting.receives(b"\r\n\r\n")
        text = await page(rig)
        assert (value(text, "seance_parked_clients"), value(text, "seance_clients_parked_total")) == (0, 1)


@ensureDeferred
async def test_limit_without_an_answer_is_counted() -> None:
    async with AdminRig(relay={"unanswered_connections": 1}, with_agent=False) as rig:
        first, second = await rig.connect(b"G"), await rig.connect(b"G")
        await until(lambda: first.lost or first.has_ended)
        text = await page(rig)
        assert counts(text, "seance_limits_hit_total") == {"unanswered": 1}
        assert value(text, "seance_unanswered_connections") == 1
        assert value(text, "seance_connections") == 1
        assert second.lost is None


@ensureDeferred
async def test_exhausted_window_budget_is_counted() -> None:
    async with AdminRig(with_agent=False) as rig:
        windows = rig.relay.rooms.windows
        windows.total_bytes = 10
        assert windows.recharge(ReceiveWindow(), 10, 0.0)
        assert not windows.recharge(ReceiveWindow(), 1, 0.0)
        assert counts(await page(rig), "seance_limits_hit_total") == {"window_budget": 1}


@ensureDeferred
async def test_round_trip_is_measured_when_the_page_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MEASURE_SECONDS", 0.0)
    async with AdminRig() as rig:
        await page(rig)
        link = rig.relay.rooms._table.find("r")
        await until(lambda: link.round_trip_seconds is not None)
        text = await page(rig)
        median, worst = (
            value(text, "seance_carrier_round_trip_seconds", links=one) for one in ("median", "worst")
        )
        assert 0 < median <= worst < 10
        assert (await rig.json("/api/rooms/r"))["round_trip_seconds"] > 0


@ensureDeferred
async def test_round_trip_is_not_measured_without_a_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MEASURE_SECONDS", 0.0)
    slow = {"backoff_base_seconds": 60.0, "resume_backoff_cap_seconds": 60.0}
    async with AdminRig(agent=slow) as rig:
        link: Any = rig.relay.rooms._table.find("r")
        link._below.carrier.transport.abortConnection()
        await until(lambda: link.is_resuming)
        text = await page(rig)
        assert value(text, "seance_resuming_links") == 1
        assert not link._mux.session._session_state.keepalive.is_ping_in_flight


@ensureDeferred
async def test_page_has_exactly_the_metrics_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MEASURE_SECONDS", 0.0)
    async with AdminRig(relay={"metrics_rooms": True}) as rig:
        await rig.joined()
        await rig.connect(request("/client?room=nobody"))
        await page(rig)
        await until(lambda: rig.relay.rooms._table.find("r").round_trip_seconds is not None)
        found = families(await page(rig))
        listed = {metric.name.removesuffix("_total"): metric for metric in (*RELAY, *PROCESS)}
        assert found.keys() == listed.keys()
        for name, family in found.items():
            assert family.type == listed[name].kind.value, name
            assert all(set(listed[name].labels) <= sample.labels.keys() for sample in family.samples), name
        assert not [name for name in found if name.endswith("_created")]


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in RELAY:
        assert metric.name.startswith("seance_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        base = metric.name.removesuffix("_total")
        assert not metric.unit or base.endswith(f"_{metric.unit}"), metric.name
    assert len({metric.name for metric in RELAY}) == len(RELAY)


@pytest.mark.parametrize("by_room", [False, True])
@ensureDeferred
async def test_promtool_accepts_the_page(by_room: bool) -> None:
    require("promtool")
    async with AdminRig(relay={"metrics_rooms": by_room}) as rig:
        await exchange(*await rig.joined(), 10, 10)
        text = await page(rig)

        def check() -> subprocess.CompletedProcess[str]:
            command = ["promtool", "check", "metrics"]
            return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

        checked = await deferToThread(check)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_known_label_values_start_at_zero() -> None:
    text = RelayMetrics(Clock()).exposition.page().decode()
    for name, label, words in (
        ("seance_streams_ended_total", "reason", events.CLIENT_REASONS),
        ("seance_links_lost_total", "reason", events.LINK_REASONS),
        ("seance_resumptions_total", "outcome", events.RESUMPTIONS),
        ("seance_limits_hit_total", "limit", events.LIMITS),
    ):
        assert [value(text, name, **{label: word}) for word in words] == [0.0] * len(words)


@dataclass(eq=False)
class FakeClient:
    """A client as an observer sees it; ``test_label_values`` compares it with the real classes."""

    room: str = ""
    received_bytes: int = 3
    sent_bytes: int = 5


def report_events(metrics: RelayMetrics, room: str) -> None:
    """Report each event of a room once."""
    client = FakeClient(room)
    for event in (
        events.LinkChanged(room, events.LinkChange.ATTACHED),
        events.ClientWaiting(room),
        events.ClientBegan(client),
        events.ClientJoined(client, 0.1),
        events.ClientAnswered(client, 0.1),
        events.ClientEnded(client, "ended", 1.0),
        events.Refused("room_not_found"),
        events.LinkChanged(room, events.LinkChange.LOST, "left"),
    ):
        metrics.notify(event)


def test_ten_thousand_room_names_leave_the_number_of_series_unchanged() -> None:
    metrics = RelayMetrics(Clock())
    report_events(metrics, "r")
    before = series(metrics.exposition.page().decode()).keys()
    for number in range(10_000):
        report_events(metrics, f"room-{number}")
    text = metrics.exposition.page().decode()
    assert series(text).keys() == before
    assert "room-" not in text
    assert value(text, "seance_streams_ended_total", reason="ended") == 10_001
    assert value(text, "seance_client_sent_bytes_total") == 50_005


def test_codes_of_refusals_are_limited() -> None:
    metrics = RelayMetrics(Clock())
    for number in range(MAX_LABEL_VALUES + 100):
        metrics.notify(events.Refused(f"code-{number}"))
    metrics.notify(events.Refused("code-0"))
    found = counts(metrics.exposition.page().decode(), "seance_refusals_total")
    assert len(found) == MAX_LABEL_VALUES + 1
    assert (found["code-0"], found[OTHER]) == (2, 100)


def test_number_of_rooms_with_series_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "MAX_ROOMS", 10)
    metrics = RelayMetrics(Clock(), by_room=True)
    for number in range(30):
        report_events(metrics, f"room-{number}")
        report_events(metrics, "busy")
    text = metrics.exposition.page().decode()
    rooms = {dict(labels)["room"] for name, labels in series(text) if name == "seance_room_clients"}
    assert rooms == {"busy", *(f"room-{number}" for number in range(21, 30))}
    assert value(text, "seance_room_sent_bytes_total", room="busy") == 150


@ensureDeferred
async def test_rooms_have_series_if_enabled() -> None:
    async with AdminRig(relay={"metrics_rooms": True}) as rig:
        await exchange(*await rig.joined(), 11, 22)
        text = await page(rig)
        assert value(text, "seance_room_clients", room="r") == 1
        assert value(text, "seance_room_received_bytes_total", room="r") == 11
        assert value(text, "seance_room_sent_bytes_total", room="r") == 22


@ensureDeferred
async def test_traffic_causes_no_events() -> None:
    """The byte counts of the splice are read when the page is requested."""
    async with AdminRig() as rig:
        client, local = await rig.joined()
        await exchange(client, local, 10, 10)
        received: list[events.Event] = []
        observer: Any = rig.relay.context.observer
        notify = observer.notify
        observer.notify = lambda event: (received.append(event), notify(event))
        client.received = local.received = b""
        await exchange(client, local, 3_000_000, 3_000_000)
        assert received == []
        client.leg.abortConnection()
        await until(lambda: received)
        assert [type(event) for event in received] == [events.ClientEnded]
        assert value(await page(rig), "seance_client_received_bytes_total") == 3_000_010
