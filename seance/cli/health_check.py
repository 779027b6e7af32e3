"""``seance health``: checks the relay or agent on this machine; for health checks of containers.

It needs no option, address or certificate, because it finds the sockets of the programs
(``seance.cli.health_socket``). It imports few modules, because container platforms run it every few seconds.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from seance.cli.arguments import Parser

__all__ = ["main"]

COMMAND = "seance health"

ANSWER_SECONDS = 2.0
"""Time for an answer. Docker's HEALTHCHECK in our image allows 5 s for the whole command."""

MAX_ANSWER_BYTES = 16 * 1024

SOCKETS = Path("/proc/net/unix")

PROGRAMS = ("relay", "agent")


class CheckError(Exception):
    """A program is not healthy, or does not answer."""


def main(arguments: Sequence[str]) -> int:
    """Run ``seance health``; return the exit status.

    Args:
        arguments: The command line after the command.

    Raises:
        SystemExit: An option is invalid, or the help was printed.
    """
    parsed = _parser().parse_args(list(arguments))
    try:
        found = _processes() if parsed.pid is None else [parsed.pid]
        messages = [
            message
            for pid in found
            if (message := _query(pid, parsed.program, attached=parsed.attached)) is not None
        ]
        if not messages:
            raise CheckError(f"No {parsed.program or 'relay or agent'} of this user runs here.")
    except CheckError as error:
        sys.stderr.write(f"{COMMAND}: {error}\n")
        return 1
    sys.stdout.write("".join(f"{message}\n" for message in messages))
    return 0


def _processes() -> list[int]:
    """Return the processes that have a health socket in this process namespace.

    Raises:
        CheckError: This system has no such sockets.
    """
    # The prefix is not imported from seance.cli.health_socket: that imports the whole relay and takes 0.3 s.
    try:
        prefix = f"@seance-health/{os.stat('/proc/self/ns/pid').st_ino}/"
        lines = SOCKETS.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        message = "This needs Linux with /proc; elsewhere request /health of a relay, or /healthz of --admin."
        raise CheckError(message) from error
    names = {line.rpartition(" ")[2] for line in lines}
    pids = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(pid) for pid in pids if pid.isdecimal())


def _query(pid: int, program: str | None, *, attached: bool) -> str | None:
    """Return the message of a healthy process; None if another user or another program runs there.

    Raises:
        CheckError: The process is not healthy or does not answer; or, with ``attached``, it is not connected
            to its relay.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(f"\0seance-health/{os.stat('/proc/self/ns/pid').st_ino}/{pid}")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            owner, user, _ = struct.unpack("3i", credentials)
            if owner != pid or (os.getuid() not in (0, user)):
                return None  # the socket is another user's, or another process has its name
            text = _read_line(connection)
        except TimeoutError as error:
            raise CheckError(f"Process {pid} does not answer within {ANSWER_SECONDS:g} s.") from error
        except ConnectionRefusedError as error:
            raise CheckError(f"Process {pid} is not a relay or agent, or has ended.") from error
        except OSError as error:
            raise CheckError(f"Process {pid} cannot be reached: {error.strerror or error}.") from error
    try:
        health = json.loads(text)
        name, message = str(health["program"]), str(health["sentence"])
        is_healthy, is_attached = health["healthy"] is True, health["attached"] is True
    except (ValueError, KeyError, TypeError) as error:
        raise CheckError(f"Process {pid} did not answer with its health.") from error
    if program not in (None, name):
        return None
    if not is_healthy or (attached and name == "agent" and not is_attached):
        raise CheckError(message)
    return message


def _read_line(connection: socket.socket) -> bytes:
    received = b""
    while len(received) < MAX_ANSWER_BYTES:
        data = connection.recv(4096)
        if not data:
            break
        received += data
    return received


def _parser() -> Parser:
    parser = Parser(
        "health",
        "Checks the relay or agent that runs on this machine, or in this container, and was started by the "
        "same user. A relay is healthy while it accepts connections; an agent while it runs, with or "
        "without its relay.",
        epilog="Exit status: 0 healthy; 1 not healthy, nothing runs, or an option is invalid.",
    )
    add = parser.add_argument
    add("program", metavar="PROGRAM", nargs="?", choices=PROGRAMS, help="check relays or agents only")
    add("--attached", action="store_true", help="an agent is healthy only while connected to its relay")
    add("--pid", metavar="PID", type=int, help="check this process only")
    return parser
