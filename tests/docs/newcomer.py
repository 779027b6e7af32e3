"""Somebody who types what a page says, in a fresh clone, with a fresh environment and an empty home.

A line is typed as it stands. What goes on until Ctrl-C has a terminal of its own and is waited for until it
says that it is ready; when another of its kind is started, the first is ended, since both want the same port.
Everything else has to end with status 0.

Two things are arranged, because no page can: ``relay.example`` is this machine, and in the clone there is a
certificate for it that the system believes.
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
"""How the comment before a block begins that nobody types in a test; behind it stands why."""

PORTS = (443, 1234, 8080, 9090)
"""What the pages use; a program of somebody else's on one of them is in the way."""

PATIENCE_SECONDS = 400.0
"""For what installs."""

START_SECONDS = 60.0
"""For what is there and has to start, on a slow machine."""

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
    """A program that goes on until Ctrl-C.

    Attributes:
        kind: Two of a kind cannot run at once.
        looks: What its line looks like.
        ready: What it says when it is ready.
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
    # It shows the answer, and stays if that is a 101.
    Lasting("question", r"curl -i", r"HTTP/1\.1 (101|200)"),
)


def typed_blocks(page: Path) -> list[Block]:
    """What a page has one type, but for what it says is not typed here."""
    return [block for block in blocks(page, "console") if not block.note.startswith(NOT_TYPED)]


def lines_of(block: Block) -> list[str]:
    """The lines behind ``$``; one that ends in a backslash goes on in the next."""
    text = block.text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]


def is_free(port: int) -> bool:
    """Whether nobody on this machine listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS).close()
    except OSError:
        return True
    return False


def interrupt(process: Process) -> None:
    """Ctrl-C: everything that was begun in this terminal hears it, also what npx and make have started."""
    if process.exit_code is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(AssertionError):
            process.when_exited()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stop()


class Newcomer:
    """The person. A context: at its end every terminal is closed.

    Args:
        folder: An empty one: home, clone and environment are made in it.
        venv: The environment, made if it is not there.
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
            # Not sitecustomize: Debian's Python has one of its own, which comes first.
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
        """What git would have: files that are known, or new and not ignored."""
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in names.split("\0"):
            source, target = ROOT / name, self.clone / name
            if name and source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def type(self, line: str) -> None:
        """Type a line, and wait until it has done what it does."""
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
        # wscat shows nothing to what is no terminal, and curl shows it late.
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
        """Of the tests' own environment only where packages come from, and nothing that is ours."""
        ours = {name: "" for name in os.environ if name.startswith(("SEANCE_", "XDG_", "PYTHON"))}
        ours.pop("PYTHON", None)  # says to make which one is to be used
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
