"""The container image, built and run; ``.ci/run`` leaves this file out where no engine runs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.operations.proxies import DEPLOY
from tests.processes import until
from tests.tools import ROOT, require

pytestmark = pytest.mark.slow


def engine() -> str:
    """Docker or Podman, if one is here and runs; else the test is skipped."""
    for name in ("docker", "podman"):
        if (
            shutil.which(name)
            and not subprocess.run([name, "info"], capture_output=True, check=False).returncode
        ):
            return name
    require("a running docker or podman")
    raise AssertionError


def test_the_image_can_be_built_and_is_small_and_its_relay_is_healthy_and_drains() -> None:
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
        until(
            "the image's own check finds it healthy", lambda: say(*health) == "healthy", deadline_seconds=60
        )
        say("stop", "-t", "45", container)
        assert say("wait", container) == "0", "it was killed, or failed"
    finally:
        say("rm", "-f", container)
    container = say("run", "-d", image, "agent", "--room", "r", "--relay", "ws://192.0.2.1")
    try:
        health = ("inspect", "--format", "{{.State.Health.Status}}", container)
        until("an agent without its relay is healthy", lambda: say(*health) == "healthy", deadline_seconds=60)
    finally:
        say("rm", "-f", container)
