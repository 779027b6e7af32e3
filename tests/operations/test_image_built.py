"""Build and run the container image; ``.ci/run`` leaves this file out on machines without an engine."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.operations.proxies import DEPLOY
from tests.processes import until
from tests.tools import ROOT, require

pytestmark = pytest.mark.slow


def engine() -> str:
    """Return docker or podman if one runs; otherwise skip the test."""
    for name in ("docker", "podman"):
        if (
            shutil.which(name)
            and not subprocess.run([name, "info"], capture_output=True, check=False).returncode
        ):
            return name
    require("a running docker or podman")
    raise AssertionError


def test_the_built_image_is_small_and_its_relay_is_healthy_and_drains() -> None:
    program = engine()

    def say(*words: str, seconds: float = 60) -> str:
        argv = [program, *words]
        return subprocess.run(
            argv, capture_output=True, text=True, check=True, timeout=seconds
        ).stdout.strip()

    image = say("build", "-q", "-f", str(DEPLOY / "docker" / "Dockerfile"), str(ROOT), seconds=900)
    size, user = say("image", "inspect", "--format", "{{.Size}} {{.Config.User}}", image).split()
    assert user == "10001:10001"
    assert int(size) < 300_000_000
    container = say("run", "-d", image, "relay", "--open", "--listen", "tcp:8080:interface=0.0.0.0")
    try:
        health = ("inspect", "--format", "{{.State.Health.Status}}", container)
        until("the image's health check passes", lambda: say(*health) == "healthy", deadline_seconds=60)
        say("stop", "-t", "45", container)
        assert say("wait", container) == "0", "the relay was killed or failed"
    finally:
        say("rm", "-f", container)
    container = say("run", "-d", image, "agent", "--room", "r", "--relay", "ws://192.0.2.1")
    try:
        health = ("inspect", "--format", "{{.State.Health.Status}}", container)
        until("an agent without its relay is healthy", lambda: say(*health) == "healthy", deadline_seconds=60)
    finally:
        say("rm", "-f", container)
