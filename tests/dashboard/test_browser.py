"""The dashboard in a real browser, with a real relay, agents and clients."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from seance.admin.event_stream import MAX_ROOMS, MAX_SUBSCRIBERS
from tests.attacks.parties import RawAgent
from tests.auth.tokens import claims, secret_key, sign, write_jwks
from tests.dashboard.stage import Page, Stage, admin_url, running_stage
from tests.e2e.wire import Wire
from tests.pad.browser import Browser, running_browser
from tests.processes import free_port, running_relay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

POLICY = "default-src 'self'"

Opens = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def stage() -> Iterator[Stage]:
    with running_stage() as stage:
        yield stage


@pytest.fixture
def opens(browser: Browser) -> Iterator[Opens]:
    """Return a function that opens the page and waits until it is live."""
    pages: list[Page] = []

    def open_page(url: str, *, status: int = 200, is_live: bool = True, **options: Any) -> Page:
        page = Page(browser, f"person {len(pages)}")
        assert page.ask("open", url=url, **options) == status
        pages.append(page)
        if is_live:
            page.when("document.documentElement.dataset.state === 'live'")
        return page

    yield open_page
    for page in pages:
        page.ask("leave")


def trouble(page: Page) -> list[str]:
    found: list[str] = page.ask("notes")["trouble"]
    return found


def row(room: str) -> str:
    return f"[data-room='{room}']"


def test_rooms_and_clients_are_shown_live(stage: Stage, opens: Opens) -> None:
    page = opens(stage.url)
    assert page.text("#no-rooms").startswith("No agent is connected.")
    agent = stage.host("lighthouse")
    page.when_text(f"{row('lighthouse')} .state-cell", "online")
    client = stage.join("lighthouse")
    client.send(b"x" * 20_000)
    assert client.read_exactly(20_000) == b"x" * 20_000
    page.when_text("#clients .value", "1")
    page.when_text("#agents .value", "1")
    page.when_text("#rooms-count", "1")
    assert re.search(r"\d", page.text("#lag .value"))
    page.when(f"document.querySelector(\"{row('lighthouse')} .line.to\").getAttribute('d').includes('L')")
    assert stage.refused() == 404
    page.when_text("#refusals", r"room not found\s*1")
    page.when_text("#refused .aside", "1 in total")
    page.when_text("#events", ".*lighthouse.*client 1 connected in .* ms.*")
    client.close()
    page.when_text("#events", r".*client 1 disconnected \(.*19.5 KiB sent, 19.5 KiB received.*")
    agent.stop()
    page.when_text("#events", r".*lighthouse\s*agent disconnected \(agent stopped\).*")
    page.when("document.querySelectorAll('#rooms tbody tr').length === 0")
    assert trouble(page) == []


def test_traffic_is_shown_as_a_rate(stage: Stage, opens: Opens) -> None:
    stage.host("r")
    client = stage.join("r")
    page = opens(stage.url)
    end = time.monotonic() + 60
    while not re.search("KiB/s|MiB/s", page.text("#traffic .value")):
        assert time.monotonic() < end
        client.send(b"x" * 4096)
        client.read_exactly(4096)
        time.sleep(0.05)
    assert re.search(
        r"now [\d.]+ [KM]?i?B/s to clients", page.is_("document.querySelector('.plot.small').ariaLabel")
    )


def test_client_is_disconnected_after_confirmation(stage: Stage, opens: Opens) -> None:
    stage.host("r")
    first, second = stage.join("r"), stage.join("r")
    page = opens(stage.url)
    page.when_text(f"{row('r')} .number", "2")
    page.ask("click", on=f"{row('r')} .actions button")
    page.when("document.querySelectorAll('.clients li').length === 2")
    assert "127.0.0.1" in page.text(".clients li .who")
    page.ask("click", on=".clients li button")
    assert re.fullmatch(r"Disconnect client \d+\?", page.text("#confirm-title"))
    page.ask("click", on="#confirm-no")
    page.when("!document.querySelector('dialog').open")
    page.ask("click", on=".clients li button")
    page.ask("click", on="#confirm-yes")
    with pytest.raises(ConnectionResetError):
        first.read_to_end()
    page.when("document.querySelectorAll('.clients li').length === 1")
    page.when_text("#events", r".*disconnected \(by an operator.*")
    second.send(b"still")
    assert second.read_exactly(5) == b"still"
    assert trouble(page) == []


def test_room_can_be_closed_with_the_keyboard(stage: Stage, opens: Opens) -> None:
    stage.host("r", "--backoff-base-seconds", "30")
    client = stage.join("r")
    page = opens(stage.url)
    page.when_text(f"{row('r')} .number", "1")
    names = []
    for _ in range(8):
        page.ask("press", keys=["Tab"])
        names.append(page.is_("document.activeElement.ariaLabel ?? document.activeElement.textContent"))
        if names[-1] == "Close room r":
            break
    assert "Clients of r" in names
    assert page.is_("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.ask("press", keys=["Enter"])
    page.when("document.querySelector('dialog').open")
    assert page.is_("document.activeElement.textContent") == "Cancel"
    assert "Its agent and 1 client are disconnected" in page.text("#confirm-text")
    page.ask("press", keys=["Escape"])
    page.when("!document.querySelector('dialog').open")
    assert page.is_("document.activeElement.ariaLabel") == "Close room r"
    page.ask("press", keys=["Enter", "Tab", "Enter"])
    client.read_to_end()
    page.when_text("#events", r".*agent disconnected \(by an operator.*")
    assert trouble(page) == []


def test_second_confirmation_is_not_answered_by_the_close_event_of_the_first(
    stage: Stage, opens: Opens
) -> None:
    """The close event of a dialog is asynchronous; the dialog may be open again by then."""
    stage.host("r", "--backoff-base-seconds", "30")
    page = opens(stage.url)
    page.when_text(f"{row('r')} .number", "0")
    page.is_(
        "(() => { const close = document.querySelector('.room .danger')"
        "; close.click(); document.querySelector('#confirm-no').click(); close.click() })()"
    )
    page.is_("new Promise(resolve => setTimeout(resolve, 100))")
    assert page.is_("document.querySelector('dialog').open")
    page.ask("click", on="#confirm-yes")
    page.when_text("#events", r".*agent disconnected \(by an operator.*")
    assert trouble(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_colour_scheme_with_enough_contrast(scheme: str, stage: Stage, opens: Opens) -> None:
    stage.host("r")
    page = opens(stage.url, colorScheme=scheme)
    stage.join("r")
    page.when_text(f"{row('r')} .number", "1")
    page.when("document.querySelector('.events li') !== null")
    background = channels(page.is_("getComputedStyle(document.body).backgroundColor"))
    assert (sum(background) > 3 * 128) == (scheme == "light")
    for selector in (
        "body",
        ".card h2",
        ".aside",
        ".address",
        ".rooms thead th",
        ".rooms td",
        ".events li",
        "button",
    ):
        colour = channels(page.is_(f"getComputedStyle(document.querySelector({selector!r})).color"))
        behind = (
            background
            if selector in ("body", ".address")
            else channels(page.is_("getComputedStyle(document.querySelector('.card')).backgroundColor"))
        )
        assert contrast(colour, behind) >= 4.5, f"low contrast of {selector} in the {scheme} scheme"


def channels(colour: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


def contrast(one: list[int], other: list[int]) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2, 1.4.3)."""

    def luminance(colour: list[int]) -> float:
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_page_fits_a_narrow_screen(stage: Stage, opens: Opens) -> None:
    room = "a-room-with-a-name-that-is-as-long-as-it-may-be." * 2 + "x" * 30
    stage.host(room)
    stage.join(room)
    page = opens(stage.url, viewport={"width": 360, "height": 740})
    page.when_text(f"{row(room)} .number", r"Clients\s*1|1")
    page.ask("click", on=f"{row(room)} .actions button")
    page.when("document.querySelectorAll('.clients li').length === 1")
    assert page.is_("document.documentElement.scrollWidth") == 360
    seen = "[...document.querySelectorAll('main :not(thead, thead *)')]"
    assert page.is_(f"{seen}.filter(one => one.getBoundingClientRect().right > 360.5).length") == 0
    assert page.is_("getComputedStyle(document.querySelector('.rooms .danger')).display") != "none"


