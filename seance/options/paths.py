"""Relative paths in settings, made absolute: ``twistd --rundir`` changes the directory once options are read.

A relative path means the directory in which the command was typed. Without ``--rundir`` nothing is changed,
so that messages show a path as it was written.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, TypeVar

from seance.core.settings import AgentSettings, RelaySettings
from seance.options import Program, options_of, values

__all__ = ["with_absolute_paths"]

Settings = TypeVar("Settings", bound=RelaySettings | AgentSettings)

_RELATIVE_SOCKET = re.compile(r"((?:haproxy:)?unix:(?:address=)?)(?!/)(.+)", re.DOTALL)

NO_PATHS = ("auto", "none")
"""What ``--identity`` takes besides a path."""


def with_absolute_paths(settings: Settings, program: Program, folder: str) -> Settings:
    """Return settings whose files and UNIX sockets are found from any directory.

    The files inside an ``ssl:`` endpoint are not changed.

    Args:
        settings: As the options say.
        program: Which options these are.
        folder: The directory that relative paths mean.
    """
    changes: dict[str, Any] = {}
    for option in options_of(program):
        value = getattr(settings, option.field)
        if option.parse is values.file_path:
            read = _absolute_file
        elif option.parse in (values.listen_endpoint, values.admin_endpoint):
            read = _absolute_endpoint
        elif option.parse is values.local_server:
            read = _absolute_local
        else:
            continue
        if isinstance(value, str):
            changes[option.field] = read(value, folder)
        elif isinstance(value, tuple):
            changes[option.field] = tuple(read(one, folder) for one in value)
    return replace(settings, **changes)


def _absolute_file(text: str, folder: str) -> str:
    return text if text in NO_PATHS or "://" in text else os.path.join(folder, text)


def _absolute_endpoint(text: str, folder: str) -> str:
    match = _RELATIVE_SOCKET.fullmatch(text)
    if match is None:
        return text
    escaped = re.sub(r"([\\:=])", r"\\\1", folder)
    return f"{match[1]}{escaped}/{match[2]}"


def _absolute_local(text: str, folder: str) -> str:
    path = text.removeprefix("unix:")
    return text if path == text else f"unix:{os.path.join(folder, path)}"
