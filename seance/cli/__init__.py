"""The ``seance`` command.

Each command is a function ``main(arguments) -> int | None``. Its module is imported when the command is used,
so ``seance relay`` does not need the extra packages of the demo. ``COMMANDS`` lists the commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from seance import __version__
from seance.compiled import is_compiled

__all__ = ["COMMANDS", "main"]

BROKEN_PIPE = 1
"""The exit status if the reader of stdout has ended (``| head``)."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as in shells: 128 plus the number of the signal."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        target: ``module:function``; the function gets the arguments and returns the exit status.
        help: Description of the command, for ``seance --help``.
    """

    target: str
    help: str


COMMANDS = {
    "relay": Command("seance.relay_tap:main", "run a relay, as twistd -n seance-relay does"),
    "agent": Command("seance.agent_tap:main", "run an agent, as twistd -n seance-agent does"),
    "demo": Command("seance.demo:main", "run relay, agent and a shared text editor on this machine"),
    "bench": Command("seance.bench:main", "measure a tunnel on this machine against the direct connection"),
    "check": Command("seance.check:main", "check a tunnel: clients, Yjs, fidelity, speed; one report"),
    "doctor": Command(
        "seance.doctor:main", "check each hop on the way to a room, and name the one that fails"
    ),
    "health": Command(
        "seance.cli.health_check:main",
        "check the relay or agent on this machine, for health checks of containers",
    ),
    "status": Command("seance.cli.status:main", "show the rooms of a relay and their clients"),
    "keygen": Command("seance.cli.tokens:keygen", "make a key that signs access tokens"),
    "token": Command("seance.cli.tokens:token", "make an access token"),
    "share": Command("seance.cli.tokens:share", "make a link that gives access to one room"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Ctrl-C, and a reader of stdout that ends, cause an exit status without a traceback. Commands that run a
    reactor handle Ctrl-C themselves.

    Args:
        arguments: The arguments after ``seance``; by default those of the process.

    Raises:
        SystemExit: An option is invalid, or the help was printed.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # it is None if stdout was closed when the process started
                sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes the buffer again when it ends; that must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    word, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if word in ("--help", "-h", "help"):
        print(_help(), end="")
        return 0
    if word == "--version":
        print(f"seance-tunnel {__version__}{', compiled' if is_compiled() else ''}")
        return 0
    command = COMMANDS.get(word)
    if command is None:
        problem = f"{word!r} is not a command" if word else "a command is missing"
        print(f"seance: {problem}; write one of {', '.join(COMMANDS)}, or --help.", file=sys.stderr)
        return 1
    module, _, function = command.target.partition(":")
    status = getattr(import_module(module), function)(rest)
    return int(status or 0)


def _help() -> str:
    lines = ["Usage: seance COMMAND [options]", "", "Commands:"]
    lines += [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    lines += ["", "seance COMMAND --help lists the options of a command.", ""]
    return "\n".join(lines)
