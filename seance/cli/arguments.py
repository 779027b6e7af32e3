"""The command line of a command that a person types: what is wrong with it is said in one sentence.

For commands without a config file and without an environment of their own (the demo, doctor, check, bench,
status, and those for tokens); ``seance relay`` and ``seance agent`` have ``seance.options``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["Parser", "checked", "port_number"]


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence.

    Args:
        command: What comes after ``seance``.
        description: What it does, for ``--help``.
        status: The exit status of a wrong option.
        more: For argparse.
    """

    def __init__(self, command: str, description: str, *, status: int = 1, **more: Any) -> None:  # noqa: ANN401
        super().__init__(prog=f"seance {command}", description=description, allow_abbrev=False, **more)
        self._status = status

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end."""
        self.exit(self._status, f"{self.prog}: {message}; see {self.prog} --help.\n")


def checked(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``read`` with its complaints turned into argparse's."""

    def check(text: str) -> Any:  # noqa: ANN401  # whatever the option is
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return check


def port_number(text: str) -> int:
    """A port, 0 for a free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        msg = f"{text!r} is not a port; write a number from 0 to 65535"
        raise ValueError(msg)
    return int(text)
