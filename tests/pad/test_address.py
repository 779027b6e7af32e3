"""Where the page finds its document, from where it is itself."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.pad.browser import SOURCES
from tests.tools import require

ASK = """
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
def test_the_document_is_where_the_page_is(url: str, base: str, name: str, params: dict[str, str]) -> None:
    require("node")
    argv = ["node", "--input-type=module", "-e", ASK, str(SOURCES / "address.js"), url]
    said = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert (said["base"], said["name"], said["params"]) == (base, name, params)
    assert said["link"] == url.partition("#")[0]
