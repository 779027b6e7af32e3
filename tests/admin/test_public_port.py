"""The public port serves ``/health`` and nothing of the admin port."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from seance.admin import openapi
from seance.dashboard.pages import dashboard_pages
from tests.admin.rig import CHANGE, AdminRig, ask_at

PATHS = [path.replace("{room}", "r").replace("{client}", "1") for path in openapi.description()["paths"]]
OTHERS = [*dashboard_pages(), "/admin", "/api", "/status", "/api/openapi.json"]


def test_paths_to_try_are_not_empty() -> None:
    assert {"/metrics", "/healthz", "/readyz", "/api/rooms/r", "/api/events"} <= set(PATHS)
    assert {"/", "/static/dashboard.js"} <= set(OTHERS)


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST"])
@ensureDeferred
async def test_no_path_of_the_admin_port_answers_on_the_public_port(method: str) -> None:
    async with AdminRig() as rig:
        client, _local = await rig.joined()
        for path in (*PATHS, *OTHERS):
            answer = await ask_at(f"http://127.0.0.1:{rig.port}{path}", method=method, headers=CHANGE)
            assert answer.status_code in (400, 404, 405, 426), (path, answer.status_code)
            assert b"seance_" not in answer.content
            assert b'"rooms"' not in answer.content
        assert client.lost is None
        assert rig.relay.rooms.room_count == 1


@ensureDeferred
async def test_health_on_the_public_port_says_only_ok() -> None:
    async with AdminRig() as rig:
        answer = await ask_at(f"http://127.0.0.1:{rig.port}/health")
        assert (answer.status_code, answer.text) == (200, "OK")
