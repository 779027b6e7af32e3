"""Proxies in front of a relay, and other servers at its address."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from pytest_twisted import ensureDeferred

from seance.doctor.findings import Hop, HopStatus
from tests.doctor.rig import (
    HEALTHY,
    StubServer,
    accept_upgrade,
    diagnose,
    finding,
    only_failure,
    reply,
)

PAGE = "<html><title>Log in to the Wi-Fi</title></html>"


def relay_behind(upgrade: bytes | None, health: bytes = HEALTHY) -> StubServer:
    """A relay with another response to upgrades."""
    return StubServer(lambda head: upgrade if b"Upgrade: websocket" in head else health)


@pytest.mark.parametrize(
    ("answer", "found", "advice"),
    [
        (reply(200, PAGE, kind="text/html"), "200 (text/html)", "log in with a browser"),
        (reply(302, "", "Location: https://login.example/"), "302", "log in with a browser"),
        (reply(511, PAGE, kind="text/html"), "511", "log in with a browser"),
        (
            reply(502, PAGE, "Server: nginx/1.22", kind="text/html"),
            "(nginx/1.22)",
            "does not reach the relay",
        ),
        (reply(404, "404 page not found"), '"404 page not found"', "host, port or base path"),
        (reply(200, "OK", kind="text/html"), "200 (text/html)", "host, port or base path"),
        (reply(400, "HTTP/1.1 is needed; this request is older."), "400", "proxy_http_version"),
        (reply(400, "This address speaks TLS: write wss:// in place of ws://."), "400", "wss://"),
    ],
)
@ensureDeferred
async def test_server_that_is_not_a_relay_is_reported(answer: bytes, found: str, advice: str) -> None:
    async with StubServer(lambda _: answer) as other:
        failed = only_failure(await diagnose(other.url, "r"), Hop.PROXY)
        assert "is not a relay" in failed.message
        assert found in failed.message
        assert advice in failed.advice


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "closed the connection instead of answering"),
    ],
)
@ensureDeferred
async def test_server_without_http_is_reported(answer: bytes, words: str) -> None:
    async with StubServer(lambda _: answer) as other:
        assert words in only_failure(await diagnose(other.url), Hop.PROXY).message


@ensureDeferred
async def test_server_that_never_answers_times_out() -> None:
    async with StubServer(lambda _: None) as silent:
        report = await diagnose(silent.url, timeout_seconds=0.2)
        assert "did not answer within 0.2 s" in only_failure(report, Hop.PROXY).message


@pytest.mark.parametrize("status", [426, 404, 200, 501])
@ensureDeferred
async def test_proxy_that_removes_the_upgrade_is_reported_before_a_room_is_requested(status: int) -> None:
    async with relay_behind(reply(status, "A WebSocket is needed", "Server: nginx")) as proxy:
        failed = only_failure(await diagnose(proxy.url, "r"), Hop.PROXY)
        assert "removes the upgrade" in failed.message
        assert "proxy_set_header Upgrade" in failed.advice
        assert not [head for head in proxy.heads if b"/status" in head]


@ensureDeferred
async def test_proxy_that_closes_upgrades_is_reported() -> None:
    async with relay_behind(b"") as proxy:
        failed = only_failure(await diagnose(proxy.url), Hop.PROXY)
        assert "WebSocket upgrades do not" in failed.message


@ensureDeferred
async def test_server_that_accepts_an_invalid_key_is_not_a_relay() -> None:
    async with StubServer(lambda head: accept_upgrade(head) if b"Upgrade" in head else HEALTHY) as eager:
        failed = only_failure(await diagnose(eager.url), Hop.PROXY)
        assert "accepts WebSockets without forwarding" in failed.message


@ensureDeferred
async def test_working_proxy_is_named() -> None:
    async with relay_behind(reply(400, "Exactly one key."), reply(200, "OK", "Server: nginx/1.22")) as proxy:
        report = await diagnose(proxy.url)
        assert report.exit_code == 0
        message = finding(report, Hop.PROXY).message
        assert message == "nginx/1.22 is in front of the relay and forwards WebSockets"


@ensureDeferred
async def test_stopping_relay_is_reported() -> None:
    async with relay_behind(reply(503, "Try again."), reply(503, "draining")) as relay:
        assert "is stopping" in only_failure(await diagnose(relay.url, "r"), Hop.RELAY).message


@pytest.mark.parametrize(
    ("ahead_seconds", "words"), [(-600, "behind the relay's"), (600, "ahead of the relay's")]
)
@ensureDeferred
async def test_wrong_clock_is_a_warning_with_the_direction(ahead_seconds: int, words: str) -> None:
    date = formatdate(time.time() - ahead_seconds, usegmt=True)
    async with relay_behind(reply(400, "A key."), reply(200, "OK", f"Date: {date}")) as relay:
        report = await diagnose(relay.url)
        warned = finding(report, Hop.RELAY)
        assert warned.status is HopStatus.WARNING
        assert words in warned.message
        assert "NTP" in warned.advice
        assert abs((report.clock_ahead_seconds or 0) - ahead_seconds) < 5


@ensureDeferred
async def test_invalid_date_is_ignored() -> None:
    async with relay_behind(reply(400, "A key."), reply(200, "OK", "Date: yesterday")) as relay:
        report = await diagnose(relay.url)
        assert (report.exit_code, report.clock_ahead_seconds) == (0, None)


@ensureDeferred
async def test_quoted_response_is_short_and_printable() -> None:
    async with StubServer(lambda _: reply(404, "\x1b[2J" + "x" * 9000 + "\nthe end")) as loud:
        failed = only_failure(await diagnose(loud.url), Hop.PROXY)
        assert "\x1b" not in failed.message
        assert len(failed.message) < 400


@ensureDeferred
async def test_endless_response_head_is_limited() -> None:
    head = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000
    async with StubServer(lambda _: head, closes=False) as endless:
        assert "does not speak HTTP" in only_failure(await diagnose(endless.url), Hop.PROXY).message