def test_page_loads_nothing_from_other_servers(stage: Stage, opens: Opens) -> None:
    stage.host("r")
    page = opens(stage.url)
    page.when_text(f"{row('r')} .state-cell", "online")
    page.ask("click", on=f"{row('r')} .actions button")
    notes = page.ask("notes")
    assert notes["trouble"] == []
    assert all(url.startswith(stage.url.replace("127.0.0.1", "localhost")) for url in notes["requests"])
    policy = httpx.get(stage.url).headers["content-security-policy"]
    assert policy.split("; ")[0] == POLICY
    assert "unsafe" not in policy
    assert page.is_("getComputedStyle(document.querySelector('.cards')).display") == "grid", (
        "the style sheet is not applied"
    )


def test_page_reconnects_to_a_restarted_relay(opens: Opens) -> None:
    address = f"tcp:{free_port()}:interface=127.0.0.1"
    with running_relay("--admin", address) as relay:
        page = opens(admin_url(relay))
        relay.kill()
        page.when("document.documentElement.dataset.state === 'lost'")
        assert page.text("#state") == "Not connected; retrying"
    with running_relay("--admin", address):
        page.when("document.documentElement.dataset.state === 'live'")


def test_stopping_relay_is_shown(opens: Opens) -> None:
    with running_stage("--drain-spread-seconds", "5", "--drain-seconds", "8") as stage:
        stage.host("r")
        stage.join("r")
        page = opens(stage.url)
        page.when_text(f"{row('r')} .number", "1")
        stage.relay.signal(signal.SIGTERM)
        page.when("document.documentElement.dataset.state === 'draining'")
        assert page.text("#state").startswith("Stopping")


