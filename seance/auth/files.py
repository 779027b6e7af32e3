"""Watched files for keys, key sets and the deny list.

``seance.net.files`` reads them again after a change, and keeps the last valid content. Deleting a file
revokes nothing; write an empty JWK set (``{"keys": []}``) or an empty deny list instead.

``seance.auth.service`` uses these classes. Reading blocks, but the files have only a few KiB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.logger import Logger

from seance.auth.deny import MAX_DENY_FILE_BYTES, DenyList, deny_list_from_text
from seance.auth.jwks import keys_from_jwks
from seance.auth.key_files import MAX_KEY_FILE_BYTES, is_open_to_others
from seance.auth.keys import Key, keys_from_text
from seance.errors import ConfigError
from seance.net import WatchedFiles, read_bounded

__all__ = ["WatchedFile", "deny_file", "key_file", "key_set_file"]

T = TypeVar("T")

_log = Logger()


class WatchedFile(WatchedFiles[T]):
    """One file and its parsed content.

    Args:
        path: The file.
        parse: Returns the content for the bytes and the file's status, or raises ValueError; for its
            message see ``keys_from_text``.
        limit_bytes: Maximum size of the file.
        what: Noun for the file in messages, such as ``key file``.
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
    """Return a watched key file. Only the verifying part of the keys is kept in memory."""

    def parse(text: bytes, status: os.stat_result) -> tuple[Key, ...]:
        keys = keys_from_text(text)
        if is_open_to_others(status) and any(key.signing is not None for key in keys):
            _log.warn(
                "The key file {path} contains a signing key and can be read by others; run chmod 600 {path}",
                path=str(path),
                event="auth.key_exposed",
            )
        return tuple(key.without_signing() for key in keys)

    return WatchedFile(path, parse, limit_bytes=MAX_KEY_FILE_BYTES, what="key file")


def key_set_file(path: Path) -> WatchedFile[tuple[Key, ...]]:
    """Return a watched file with the key set of another issuer."""
    return WatchedFile(
        path, lambda text, _: keys_from_jwks(text), limit_bytes=MAX_KEY_FILE_BYTES, what="key set"
    )


def deny_file(path: Path) -> WatchedFile[DenyList]:
    """Return a watched deny list."""
    return WatchedFile(
        path, lambda text, _: deny_list_from_text(text), limit_bytes=MAX_DENY_FILE_BYTES, what="deny list"
    )
