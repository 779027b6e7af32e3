"""An argument parser that reports an invalid option in one message.

Used by the commands without a config file (demo, doctor, check, bench, health, status, keygen, token, share);
``seance relay`` and ``seance agent`` use ``seance.options``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["Parser", "checked", "port_number"]


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` for one command of ``seance``.

    Args:
        command: The word after ``seance``.
        description: Description of the command, for ``--help``.
        status: The exit status after an invalid option.
        more: Arguments of ``ArgumentParser``.
    """

    def __init__(self, command: str, description: str, *, status: int = 1, **more: Any) -> None:  # noqa: ANN401
        super().__init__(prog=f"seance {command}", description=description, allow_abbrev=False, **more)
        self._status = status

    def error(self, message: str) -> NoReturn:
        """Print the message to stderr and exit."""
        self.exit(self._status, f"{self.prog}: {message}; see {self.prog} --help.\n")


def checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``read`` with its ``ValueError`` turned into argparse's error, which keeps the message."""

    def check(text: str) -> Any:  # noqa: ANN401  # the type of the option
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return check


def port_number(text: str) -> int:
    """Parse a port; 0 means a free port."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        msg = f"{text!r} is not a port; write a number from 0 to 65535"
        raise ValueError(msg)
    return int(text)
