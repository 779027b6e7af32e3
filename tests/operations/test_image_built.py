"""The container image, built and run; ``.ci/run`` leaves this file out where no engine runs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.operations.proxies import DEPLOY
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


def test_the_image_can_be_built_and_is_small_and_its_relay_drains() -> None:
    program = engine()
    build = [program, "build", "-q", "-f", str(DEPLOY / "docker" / "Dockerfile"), str(ROOT)]
    image = subprocess.run(build, capture_output=True, text=True, check=True, timeout=900).stdout.strip()
    inspect = [program, "image", "inspect", "--format", "{{.Size}} {{.Config.User}}", image]
    size, user = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.split()
    assert user == "10001:10001"
    assert int(size) < 300_000_000
    start = [program, "run", "-d", "--rm", image, "relay", "--open", "--listen", "tcp:8080:interface=0.0.0.0"]
    container = subprocess.run(start, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([program, "stop", "-t", "45", container], capture_output=True, check=True, timeout=60)
