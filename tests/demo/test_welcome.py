"""The text of the demo for the terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seance.demo.stack import DemoSettings
from seance.demo.welcome import share_link, welcome

LINK = "http://localhost:8080/c/abc"


def text_for(settings: DemoSettings, port: int = 8080, **how: Any) -> str:
    return welcome(
        settings, LINK, port, **{"with_code": False, "is_terminal": False, "environment": {}, **how}
    )


def test_link_and_next_steps_are_shown() -> None:
    text = text_for(DemoSettings())
    assert f"    {LINK}\n" in text
    assert "two tabs" in text
    assert 'new WebsocketProvider("ws://localhost:8080/c/abc", "pad", doc)' in text
    assert "--host 0.0.0.0" in text
    assert "--store pad.sqlite" in text
    assert "Ctrl-C" in text


def test_store_and_access_are_shown() -> None:
    text = text_for(DemoSettings(host="0.0.0.0", store=Path("my.db")))
    assert "kept in my.db" in text
    assert "in your network" in text
    assert "--store" not in text


def test_commands_are_those_of_make_if_make_started_the_demo() -> None:
    """``make demo`` puts no ``seance`` on the PATH."""
    text = text_for(DemoSettings(), environment={"MAKELEVEL": "1"})
    assert '    make demo DEMO_FLAGS="--host 0.0.0.0"\n' in text
    assert '    make demo DEMO_FLAGS="--store pad.sqlite"\n' in text
    assert "seance demo" not in text
    assert "    seance demo --host 0.0.0.0\n" in text_for(DemoSettings())
    assert "make" not in text_for(DemoSettings())


def test_port_is_mentioned_if_it_is_not_the_default() -> None:
    assert "Port 8080 is in use, so the relay listens on port 9999" in text_for(DemoSettings(), 9999)
    assert "in use" not in text_for(DemoSettings(port=9999), 9999)
    assert "in use" not in text_for(DemoSettings(), 8080)


def test_code_is_a_square_of_blocks() -> None:
    lines = [line for line in text_for(DemoSettings(), with_code=True).splitlines() if "█" in line]
    assert len(lines) > 10
    assert {len(line) for line in lines} == {len(lines[0])}
    assert 2 * len(lines) - len(lines[0].strip()) in (-1, 0, 1)
    assert "█" not in text_for(DemoSettings())


def test_code_has_its_own_colours_on_a_terminal() -> None:
    """A code in the colours of a light terminal is inverted, and some scanners cannot read it."""
    text = text_for(DemoSettings(), with_code=True, is_terminal=True)
    assert re.search(r"\x1b\[97;40m[ ▀▄█]+\x1b\[0m\n", text)
    assert "\x1b" not in text_for(DemoSettings(), with_code=True)


@pytest.mark.parametrize(
    ("host", "link"),
    [
        (None, "http://localhost:81/c/r"),
        ("192.168.1.5", "http://192.168.1.5:81/c/r"),
        ("::1", "http://[::1]:81/c/r"),
    ],
)
def test_link_has_the_address_by_which_others_reach_the_host(host: str | None, link: str) -> None:
    assert share_link(DemoSettings(host=host), 81, "r") == link


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_link_has_one_address_of_this_machine_if_the_relay_listens_on_all(host: str) -> None:
    link = share_link(DemoSettings(host=host), 81, "r")
    assert re.fullmatch(r"http://([0-9.]+|\[[0-9a-f:]+\]):81/c/r", link)
    assert host not in (link[7:14], link[8:10])
