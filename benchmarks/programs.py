"""Run pairs of relay and agent as processes, and read their CPU time and memory from the kernel.

A pair is two commands: ours, or the yardstick's, which is the original design in Go (hashicorp/yamux,
gorilla/websocket, bytes spliced, no other features). The yardstick is not part of this repository;
``--yardstick`` names its folder. ``pairs.py`` and ``memory.py`` use this module; it is not a program.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "COMPILED",
    "ROOM",
    "ROOT",
    "Pair",
    "Running",
    "Yardstick",
    "cpu_seconds",
    "free_port",
    "ours",
    "own_and_kernel_seconds",
    "resident_bytes",
    "running",
    "running_pair",
    "why_no_yardstick",
]

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "build" / "yardstick"
COMPILED = ROOT / "build" / "compiled"
ROOM = "test-room"

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The commands of a relay and an agent, with ``{relay}`` and ``{local}`` for ports.

    Attributes:
        name: Name in tables.
        relay: The relay's command.
        agent: The agent's command.
        folder: Working directory; for our pair the folder of the package.
    """

    name: str
    relay: tuple[str, ...]
    agent: tuple[str, ...]
    folder: Path = ROOT


@dataclass(frozen=True, slots=True)
class Running:
    """A pair that runs, and its local server.

    Attributes:
        relay: Process id of the relay.
        agent: Process id of the agent.
        port: Port of the relay on 127.0.0.1.
    """

    relay: int
    agent: int
    port: int

    @property
    def url(self) -> str:
        """Return the address for clients."""
        return f"ws://127.0.0.1:{self.port}/client?room={ROOM}"


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The yardstick, built: its pair and its load program."""

    pair: Pair
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
        relay = (str(programs["relay"]), "-addr", "127.0.0.1:{relay}")
        agent = (
            str(programs["agent"]),
            "-url",
            f"ws://127.0.0.1:{{relay}}/agent?room={ROOM}",
            "-local",
            "127.0.0.1:{local}",
        )
        return cls(Pair("Go", relay, agent), str(programs["load"]))


def why_no_yardstick(source: Path) -> str | None:
    """Return a message if the yardstick cannot be built, otherwise None."""
    if not list((source / "relay").glob("*.go")):
        return f"There is no yardstick at {source}; name it with make bench YARDSTICK=path."
    if shutil.which("go") is None:
        return "The yardstick is written in Go, and there is no go on the PATH."
    return None


def ours(name: str = "Seance", folder: Path = ROOT) -> Pair:
    """Return our own pair, of this checkout, or of another folder with the package in it."""
    seance = (sys.executable, "-m", "seance")
    agent = ("--relay", "ws://127.0.0.1:{relay}", "--room", ROOM, "--local", "127.0.0.1:{local}")
    return Pair(
        name,
        (*seance, "relay", "--listen", "tcp:{relay}:interface=127.0.0.1", "--admin", "none"),
        (*seance, "agent", *agent, "--identity", "none"),
        folder,
    )


@contextlib.contextmanager
def running_pair(pair: Pair, local_port: int) -> Iterator[Running]:
    """Run a connected pair for the duration of a ``with`` block."""
    ports = {"relay": free_port(), "local": local_port}
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(running([word.format(**ports) for word in pair.relay], pair.folder))
        _until_open(ports["relay"])
        agent = stack.enter_context(running([word.format(**ports) for word in pair.agent], pair.folder))
        found = Running(relay, agent, ports["relay"])
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
    """Return the CPU seconds of a process so far."""
    return sum(own_and_kernel_seconds(pid))


def own_and_kernel_seconds(pid: int) -> tuple[float, float]:
    """Return user and system time of a process so far, in seconds (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / ticks, int(fields[12]) / ticks


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
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", pair.port), 2) as client:
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
