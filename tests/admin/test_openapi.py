"""The OpenAPI description matches the routes, docs/admin-port.md, and a running relay (schemathesis)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from seance.admin.openapi import description
from seance.heads.refusals import ADMIN_REFUSALS
from tests.admin.rig import AdminRig
from tests.docs.pages import DOCS, table
from tests.docs.source import as_written
from tests.relay.rig import until

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
ENDLESS = "/api/events"
EXAMPLES = 60
SECONDS = 40

BY_DESIGN = "use_after_free"
"""A deleted room may exist again, because its agent reconnects."""


@pytest.mark.slow
@ensureDeferred
async def test_schemathesis_finds_no_fault(tmp_path: Path) -> None:
    quick = {"backoff_base_seconds": 0.02, "backoff_cap_seconds": 0.02}
    async with AdminRig(agent=quick) as rig:
        await rig.joined()
        command = [
            SCHEMATHESIS,
            *(
                "run",
                f"{rig.url}/api/openapi.json",
                "--checks",
                "all",
                "--exclude-checks",
                BY_DESIGN,
                "--exclude-path",
                ENDLESS,
            ),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--max-time", str(SECONDS)),
            *("--header", "Seance-Admin: test", "--request-timeout", "10"),
        ]

        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

        done = await deferToThread(run)
        assert done.returncode == 0, done.stdout + done.stderr
        await until(lambda: rig.relay.rooms.room_count == 1)
        assert (await rig.ask("/healthz")).status_code == 200


@ensureDeferred
async def test_description_matches_the_routes() -> None:
    async with AdminRig() as rig:
        document = await rig.json("/api/openapi.json")
        assert document == json.loads(json.dumps(description()))
        routes = {route.path: set(route.handlers) for route in rig.admin._service._site.routes}
        del routes["/api/openapi.json"]
        described = {path: {method.upper() for method in does} for path, does in document["paths"].items()}
        assert described == routes
        for path, does in document["paths"].items():
            parameters = (
                {one["name"] for one in does["get"]["parameters"] if one["in"] == "query"}
                if "get" in does
                else set()
            )
            [route] = [route for route in rig.admin._service._site.routes if route.path == path]
            assert parameters == set(route.parameters)


def test_docs_list_exactly_these_paths() -> None:
    rows = table(DOCS / "admin-port.md", "What can be asked")
    written = {
        (re.sub("ROOM", "{room}", row[0].strip("`")).replace("/N", "/{client}"), row[1]) for row in rows
    }
    described = {(path, method.upper()) for path, does in description()["paths"].items() for method in does}
    assert written == described | {("/api/openapi.json", "GET")}


def test_docs_list_exactly_these_refusals() -> None:
    refusals = {(code, status) for status, code, _ in map(as_written, ADMIN_REFUSALS)}
    text = (
        (DOCS / "admin-port.md")
        .read_text("utf-8")
        .partition("## What can be asked")[2]
        .partition("## Events")[0]
    )
    written = {(code, int(status)) for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text, re.M)}
    assert written == refusals
