"""Systems without ``poll``, ``SIGHUP``, ``SIGUSR1``, ``getuid``, ``fcntl`` and ``resource``, such as Windows.

Each test runs in a separate process that removes these names before it imports Seance.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import Process, environment, until
from tests.test_layers import SOURCES

REMOVE_NAMES = """
import os, select, signal, sys

# Twisted on UNIX needs some of these names itself, so its modules are imported first.
import twisted.internet.epollreactor, twisted.internet.process, twisted.internet.unix
import twisted.scripts.twistd, twisted.scripts._twistd_unix, subprocess, tempfile, pathlib, shutil
import importlib.metadata, getpass, asyncio, twisted.internet.fdesc, twisted.application.app

for module, names in (
    (select, ("poll",)),
    (signal, ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE")),
    (os, ("getuid", "geteuid", "fchmod", "O_NOCTTY", "register_at_fork", "tcgetpgrp")),
):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource", "termios", "pty", "tty", "pwd", "grp"):
    sys.modules[name] = None
"""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", REMOVE_NAMES + code]


def test_every_module_can_be_imported() -> None:
    code = """
import importlib, sys
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        failed.append(f"{name}: {error!r}")
sys.exit("\\n".join(failed) or 0)
"""
    names = [name for name in SOURCES if not name.endswith("__main__")]
    done = subprocess.run(
        [*command(code), *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=os.sep,
        env={**os.environ, **environment()},
    )
    assert done.stderr == ""
    assert done.returncode == 0


SEANCE = "from seance.cli import main; sys.exit(main(sys.argv[1:]))"
TWISTD = "from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


@pytest.mark.parametrize("program", ["seance", "twistd"])
def test_status_lines_are_written_and_the_end_of_the_parent_is_noticed(program: str) -> None:
    argv = [*command(SEANCE), "agent"] if program == "seance" else [*command(TWISTD), "-n", "seance-agent"]
    argv += ["--room", "test", "--relay", "ws://127.0.0.1:1", "--status-json"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment()}
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            status = json.loads(child.stdout.readline())
            assert status["state"] == "connecting"
            child.stdout.close()
            assert child.wait(30) == 0
            assert b"Traceback" not in child.stderr.read()
        finally:
            child.kill()


def test_the_last_status_line_is_stopped() -> None:
    argv = [*command(SEANCE), "agent", "--room", "test", "--relay", "ws://127.0.0.1:1", "--status-json"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **environment()}
    ) as child:
        try:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline())["state"] == "connecting"
            child.send_signal(signal.SIGTERM)
            lines = child.stdout.read().splitlines()
            assert json.loads(lines[-1])["state"] == "stopped"
            assert child.wait(30) == 0
        finally:
            child.kill()


def test_twistd_writes_a_log_file(tmp_path: Path) -> None:
    path = tmp_path / "relay.log"
    argv = [*command(TWISTD), "-n", "--logfile", str(path)]
    argv += ["seance-relay", "--listen", "tcp:0:interface=127.0.0.1"]
    with Process(argv, name="relay", env=environment()) as process:
        until("it listens", lambda: path.exists() and "starting on port" in path.read_text("utf-8"))
        process.signal(signal.SIGTERM)
        assert process.when_exited() == 0
        assert "Traceback" not in process.output + path.read_text("utf-8")
