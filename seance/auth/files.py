"""The files of keys, key sets and the deny list, which are read again when they change.

How that is done, and that what was good stays in force, is ``seance.net.files``. Deleting a file takes
nothing back: an empty JWK set (``{"keys": []}``) or an empty deny list is how to say *none*.

Called by ``seance.auth.service``, which has the clock. Reading blocks, for files of a few KiB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.logger import Logger

from seance.auth.deny import LONGEST_DENY_FILE, DenyList, deny_list_from_text
from seance.auth.jwks import keys_from_jwks
from seance.auth.key_files import LONGEST_KEY_FILE, is_open_to_others
from seance.auth.keys import Key, keys_from_text
from seance.errors import ConfigError
from seance.net import WatchedFiles, read_bounded

__all__ = ["WatchedFile", "deny_file", "key_file", "key_set_file"]

T = TypeVar("T")

_log = Logger()


class WatchedFile(WatchedFiles[T]):
    """One file and what it says.

    Args:
        path: Where it is.
        parse: Makes what it says from its bytes and its state, or raises ValueError with half
            a sentence.
        limit_bytes: It may not be longer.
        what: What to call it in sentences, such as ``key file``.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes, os.stat_result], T],
        *,
        limit_bytes: int,
        what: str,
    ) -> None:
        def read() -> T:
            try:
                return parse(*read_bounded(path, limit_bytes))
            except OSError as error:
                msg = f"The {what} {path} cannot be read ({error.strerror})."
                raise ConfigError(msg, code="auth_file") from error
            except ValueError as error:
                msg = f"The {what} {path} {error}."
                raise ConfigError(msg, code="auth_file") from error

        super().__init__((path,), read)


def key_file(path: Path) -> WatchedFile[tuple[Key, ...]]:
    """Return a key file, of which only what verifies is kept."""

    def parse(text: bytes, status: os.stat_result) -> tuple[Key, ...]:
        keys = keys_from_text(text)
        if is_open_to_others(status) and any(key.signing is not None for key in keys):
            _log.warn(
                "The key file {path} can sign tokens and others can read it: chmod 600 {path}",
                path=str(path),
                event="auth.key_exposed",
            )
        return tuple(key.without_signing() for key in keys)

    return WatchedFile(path, parse, limit_bytes=LONGEST_KEY_FILE, what="key file")


def key_set_file(path: Path) -> WatchedFile[tuple[Key, ...]]:
    """Return a file with somebody else's key set."""
    return WatchedFile(
        path, lambda text, _: keys_from_jwks(text), limit_bytes=LONGEST_KEY_FILE, what="key set"
    )


def deny_file(path: Path) -> WatchedFile[DenyList]:
    """Return the file of a deny list."""
    return WatchedFile(
        path, lambda text, _: deny_list_from_text(text), limit_bytes=LONGEST_DENY_FILE, what="deny list"
    )
