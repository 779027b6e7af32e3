"""Run pairs of relay and agent as processes, and read their CPU time and memory from the kernel.

A pair is two commands: ours, or the yardstick's, which is the original design in Go (hashicorp/yamux,
gorilla/websocket, bytes spliced, no other features). The yardstick is not part of this repository;
``--yardstick`` names its folder. This module also writes the tables of a page. It is not a program.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.certificates import Authority  # noqa: E402  # the checkout is on the path now

__all__ = [
    "COMPILED",
    "ROOM",
    "ROOT",
    "Pair",
    "Running",
    "Tls",
    "Yardstick",
    "cpu_seconds",
    "free_port",
    "ours",
    "resident_bytes",
    "running",
    "running_pair",
    "table",
    "why_no_yardstick",
    "write_between_marks",
]

BUILT = ROOT / "build" / "yardstick"
COMPILED = ROOT / "build" / "compiled"
ROOM = "test-room"

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a certificate for 127.0.0.1, with a P-256 key."""

    ca: str
    cert: str
    key: str

    @classmethod
    def make(cls, folder: Path) -> Tls:
        """Make the files; they are valid for an hour."""
        authority = Authority(folder)
        files = authority.issue("127.0.0.1")
        return cls(str(authority.file), str(files.chain), str(files.key))


@dataclass(frozen=True, slots=True)
class Pair:
    """The commands of a relay and an agent, with ``{relay}`` and ``{local}`` for ports.

    Attributes:
        name: Name in tables.
        relay: The relay's command.
        agent: The agent's command.
        folder: Working directory; for our pair the folder of the package.
        ca: The CA file of its certificate; None without TLS.
    """

    name: str
    relay: tuple[str, ...]
    agent: tuple[str, ...]
    folder: Path = ROOT
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A pair that runs, and its local server.

    Attributes:
        relay: Process id of the relay.
        agent: Process id of the agent.
        port: Port of the relay on 127.0.0.1.
        ca: The CA file of its certificate; None without TLS.
    """

    relay: int
    agent: int
    port: int
    ca: str | None = None

    @property
    def url(self) -> str:
        """Return the address for clients."""
        return f"{'wss' if self.ca else 'ws'}://127.0.0.1:{self.port}/client?room={ROOM}"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The yardstick, built: the paths of its programs."""

    relay: str
    agent: str
    load: str

    @classmethod
    def build(cls, source: Path) -> Yardstick:
        """Compile it into ``build/yardstick``, unless the result is newer than the source."""
        programs = {name: BUILT / "bin" / name for name in ("relay", "agent", "load")}
        if not all(_is_newer(program, source) for program in programs.values()):
            shutil.rmtree(BUILT, ignore_errors=True)
            shutil.copytree(source, BUILT, ignore=shutil.ignore_patterns("bin"))
            for path in [BUILT, *BUILT.rglob("*")]:
                path.chmod(path.stat().st_mode | 0o200)
            _go("mod", "tidy")
            for name, program in programs.items():
                _go("build", "-o", str(program), f"./{name}")
        return cls(**{name: str(program) for name, program in programs.items()})

    def pair(self, tls: Tls | None) -> Pair:
        """Return its relay and agent, with TLS on both legs or on none."""
        url = f"{'wss' if tls else 'ws'}://127.0.0.1:{{relay}}/agent?room={ROOM}"
        relay = (self.relay, "-addr", "127.0.0.1:{relay}")
        agent = (self.agent, "-url", url, "-local", "127.0.0.1:{local}")
        if tls is None:
            return Pair("Go", relay, agent)
        return Pair("Go", (*relay, "-cert", tls.cert, "-key", tls.key), (*agent, "-ca", tls.ca), ca=tls.ca)


def why_no_yardstick(source: Path) -> str | None:
    """Return a message if the yardstick cannot be built, otherwise None."""
    if not list((source / "relay").glob("*.go")):
        return f"There is no yardstick at {source}; name it with make bench YARDSTICK=path."
    if shutil.which("go") is None:
        return "The yardstick is written in Go, and there is no go on the PATH."
    return None


def ours(tls: Tls | None = None, folder: Path = ROOT) -> Pair:
    """Return our own pair, of this checkout, or of another folder with the package in it."""
    seance = (sys.executable, "-m", "seance")
    relay = (*seance, "relay", "--listen", "tcp:{relay}:interface=127.0.0.1", "--admin", "none")
    url = f"{'wss' if tls else 'ws'}://127.0.0.1:{{relay}}"
    agent = (
        *seance,
        "agent",
        "--relay",
        url,
        "--room",
        ROOM,
        "--local",
        "127.0.0.1:{local}",
        "--identity",
        "none",
    )
    if tls is None:
        return Pair("Seance", relay, agent, folder)
    relay = (*relay, "--tls-cert", tls.cert, "--tls-key", tls.key)
    return Pair("Seance", relay, (*agent, "--tls-ca", tls.ca), folder, tls.ca)


@contextlib.contextmanager
def running_pair(pair: Pair, local_port: int) -> Iterator[Running]:
    """Run a connected pair for the duration of a ``with`` block."""
    ports = {"relay": free_port(), "local": local_port}
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(running([word.format(**ports) for word in pair.relay], pair.folder))
        _until_open(ports["relay"])
        agent = stack.enter_context(running([word.format(**ports) for word in pair.agent], pair.folder))
        found = Running(relay, agent, ports["relay"], pair.ca)
        _until_connected(found)
        yield found


@contextlib.contextmanager
def running(argv: Sequence[str], folder: Path = ROOT) -> Iterator[int]:
    """Run a program for the duration of a ``with`` block; yield its process id."""
    path = os.environ.get("PYTHONPATH")
    env = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{path}" if path else str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder)  # noqa: S603  # ours
    said: list[bytes] = []
    assert process.stderr is not None
    reading = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    reading.start()
    try:
        yield process.pid
        if process.poll() is not None:
            sys.exit(f"{argv[0]} ended with {process.returncode}: {b''.join(said[-5:]).decode()}")
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reading.join(5)


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process so far, in seconds (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process (proc(5))."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    assert found is not None, "the process has ended"
    return int(found[1]) * 1024


def free_port() -> int:
    """Return a loopback port that was free when it was checked."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def write_between_marks(page: Path, mark: str, text: str) -> None:
    """Replace the text between two marks of a page."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        sys.exit(f"{page} has no marks {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def _until_open(port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def _until_connected(pair: Running) -> None:
    """Connect as a client until the response is 101, which shows that the agent is attached."""
    head = (
        f"GET /client?room={ROOM} HTTP/1.1\r\nHost: 127.0.0.1:{pair.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    context = ssl.create_default_context(cafile=pair.ca) if pair.ca else None
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", pair.port), 2) as plain:
            client = context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain
            client.sendall(head.encode())
            if client.recv(64).startswith(b"HTTP/1.1 101"):
                return
        time.sleep(0.1)
    sys.exit("the agent did not come to its relay")


def _is_newer(program: Path, source: Path) -> bool:
    newest = max(path.stat().st_mtime for path in source.rglob("*") if path.is_file())
    return program.is_file() and program.stat().st_mtime > newest


def _go(*words: str) -> None:
    done = subprocess.run(["go", *words], cwd=BUILT, capture_output=True, text=True)  # noqa: S603, S607  # a developer's go
    if done.returncode:
        sys.exit(f"go {' '.join(words)} failed:\n{done.stderr}")
