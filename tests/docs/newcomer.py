"""Types the commands of a page in a fresh clone, with a new virtual environment and an empty home directory.

Each line is typed unchanged. A program that runs until Ctrl-C gets its own terminal, and the test waits for
its ready message. When another program of the same kind starts, the first is stopped, because both need the
same port. Every other command must end with status 0.

The test prepares two things that a page cannot: the name ``relay.example`` resolves to this machine, and the
clone contains a certificate for it that is trusted.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.certificates import Authority
from tests.docs.pages import Block, blocks
from tests.processes import DEADLINE_SECONDS, Process, until
from tests.tools import ROOT, require

__all__ = ["NOT_TYPED", "Newcomer", "lines_of", "typed_blocks"]

NOT_TYPED = "not typed: "
"""Start of the comment before a block that no test types; the reason follows."""

PORTS = (443, 1234, 8080, 9090)
"""The ports that the pages use. They must be free."""

PATIENCE_SECONDS = 400.0
"""Timeout of commands that install packages."""

START_SECONDS = 60.0
"""Timeout for the start of an installed program, on a slow machine."""

NAME = "relay.example"

RESOLVER = f"""
import socket

_getaddrinfo = socket.getaddrinfo


def getaddrinfo(host, *rest, **named):
    return _getaddrinfo("127.0.0.1" if host in ({NAME!r}, {NAME.encode()!r}) else host, *rest, **named)


socket.getaddrinfo = getaddrinfo
"""


@dataclass(frozen=True, slots=True)
class Lasting:
    """A program that runs until Ctrl-C.

    Attributes:
        kind: Only one program of each kind can run at a time.
        looks: Pattern of its command line.
        ready: Pattern of the output that shows that it is ready.
    """

    kind: str
    looks: str
    ready: str


LASTING = (
    Lasting("relay", r"make demo", r"https?://\S+/c/"),
    Lasting("relay", r"twistd -n seance-relay|seance relay", "Client endpoint"),
    Lasting("agent", r"twistd -n seance-agent|seance agent", "Tunneling"),
    Lasting("server", r"npx .*y-websocket|node echo_server", "on port 1234"),
    Lasting("client", r"wscat", "Connected"),
    # It prints the response, and runs on if that is a 101.
    Lasting("question", r"curl -i", r"HTTP/1\.1 (101|200)"),
)


def typed_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page with commands to type."""
    return [block for block in blocks(page, "console") if not block.note.startswith(NOT_TYPED)]


def lines_of(block: Block) -> list[str]:
    """Return the lines after ``$``; a line that ends in a backslash is joined with the next."""
    text = block.text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def is_free(port: int) -> bool:
    """Return whether the port is free."""
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS).close()
    except OSError:
        return True
    return False


def interrupt(process: Process) -> None:
    """Send Ctrl-C to all processes of this terminal, including those that npx and make have started."""
    if process.exit_code is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(AssertionError):
            process.when_exited()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stop()


class Newcomer:
    """A new user. As a context manager it closes every terminal at its end.

    Args:
        folder: An empty folder for home and clone.
        venv: The virtual environment, created if it does not exist.
    """

    def __init__(self, folder: Path, venv: Path) -> None:
        require("git", "make", "npm", "node", "curl")
        self.home = folder / "home"
        self.clone = folder / "clone"
        self.home.mkdir()
        self._clone()
        self._venv = venv
        if not venv.exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            [packages] = venv.glob("lib/python*/site-packages")
            # Not sitecustomize, because Debian's Python has one that comes first.
            (packages / "newcomer_resolver.py").write_text(RESOLVER, "utf-8")
            (packages / "newcomer_resolver.pth").write_text("import newcomer_resolver\n", "utf-8")
        authority = Authority(folder)
        files = authority.issue(NAME)
        shutil.copy(files.chain, self.clone / "chain.pem")
        shutil.copy(files.key, self.clone / "key.pem")
        self._authority = authority.file
        self._terminals: dict[str, Process] = {}
        self._stack = contextlib.ExitStack()

    def _clone(self) -> None:
        """Copy the files that git tracks, and new ones that it does not ignore."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in names.split("\0"):
            source, target = ROOT / name, self.clone / name
            if name and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def type(self, line: str) -> None:
        """Type a line, and wait until it has ended or is ready."""
        folder = self.clone
        for part in re.split(r"\s&&\s", line):
            if part.startswith("cd "):
                folder = folder / part.removeprefix("cd ")
                continue
            lasting = next((one for one in LASTING if re.search(one.looks, part)), None)
            if lasting is None:
                self._run(part, folder)
            else:
                self._open_terminal(lasting, part, folder)

    def _run(self, line: str, folder: Path) -> None:
        argv = ["bash", "-c", line]
        result = subprocess.run(
            argv,
            cwd=folder,
            env=self._environment(line),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert result.returncode == 0, f"$ {line}\n{result.stdout}{result.stderr}"

    def _open_terminal(self, lasting: Lasting, line: str, folder: Path) -> None:
        if (earlier := self._terminals.pop(lasting.kind, None)) is not None:
            interrupt(earlier)
        keyboard, terminal = pty.openpty()
        self._stack.callback(os.close, keyboard)
        words = shlex.split(line)
        count = next(number for number, word in enumerate(words) if "=" not in word)
        exports = " ".join(words[:count])
        env = self._environment(line)
        command = f"{exports} exec {shlex.join(words[count:])}"
        # Without a terminal, wscat prints nothing and curl prints late.
        in_terminal = ["script", "-qec", command, "/dev/null"]
        asks = lasting.kind in ("client", "question")
        argv = ["setsid", *(in_terminal if asks else ["bash", "-c", command])]
        process = Process(argv, name=line, env=env, cwd=folder, stdin=terminal, may_show_tokens=True)
        os.close(terminal)
        self._terminals[lasting.kind] = process
        self._stack.callback(interrupt, process)
        patience = PATIENCE_SECONDS if words[count] in ("make", "npx") else START_SECONDS
        process.when_line(lasting.ready, deadline_seconds=patience)
        if lasting.kind == "client":
            os.write(keyboard, b"hello through the tunnel\r")
            process.when_line("< hello through the tunnel")

    def _environment(self, line: str) -> dict[str, str]:
        """Return the environment: package caches of the test's environment, and no variable of Seance."""
        ours = {name: "" for name in os.environ if name.startswith(("SEANCE_", "XDG_", "PYTHON"))}
        ours.pop("PYTHON", None)  # tells make which Python to use
        bins = [str(self._venv / "bin"), str(self.clone / "tests" / "peers" / "node_modules" / ".bin")]
        caches = {"PIP_CACHE_DIR": ".cache/pip", "npm_config_cache": ".npm"}
        env = {
            **ours,
            **{name: str(Path.home() / place) for name, place in caches.items()},
            "HOME": str(self.home),
            "PATH": os.pathsep.join([*bins, os.environ["PATH"]]),
            "PYTHONUNBUFFERED": "1",
            "npm_config_yes": "true",  # to npx, which asks before it installs
        }
        if line.startswith(("twistd", "seance")):
            env["SSL_CERT_FILE"] = str(self._authority)
        return env

    def __enter__(self) -> Self:
        for port in PORTS:
            until(f"port {port}, which the pages use, is free", lambda port=port: is_free(port))  # type: ignore[misc]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stack.close()
        if kind is None:
            for process in self._terminals.values():
                process.check_quiet()