def test_number_of_shown_rooms_is_limited(stage: Stage, opens: Opens) -> None:
    page = opens(stage.url)
    assert page.is_("document.getElementById('more-rooms').hidden")
    with ExitStack() as stack:
        for number in range(MAX_ROOMS + 2):
            agent = stack.enter_context(RawAgent(stage.relay, f"room-{number}"))
            assert agent.head.status == 101
        page.when_text("#rooms-count", str(MAX_ROOMS + 2))
        page.when(f"document.querySelectorAll('tr.room').length === {MAX_ROOMS}")
        page.when_text("#more-rooms", f"The {MAX_ROOMS} rooms .* all {MAX_ROOMS + 2}.")
    page.when("document.getElementById('more-rooms').hidden")
    page.when("document.querySelectorAll('#events li').length >= 52")
    assert trouble(page) == []


def test_page_beyond_the_limit_retries_until_another_is_closed(stage: Stage, opens: Opens) -> None:
    address = ("localhost", int(stage.url.rpartition(":")[2].strip("/")))
    with ExitStack() as stack:
        for _ in range(MAX_SUBSCRIBERS):
            watcher = stack.enter_context(Wire.dial(address))
            watcher.send(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert watcher.read_head().status == 200
        page = opens(stage.url, is_live=False)
        page.when_text("#notice", "Too many open dashboards on this relay. This page retries.")
    page.when("document.documentElement.dataset.state === 'live'")
    assert page.is_("document.getElementById('notice').hidden")


def test_updates_preserve_focus_and_open_lists(stage: Stage, opens: Opens) -> None:
    for room in ("a", "b"):
        stage.host(room)
    page = opens(stage.url)
    page.when_text(f"{row('b')} .number", "0")
    page.ask("click", on=f"{row('b')} .actions button")
    page.is_(f'document.querySelector("{row("b")} .danger").focus()')
    stage.join("b")
    page.when_text(f"{row('b')} .number", "1")
    page.when("document.querySelector('#rooms tbody tr').dataset.room === 'b'")
    assert page.is_("document.activeElement.ariaLabel") == "Close room b"
    page.when("document.querySelectorAll('.clients li').length === 1")


# With tokens


def admin_token(**more: Any) -> str:
    key = secret_key()
    payload = claims(**{"role": "admin", "room": "*", "exp": int(time.time()) + 3600, **more})
    return sign(payload, material=key.signing, algorithm="HS256", kid=key.key_id)


@pytest.fixture
def stage_with_tokens(tmp_path: Path) -> Iterator[Stage]:
    keys = str(write_jwks(tmp_path / "keys", secret_key()))
    with running_stage("--auth-key", keys, "--admin-token") as stage:
        yield stage


def by_password(token: str) -> dict[str, str]:
    return {"username": "user", "password": token}


def agent_options(room: str) -> tuple[str, ...]:
    return ("--token", admin_token(role="agent", room=room))


def test_page_needs_a_token_if_the_port_requires_one(stage_with_tokens: Stage) -> None:
    for path in ("/", "/static/dashboard.js", "/static/dashboard.css", "/static/icon.svg", "/api/events"):
        answer = httpx.get(stage_with_tokens.url.rstrip("/") + path)
        assert answer.status_code == 401
        assert any(one.startswith("Basic ") for one in answer.headers.get_list("www-authenticate"))
        assert answer.json()["code"] == "admin_token"


def test_token_as_password_gives_access(stage_with_tokens: Stage, opens: Opens) -> None:
    stage_with_tokens.host("r", *agent_options("r"))
    client = stage_with_tokens.join(
        "r", b"Authorization: Bearer " + admin_token(role="client", room="r").encode() + b"\r\n"
    )
    page = opens(stage_with_tokens.url, httpCredentials=by_password(admin_token()))
    page.when_text(f"{row('r')} .number", "1")
    page.ask("click", on=f"{row('r')} .actions button")
    page.when("document.querySelectorAll('.clients li').length === 1")
    page.ask("click", on=".clients li button")
    page.ask("click", on="#confirm-yes")
    with pytest.raises(ConnectionResetError):
        client.read_to_end()


def test_token_for_some_rooms_shows_only_these(stage_with_tokens: Stage, opens: Opens) -> None:
    for room in ("mine", "yours"):
        stage_with_tokens.host(room, *agent_options(room))
    page = opens(stage_with_tokens.url, httpCredentials=by_password(admin_token(room="mine")))
    page.when_text(f"{row('mine')} .state-cell", "online")
    page.when_text("#agents .value", "1")
    assert "yours" not in page.is_("document.body.innerText")
    assert page.is_("getComputedStyle(document.querySelector('#refused')).display") == "none"


def test_expired_token_ends_the_page(stage_with_tokens: Stage, opens: Opens) -> None:
    token = admin_token(exp=int(time.time()) + 6, room="*")
    page = opens(stage_with_tokens.url, httpCredentials=by_password(token))
    page.when("document.documentElement.dataset.state === 'closed'")
    assert "reload the page" in page.text("#notice")
