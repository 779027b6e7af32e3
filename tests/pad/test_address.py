"""The address of the document, from the address of the page."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.pad.browser import SOURCES
from tests.tools import require

ADDRESS_SCRIPT = """
const { addressFrom } = await import(process.argv[1])
console.log(JSON.stringify(addressFrom(new URL(process.argv[2]))))
"""


@pytest.mark.parametrize(
    ("url", "base", "name", "params"),
    [
        ("http://localhost:8080/c/r", "ws://localhost:8080/c/r", "pad", {}),
        ("http://localhost:8080/c/r/", "ws://localhost:8080/c/r", "pad", {}),
        ("https://relay.example/c/r~1#top", "wss://relay.example/c/r~1", "pad", {}),
        ("https://relay.example/c/r/notes/a%20b", "wss://relay.example/c/r", "notes/a%20b", {}),
        ("https://example.org/team/x/c/r", "wss://example.org/team/x/c/r", "pad", {}),
        ("https://relay.example/c/r?token=t+1", "wss://relay.example/c/r", "pad", {"token": "t 1"}),
        ("http://[::1]:8080/c/r", "ws://[::1]:8080/c/r", "pad", {}),
    ],
)
def test_document_address_follows_from_the_page_address(
    url: str, base: str, name: str, params: dict[str, str]
) -> None:
    require("node")
    argv = ["node", "--input-type=module", "-e", ADDRESS_SCRIPT, str(SOURCES / "address.js"), url]
    result = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert (result["base"], result["name"], result["params"]) == (base, name, params)
    assert result["link"] == url.partition("#")[0]
    question_mark, query = result["link"].partition("?")[1:]
    assert result["status"] == base.replace("ws", "http", 1) + "/status" + question_mark + query


LAPSE_SCRIPT = """
const { lapse } = await import(process.argv[1])
const seconds = [0, 7, 59.4, 60, 3599, 3600, 7300, -3]
console.log(JSON.stringify([lapse(0), ...seconds.map(since => lapse(1e6, 1e6 + since * 1000))]))
"""


def test_elapsed_time_has_one_unit() -> None:
    require("node")
    argv = ["node", "--input-type=module", "-e", LAPSE_SCRIPT, str(SOURCES / "host.js")]
    result = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert result == ["", "0 s", "7 s", "59 s", "1 min", "59 min", "1 h", "2 h", "0 s"]
