"""Makes relative paths in settings absolute, because ``twistd --rundir`` changes the directory after parsing.

A relative path refers to the directory in which the command was started. Without ``--rundir`` the paths stay
as they are, so that messages show them as they were written.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, TypeVar

from seance.core.settings import AgentSettings, RelaySettings
from seance.options import Program, options_of, parsers

__all__ = ["with_absolute_paths"]

Settings = TypeVar("Settings", bound=RelaySettings | AgentSettings)

_RELATIVE_SOCKET = re.compile(r"((?:haproxy:)?unix:(?:address=)?)(?!/)(.+)", re.DOTALL)

NO_PATHS = ("auto", "none")
"""Values of ``--identity`` that are not paths."""


def with_absolute_paths(settings: Settings, program: Program, folder: str) -> Settings:
    """Return the settings with absolute paths of files and UNIX sockets.

    The files inside an ``ssl:`` endpoint are not changed.

    Args:
        settings: The settings.
        program: The program that they belong to.
        folder: The directory that relative paths refer to.
    """
    changes: dict[str, Any] = {}
    for option in options_of(program):
        value = getattr(settings, option.field)
        if option.parse is parsers.file_path:
            make_absolute = _absolute_file
        elif option.parse in (parsers.listen_endpoint, parsers.admin_endpoint):
            make_absolute = _absolute_endpoint
        elif option.parse is parsers.local_server:
            make_absolute = _absolute_local
        else:
            continue
        if isinstance(value, str):
            changes[option.field] = make_absolute(value, folder)
        elif isinstance(value, tuple):
            changes[option.field] = tuple(make_absolute(one, folder) for one in value)
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
