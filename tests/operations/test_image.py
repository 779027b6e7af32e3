"""The container image and the compose file, as far as they can be checked without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from seance.core.settings import RelaySettings
from seance.options import Program, options_of
from tests.operations.proxies import DEPLOY
from tests.processes import AgentProcess, Process, running_relay
from tests.tools import ROOT, require

FOLDER = DEPLOY / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))


def instructions(name: str) -> list[str]:
    """Return the arguments of each use of an instruction, each on one line."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return re.findall(rf"^{name}\s+(.*)$", joined, re.M)


def test_hadolint_finds_nothing() -> None:
    beside_python = shutil.which("hadolint", path=sysconfig.get_path("scripts"))
    if beside_python is None:
        require("hadolint")
    argv = [beside_python or "hadolint", str(FOLDER / "Dockerfile")]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout) == (0, "")


def test_both_stages_use_the_same_supported_python() -> None:
    bases = {line.partition(" AS ")[0] for line in instructions("FROM")}
    [base] = bases
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
    assert version is not None
    assert (int(version[1]), int(version[2])) >= (3, 11)


def test_the_image_runs_as_an_unprivileged_user() -> None:
    assert instructions("USER") == ["10001:10001"]
    last = DOCKERFILE.index("ENTRYPOINT")
    assert DOCKERFILE.index("USER") < last


def test_the_program_gets_signals_directly() -> None:
    """The shell form of CMD would keep SIGTERM from the relay, and clients would not be disconnected in
    order.
    """
    [entrypoint], [command] = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entrypoint) == ["seance"]
    program, *options = json.loads(command)
    assert flags(options) <= known(program)


def health_check(process: Process) -> int:
    """Run the image's health check. A container has one program; here its process is named."""
    [line] = instructions("HEALTHCHECK")
    program, *rest = json.loads(line[line.index("[") :])
    assert program == "seance"
    argv = [sys.executable, "-m", "seance", *rest, "--pid", str(process.pid)]
    return subprocess.run(argv, capture_output=True, check=False, cwd=ROOT).returncode


def test_the_health_check_finds_a_relay_on_any_port(tmp_path: Path) -> None:
    with running_relay(listen="tcp:0:interface=127.0.0.2") as relay:
        assert health_check(relay) == 0
    assert health_check(relay) == 1


def test_the_health_check_accepts_an_agent_that_dials_its_relay() -> None:
    with AgentProcess("r", "--relay", "ws://127.0.0.1:1") as agent:
        agent.when_line("Nothing listens")
        assert health_check(agent) == 0
    assert health_check(agent) == 1


def copied(folder: Path) -> None:
    """Return the files of the build context, without those that ``.dockerignore`` excludes."""
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for line in instructions("COPY"):
        if line.startswith("--from"):
            continue
        *sources, target = line.split()
        assert set(sources) <= allowed, "a file that the image needs is in .dockerignore"
        for source in sources:
            if (ROOT / source).is_dir():
                unwanted = shutil.ignore_patterns("__pycache__", "src")
                shutil.copytree(ROOT / source, folder / target, ignore=unwanted)
            else:
                shutil.copy(ROOT / source, folder / target)


@pytest.mark.slow
def test_the_build_context_is_sufficient(tmp_path: Path) -> None:
    copied(tmp_path)
    argv = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "out"), "."]
    result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    [wheel] = (tmp_path / "out").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("twisted/plugins/") for name in names), "twistd has no seance-relay"
    assert any(name.startswith("seance/pad/") and name.endswith(".html") for name in names)


def flags(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def known(program: str) -> set[str]:
    return {f"--{option.name}" for option in options_of(Program(program))}


def test_compose_refers_to_existing_services_and_files() -> None:
    relay = COMPOSE["services"]["relay"]
    program, *options = relay["command"]
    assert flags(options) <= known(program)
    assert (FOLDER / relay["build"]["context"]).resolve() == ROOT
    assert (ROOT / relay["build"]["dockerfile"]).is_file()
    caddy = COMPOSE["services"]["caddy"]
    configuration = caddy["volumes"][0].partition(":")[0]
    assert (FOLDER / configuration).is_file()
    variables = re.findall(r"\{\$(\w+)", (FOLDER / configuration).read_text("utf-8"))
    assert set(variables) == set(caddy["environment"])


def test_the_relay_trusts_only_the_address_of_caddy() -> None:
    told = [word for word in COMPOSE["services"]["relay"]["command"] if "trusted-proxy" in word]
    address = COMPOSE["services"]["caddy"]["networks"]["inside"]["ipv4_address"]
    assert told == [f"--trusted-proxy={address}"]


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_services_have_few_privileges(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    image = service.get("image")
    assert image is None or re.search(r":\d+\.\d+\.\d+", image), "a fixed version"


def test_a_container_has_enough_stop_time_and_descriptors() -> None:
    relay = COMPOSE["services"]["relay"]
    settings = RelaySettings()
    assert int(relay["stop_grace_period"].removesuffix("s")) > settings.drain_seconds
    assert relay["ulimits"]["nofile"] > settings.connections + settings.reserved_connections
