"""The pad in a browser, through relay, agent and document server as processes."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.pad.browser import Browser, running_browser
from tests.processes import (
    AgentProcess,
    Process,
    RelayProcess,
    environment,
    running_agent,
    running_relay,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True)
class Room:
    """A share link with a document server behind it."""

    relay: RelayProcess
    name: str
    local_port: int

    @property
    def link(self) -> str:
        return f"http://localhost:{self.relay.port}/c/{self.name}"

    def host(self) -> contextlib.AbstractContextManager[AgentProcess]:
        """Run the agent for the time of a ``with`` block."""
        return running_agent(self.relay, self.name, local_port=self.local_port)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    """A room without an agent."""
    argv = [sys.executable, "-m", "tests.yserver.program"]
    with (
        running_relay("--pad") as relay,
        Process(argv, name="document server", env=environment()) as server,
    ):
        port = int(server.when_line(r"serving documents on port (\d+)")[1])
        yield Room(relay, "pad-room", port)
        server.check_quiet()


@pytest.fixture(autouse=True)
def people(browser: Browser) -> Iterator[list[str]]:
    """The names of the people with an open page, which is closed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        browser.ask("leave", who=name)


def test_two_people_write_and_see_each_other(browser: Browser, room: Room, people: list[str]) -> None:
    with room.host():
        for name in ("Ada", "Ben"):
            browser.open_live(name, room.link)
            people.append(name)
        browser.ask("when_people", who="Ada", names=["Ben"])
        assert browser.ask("content", who="Ada", of=".state").endswith("2 people")

        browser.ask("type", who="Ada", text="From Ada.")
        browser.ask("when_text", who="Ben", text="From Ada.")
        browser.ask("when_caret", who="Ben", name="Ada")
        browser.ask("focus", who="Ben")
        browser.ask("press", who="Ben", keys=["Control+End", "Enter"])
        browser.ask("type", who="Ben", text="From Ben.")
        for name in ("Ada", "Ben"):
            browser.ask("when_text", who=name, text="From Ada.\nFrom Ben.")
        browser.ask("when_caret", who="Ada", name="Ben")
        browser.ask("press", who="Ben", keys=["Shift+Home"])
        browser.ask("when_selected", who="Ada", text="From Ben.")

        browser.ask("rename", who="Ben", name="Benedikt")
        browser.ask("when_caret", who="Ada", name="Benedikt")
        browser.ask("leave", who="Ben")
        people.remove("Ben")
        browser.ask("when_no_caret", who="Ada", name="Benedikt")
        assert browser.ask("content", who="Ada", of=".state").endswith("just you")


def test_page_requests_no_other_file_and_keeps_its_policy(
    browser: Browser, room: Room, people: list[str]
) -> None:
    with room.host():
        for name in ("Ada", "Ben"):
            browser.open_live(name, room.link)
            people.append(name)
        text = "# Title\n\nSome *words* and `code`, <b>no markup</b>\n"
        browser.ask("type", who="Ada", text=text)
        browser.ask("when_caret", who="Ben", name="Ada")
        notes = browser.ask("notes", who="Ben")
        own = [room.link, room.link + "/status", room.link.replace("http", "ws", 1) + "/pad"]
        assert sorted(url for url in notes["requests"] if not url.startswith("data:")) == sorted(own)
        assert notes["trouble"] == []
        is_styled = "getComputedStyle(document.querySelector('.cm-content')).whiteSpace"
        assert browser.ask("evaluate", who="Ben", expression=is_styled) == "break-spaces"


def test_text_written_while_the_host_is_offline_is_not_lost(
    browser: Browser, room: Room, people: list[str]
) -> None:
    with room.host():
        for name in ("Ada", "Ben"):
            browser.open_live(name, room.link)
            people.append(name)
        browser.ask("type", who="Ada", text="Before. ")
        browser.ask("when_text", who="Ben", text="Before. ")
    for name in people:
        browser.ask("when_state", who=name, state="away", seconds=30)
    assert browser.ask("content", who="Ada", of="#state") == "Host offline"
    assert re.fullmatch(r"for \d+ s", browser.ask("content", who="Ada", of="#since"))
    assert browser.ask("content", who="Ada", of="#host") == "Host offline"
    assert "keep this tab open" in browser.ask("content", who="Ada", of="#notice")
    browser.ask("when_people", who="Ada", names=[])
    browser.ask("type", who="Ada", text="Meanwhile.")
    assert browser.ask("text", who="Ben") == "Before. "
    with room.host():
        for name in people:
            browser.ask("when_state", who=name, state="live", seconds=30)
            browser.ask("when_text", who=name, text="Before. Meanwhile.")
        browser.ask("when_people", who="Ada", names=["Ben"])
        browser.ask("when_people", who="Ben", names=["Ada"])
        assert browser.ask("evaluate", who="Ada", expression="document.getElementById('notice').hidden")
        assert browser.ask("content", who="Ada", of="#host") == "Host online"
        assert browser.ask("content", who="Ada", of="#since") == ""


