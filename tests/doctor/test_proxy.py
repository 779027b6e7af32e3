"""What stands before a relay, or in its place: each is told from a relay, and from each other."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from pytest_twisted import ensureDeferred

from seance.doctor.findings import Hop, Mark
from tests.doctor.rig import HEALTHY, Stand, diagnose, finding, nothing_but, opening, plain

PAGE = "<html><title>Log in to the Wi-Fi</title></html>"


def relay_behind(upgrade: bytes | None, health: bytes = HEALTHY) -> Stand:
    """A relay behind something that answers upgrades in its own way."""
    return Stand(lambda head: upgrade if b"Upgrade: websocket" in head else health)


@pytest.mark.parametrize(
    ("answer", "found", "advice"),
    [
        (plain(200, PAGE, kind="text/html"), "200 (text/html)", "log in with a browser"),
        (plain(302, "", "Location: https://login.example/"), "302", "log in with a browser"),
        (plain(511, PAGE, kind="text/html"), "511", "log in with a browser"),
        (
            plain(502, PAGE, "Server: nginx/1.22", kind="text/html"),
            "(nginx/1.22)",
            "does not reach the relay",
        ),
        (plain(404, "404 page not found"), '"404 page not found"', "host, port or base path"),
        (plain(200, "OK", kind="text/html"), "200 (text/html)", "host, port or base path"),
        (plain(400, "HTTP/1.1 is needed; this request uses another version."), "400", "proxy_http_version"),
        (plain(400, "This address speaks TLS: write wss:// in place of ws://."), "400", "wss://"),
    ],
)
@ensureDeferred
async def test_an_answer_that_is_no_relays_is_named(answer: bytes, found: str, advice: str) -> None:
    async with Stand(lambda _: answer) as stranger:
        failed = nothing_but(await diagnose(stranger.url, "r"), Hop.PROXY)
        assert "is no relay" in failed.sentence
        assert found in failed.sentence
        assert advice in failed.advice


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "closed the connection instead of answering"),
    ],
)
@ensureDeferred
async def test_a_server_of_another_kind_is_named(answer: bytes, words: str) -> None:
    async with Stand(lambda _: answer) as other:
        assert words in nothing_but(await diagnose(other.url), Hop.PROXY).sentence


@ensureDeferred
async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async with Stand(lambda _: None) as silent:
        report = await diagnose(silent.url, timeout_seconds=0.2)
        assert "did not answer within 0.2 s" in nothing_but(report, Hop.PROXY).sentence


@pytest.mark.parametrize("status", [426, 404, 200, 501])
@ensureDeferred
async def test_a_proxy_that_takes_the_upgrade_away_is_named_before_any_room_is_asked_for(status: int) -> None:
    async with relay_behind(plain(status, "A WebSocket is needed", "Server: nginx")) as proxy:
        failed = nothing_but(await diagnose(proxy.url, "r"), Hop.PROXY)
        assert "takes the upgrade out" in failed.sentence
        assert "proxy_set_header Upgrade" in failed.advice
        assert not [head for head in proxy.heads if b"/status" in head]


@ensureDeferred
async def test_a_proxy_that_cuts_upgrades_is_named() -> None:
    async with relay_behind(b"") as proxy:
        failed = nothing_but(await diagnose(proxy.url), Hop.PROXY)
        assert "WebSocket upgrades do not" in failed.sentence


@ensureDeferred
async def test_a_server_that_opens_a_websocket_for_a_key_that_is_none_is_no_relay() -> None:
    async with Stand(lambda head: opening(head) if b"Upgrade" in head else HEALTHY) as eager:
        failed = nothing_but(await diagnose(eager.url), Hop.PROXY)
        assert "opens WebSockets by itself" in failed.sentence


@ensureDeferred
async def test_a_proxy_that_does_its_work_is_mentioned() -> None:
    async with relay_behind(plain(400, "Exactly one key."), plain(200, "OK", "Server: nginx/1.22")) as proxy:
        report = await diagnose(proxy.url)
        assert report.exit_code == 0
        assert finding(report, Hop.PROXY).sentence == "nginx/1.22 is in front, and lets WebSockets through"


@ensureDeferred
async def test_a_relay_that_is_stopping_is_named() -> None:
    async with relay_behind(plain(503, "Try again."), plain(503, "draining")) as relay:
        assert "is stopping" in nothing_but(await diagnose(relay.url, "r"), Hop.RELAY).sentence


@pytest.mark.parametrize(
    ("ahead_seconds", "words"), [(-600, "behind the relay's"), (600, "ahead of the relay's")]
)
@ensureDeferred
async def test_a_clock_that_is_wrong_is_a_warning_that_says_which_way(ahead_seconds: int, words: str) -> None:
    date = formatdate(time.time() - ahead_seconds, usegmt=True)
    async with relay_behind(plain(400, "A key."), plain(200, "OK", f"Date: {date}")) as relay:
        report = await diagnose(relay.url)
        warned = finding(report, Hop.RELAY)
        assert warned.mark is Mark.WARNING
        assert words in warned.sentence
        assert "NTP" in warned.advice
        assert abs((report.clock_ahead_seconds or 0) - ahead_seconds) < 5


@ensureDeferred
async def test_a_date_that_is_none_is_not_looked_at() -> None:
    async with relay_behind(plain(400, "A key."), plain(200, "OK", "Date: yesterday")) as relay:
        report = await diagnose(relay.url)
        assert (report.exit_code, report.clock_ahead_seconds) == (0, None)


@ensureDeferred
async def test_what_a_stranger_says_is_shown_short_and_without_what_moves_a_terminal() -> None:
    async with Stand(lambda _: plain(404, "\x1b[2J" + "x" * 9000 + "\nthe end")) as loud:
        failed = nothing_but(await diagnose(loud.url), Hop.PROXY)
        assert "\x1b" not in failed.sentence
        assert len(failed.sentence) < 400


@ensureDeferred
async def test_a_head_that_never_ends_is_not_collected() -> None:
    async with Stand(lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000, closes=False) as endless:
        assert "does not speak HTTP" in nothing_but(await diagnose(endless.url), Hop.PROXY).sentence
