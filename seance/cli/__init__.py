"""The ``seance`` command: which word starts what.

Every command is a function ``main(arguments) -> int | None`` in a module that is imported when the
command is used, so that ``seance relay`` needs nothing of the demo's extra packages. A new command
is one line in the table.
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

CUT_OFF = 1
"""The exit status when whoever read what we write has gone (``| head``)."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it: 128 and the number of the signal."""


@dataclass(frozen=True, slots=True)
class Command:
    """One word after ``seance``.

    Attributes:
        target: ``module:function``; the function gets the arguments and returns the exit status.
        help: What it does, for the list of commands.
    """

    target: str
    help: str


COMMANDS = {
    "relay": Command("seance.relay_tap:main", "run a relay, as twistd -n seance-relay does"),
    "agent": Command("seance.agent_tap:main", "run an agent, as twistd -n seance-agent does"),
    "demo": Command("seance.demo:main", "run relay, agent and a shared text editor on this machine"),
    "bench": Command("seance.bench:main", "measure a tunnel on this machine against the direct connection"),
    "check": Command("seance.check:main", "check a tunnel: clients, Yjs, fidelity, speed; one report"),
    "doctor": Command("seance.doctor:main", "walk the way to a room, and name the hop that fails"),
    "health": Command(
        "seance.cli.health_check:main", "check the relay or agent that runs here, for containers"
    ),
    "status": Command("seance.cli.status:main", "show the rooms of a relay and their clients"),
    "keygen": Command("seance.cli.tokens:keygen", "make a key that signs access tokens"),
    "token": Command("seance.cli.tokens:token", "make an access token"),
    "share": Command("seance.cli.tokens:share", "make a link that lets its bearer into one room"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    A reader that goes and Ctrl-C are ordinary ends, with a status and without a traceback. Commands with
    a reactor see to Ctrl-C themselves.

    Args:
        arguments: What was typed after ``seance``; the process's own arguments by default.

    Raises:
        SystemExit: The command found an option wrong, or only had to show its help.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # as it is where stdout was closed from the first
                sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer must not be tried once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
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