def test_page_opens_before_the_host_connects(browser: Browser, room: Room, people: list[str]) -> None:
    browser.open("Ada", room.link + "/")
    people.append("Ada")
    browser.ask("when_state", who="Ada", state="away", seconds=30)
    with room.host():
        browser.ask("when_state", who="Ada", state="live", seconds=30)


def test_device_without_a_network_shows_it(browser: Browser, room: Room, people: list[str]) -> None:
    browser.open("Ada", room.link)
    people.append("Ada")
    browser.ask("when_state", who="Ada", state="away", seconds=30)
    browser.ask("offline", who="Ada", **{"is": True})
    browser.ask("when_state", who="Ada", state="offline")
    assert "no network" in browser.ask("content", who="Ada", of="#notice")
    browser.ask("offline", who="Ada", **{"is": False})
    browser.ask("when_state", who="Ada", state="away")


def test_page_does_not_reconnect_after_a_final_close_code(
    browser: Browser, room: Room, people: list[str]
) -> None:
    """y-websocket since 3.1 does not reconnect after a code of 4400 to 4499."""
    dials = []

    def refuse(connection: ServerConnection) -> None:
        dials.append(connection)
        connection.close(4403, "the party is over")

    with (
        serve(refuse, "127.0.0.1", 0) as server,
        running_agent(room.relay, room.name, local_port=server.socket.getsockname()[1]),
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        browser.open("Ada", room.link)
        people.append("Ada")
        browser.ask("when_state", who="Ada", state="closed", seconds=30)
        notice = browser.ask("content", who="Ada", of="#notice")
        assert notice == "The host closed this pad: the party is over. Reload to try again."
        browser.ask("evaluate", who="Ada", expression="new Promise(done => setTimeout(done, 1500))")
        assert len(dials) == 1
        server.shutdown()
        serving.join()


def test_name_and_colour_are_remembered_and_colours_differ(
    browser: Browser, room: Room, people: list[str]
) -> None:
    colour = "getComputedStyle(document.getElementById('swatch')).backgroundColor"
    storage = "localStorage.setItem('seance.hue', 3)"
    with room.host():
        for name in ("Ada", "Ben"):
            browser.open_live(name, room.link)
            people.append(name)
            browser.ask("evaluate", who=name, expression=storage)
            browser.ask("reload", who=name)
        browser.ask("when_people", who="Ada", names=["Ben"])
        browser.ask("when_people", who="Ben", names=["Ada"])
        assert browser.ask("name", who="Ada") == "Ada"
        shown = "getComputedStyle(document.querySelector('#people .face')).backgroundColor"
        assert browser.ask("evaluate", who="Ada", expression=f"{colour} !== {shown}")
        assert browser.ask("evaluate", who="Ben", expression=f"{colour} !== {shown}")


def test_each_document_has_its_own_address(browser: Browser, room: Room, people: list[str]) -> None:
    with room.host():
        for name, path in (("Ada", "/notes/today"), ("Ben", "/notes/today"), ("Cem", "")):
            browser.open_live(name, room.link + path)
            people.append(name)
        browser.ask("type", who="Ada", text="Only for us.")
        browser.ask("when_text", who="Ben", text="Only for us.")
        assert browser.ask("text", who="Cem") == ""


def test_link_can_be_copied(browser: Browser, room: Room, people: list[str]) -> None:
    with room.host():
        permissions = ["clipboard-read", "clipboard-write"]
        browser.open_live("Ada", f"{room.link}?a=1#part", permissions=permissions)
        people.append("Ada")
        browser.ask("click", who="Ada", on="#copy")
        copied = browser.ask("evaluate", who="Ada", expression="navigator.clipboard.readText()")
        assert copied == f"{room.link}?a=1"
        assert browser.ask("content", who="Ada", of="#copy") == "Link copied"


def test_undo_affects_only_ones_own_text(browser: Browser, room: Room, people: list[str]) -> None:
    with room.host():
        for name in ("Ada", "Ben"):
            browser.open_live(name, room.link)
            people.append(name)
        browser.ask("type", who="Ada", text="mine ")
        browser.ask("when_text", who="Ben", text="mine ")
        browser.ask("focus", who="Ben")
        browser.ask("press", who="Ben", keys=["Control+End"])
        browser.ask("type", who="Ben", text="yours")
        browser.ask("when_text", who="Ada", text="mine yours")
        browser.ask("press", who="Ada", keys=["Control+z"])
        browser.ask("when_text", who="Ben", text="yours")
