"""Controls the browser of ``browser.mjs`` from a test."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.peers import Asked
from tests.processes import environment, running_process
from tests.tools import ROOT, require

__all__ = ["SOURCES", "Browser", "pad_packages", "running_browser"]

SOURCES = ROOT / "seance" / "pad" / "src"


class Browser(Asked):
    """Chromium with one context for each person; ``browser.mjs`` has the commands."""

    def open(self, who: str, url: str, **options: Any) -> None:
        """Open the pad for ``who`` and set the name."""
        assert self.ask("open", who=who, url=url, **options) == 200
        self.ask("rename", who=who, name=who)

    def open_live(self, who: str, url: str, **options: Any) -> None:
        """Open the pad and wait until it is live."""
        self.open(who, url, **options)
        self.ask("when_state", who=who, state="live")


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Run a browser."""
    require("node", "npm", "chromium")
    pad_packages()
    argv = ["node", str(Path(__file__).with_name("browser.mjs"))]
    with running_process(
        argv, name="browser", ready='"ready":true', env=environment(), stdin=subprocess.PIPE
    ) as process:
        yield Browser(process)
        process.stdin.close()
        process.when_exited()


def pad_packages() -> Path:
    """Install the packages of the lock file for the pad's sources, and return their folder.

    Skips the test without Node. The first caller installs; others of the same checkout wait.
    """
    require("node", "npm")
    modules = SOURCES / "node_modules"
    stamp = modules / ".installed-from"
    with (SOURCES / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = lock.read()
        if not stamp.exists() or stamp.read_bytes() != wanted:
            argv = ["npm", "ci", "--ignore-scripts"]
            result = subprocess.run(argv, cwd=SOURCES, capture_output=True, text=True, check=False)
            assert result.returncode == 0, f"npm ci failed:\n{result.stdout}{result.stderr}"
            stamp.write_bytes(wanted)
    return modules
