"""The systemd units: systemd accepts each line, and our programs run under their restrictions."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from seance.core.settings import RelaySettings
from seance.options import Program, options_of
from tests.certificates import Authority
from tests.operations.parties import EchoServer, dial
from tests.operations.proxies import DEPLOY
from tests.operations.sandbox import allowed_calls
from tests.processes import DEADLINE_SECONDS, environment, running_process, twistd
from tests.tls_in_threads import trusting
from tests.tools import require

UNITS = sorted((DEPLOY / "systemd").rglob("*.service"))

EXPOSURE = 2.0
"""Exposure out of 10 as ``systemd-analyze security`` counts; above 5 it reports MEDIUM."""

by_name = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: f"{unit.parent.name}/{unit.name}")


def installed(unit: Path, folder: Path) -> Path:
    """Write the unit with an existing program, into the test's folder."""
    text, count = re.subn(
        r"(?<=^ExecStart=)\S+/bin/seance", sys.executable, unit.read_text("utf-8"), flags=re.M
    )
    assert count == 1
    place = folder / unit.name
    place.write_text(text, "utf-8")
    return place


def verified(unit: Path, *, is_of_a_person: bool) -> str:
    """Return systemd's complaints about the unit."""
    require("systemd-analyze")
    manager = ["--user"] if is_of_a_person else []
    argv = ["systemd-analyze", "verify", "--man=no", *manager, str(unit)]
    env = {"PATH": "/usr/bin:/bin:/usr/sbin", "XDG_RUNTIME_DIR": str(unit.parent), "HOME": str(unit.parent)}
    result = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    return "\n".join(line for line in (result.stdout + result.stderr).splitlines() if unit.stem[:-1] in line)


@by_name
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    assert verified(installed(unit, tmp_path), is_of_a_person=unit.parent.name == "user") == ""


@by_name
def test_an_unknown_line_is_reported(unit: Path, tmp_path: Path) -> None:
    place = installed(unit, tmp_path)
    place.write_text(place.read_text("utf-8").replace("UMask=", "Umask="), "utf-8")
    assert "Umask" in verified(place, is_of_a_person=unit.parent.name == "user")


@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.parent.name == "systemd"], ids=lambda unit: unit.stem
)
def test_the_unit_has_few_privileges(unit: Path, tmp_path: Path) -> None:
    require("systemd-analyze")
    place = installed(unit, tmp_path)
    argv = ["systemd-analyze", "security", "--no-pager", "--offline=true", str(place)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60).stdout
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", shown)
    assert level is not None, shown
    assert float(level[1]) <= EXPOSURE


@by_name
def test_the_commands_of_the_unit_exist(unit: Path) -> None:
    text = unit.read_text("utf-8")
    command = re.search(r"^ExecStart=(.*)$", text, re.M)
    assert command is not None
    _, program, *rest = shlex.split(command[1])
    options = options_of(Program(program))
    known = {"--config", *(f"--{option.name}" for option in options)}
    assert {word for word in rest if word.startswith("--")} <= known
    variables = {option.variables[0] for option in options}
    assert set(re.findall(r"SEANCE_\w+", text)) <= variables


def test_the_unit_has_enough_stop_time_and_descriptors() -> None:
    text = (DEPLOY / "systemd" / "seance-relay@.service").read_text("utf-8")
    found = dict(re.findall(r"^(TimeoutStopSec|LimitNOFILE)=(\d+)$", text, re.M))
    settings = RelaySettings()
    assert int(found["TimeoutStopSec"]) > settings.drain_seconds
    assert int(found["LimitNOFILE"]) > settings.connections + settings.reserved_connections


def test_every_file_in_a_unit_is_documented() -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text("utf-8")
    for unit in UNITS:
        for path in re.findall(r"(?:/etc|/opt)/seance/[\w.%/-]+", unit.read_text("utf-8")):
            shown = path.replace("%i", "blue" if "relay" in unit.name else "my-room")
            assert re.sub(r"/bin/seance$", "", shown) in page, path


@pytest.mark.slow
def test_relay_and_agent_work_under_the_system_call_filter(tmp_path: Path) -> None:
    """With TLS, files that are read again, a new key, clients, and an orderly end."""
    require("systemd-analyze")
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost")
    files = ("--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key))
    listen = ("--listen", "tcp:0:interface=127.0.0.1")
    with (
        EchoServer() as local,
        running_process(
            confined("seance-relay@.service", *twistd("seance-relay", *listen, *files)),
            name="relay",
            ready="Client endpoint",
            env=environment(),
        ) as relay,
    ):
        [port] = re.findall(r"starting on port (\d+)", relay.output)
        options = ("--room", "room", "--relay", f"wss://localhost:{port}", "--tls-ca", str(authority.file))
        own = ("--local", f"127.0.0.1:{local.port}", "--identity", str(tmp_path / "agent-key"))
        with running_process(
            confined("seance-agent@.service", *twistd("seance-agent", *options, *own)),
            name="agent",
            ready="Tunneling",
            env=environment(),
        ) as agent:
            context = trusting(authority.file)
            with dial(f"wss://localhost:{port}/c/room", context) as client:
                client.send("hello")
                assert client.recv(DEADLINE_SECONDS) == "hello"
            assert agent.stop() == 0
        assert relay.stop() == 0
        for process in (relay, agent):
            process.check_quiet()


def confined(unit: str, *command: str) -> list[str]:
    """Return the command line of a command under the filter of a unit."""
    sandbox = Path(__file__).with_name("sandbox.py")
    return [sys.executable, str(sandbox), str(DEPLOY / "systemd" / unit), *command]


@pytest.mark.slow
def test_the_filter_blocks_a_forbidden_call(tmp_path: Path) -> None:
    require("systemd-analyze")
    assert "reboot" not in allowed_calls((DEPLOY / "systemd" / "seance-relay@.service").read_text("utf-8"))
    code = "import os; os.sched_setaffinity(0, os.sched_getaffinity(0))"
    argv = confined("seance-relay@.service", sys.executable, "-c", code)
    result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "PermissionError" in result.stderr
