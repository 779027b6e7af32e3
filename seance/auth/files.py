"""Files that are read again when they change: keys, key sets, the deny list.

The rule for all of them: what was good once stays in force until something good replaces it. A file
that is half written, or gone because a volume is away for a moment, must neither throw people
out nor let anybody in who was denied; it costs one line in the log. So deleting a file takes nothing
back: an empty JWK set (``{"keys": []}``) or an empty deny list is how to say *none*.

Called by ``seance.auth.service``, which has the clock. Reading blocks, for files of a few KiB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from twisted.logger import Logger

from seance.auth.deny import LONGEST_DENY_FILE, DenyList, deny_list_from_text
from seance.auth.jwks import keys_from_jwks
from seance.auth.key_files import LONGEST_KEY_FILE, is_open_to_others
from seance.auth.keys import Key, keys_from_text
from seance.auth.reading import read_bounded
from seance.errors import ConfigError

__all__ = ["WatchedFile", "deny_file", "key_file", "key_set_file"]

T = TypeVar("T")

_log = Logger()


class WatchedFile(Generic[T]):
    """One file and what it says.

    Call ``load`` once, then ``look`` as often as you like.

    Args:
        path: Where it is.
        parse: Makes what it says from its bytes and its state, or raises ValueError with half
            a sentence.
        limit_bytes: It may not be longer.
        what: What to call it in sentences, such as ``key file``.

    Attributes:
        content: What it said when it was last good.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes, os.stat_result], T],
        *,
        limit_bytes: int,
        what: str,
    ) -> None:
        self.content: T
        self._path = path
        self._parse = parse
        self._limit_bytes = limit_bytes
        self._what = what
        self._seen: tuple[int, ...] | None = None

    def load(self) -> None:
        """Read it for the first time.

        Raises:
            ConfigError: It cannot be read or makes no sense.
        """
        self._seen = self._state()
        try:
            self._read()
        except OSError as error:
            msg = f"The {self._what} {self._path} cannot be read ({error.strerror})."
            raise ConfigError(msg, code="auth_file") from error
        except ValueError as error:
            msg = f"The {self._what} {self._path} {error}."
            raise ConfigError(msg, code="auth_file") from error

    def look(self, *, force: bool = False) -> bool:
        """Read it again if it has changed, or in any case with ``force``.

        Returns:
            Whether it says something else now. If it makes no sense, it does not.
        """
        state = self._state()
        if state == self._seen and not force:
            return False
        self._seen = state
        try:
            return self._read()
        except OSError as error:
            self._warn(f"cannot be read ({error.strerror})")
        except ValueError as error:
            self._warn(str(error))
        return False

    def _read(self) -> bool:
        content = self._parse(*read_bounded(self._path, self._limit_bytes))
        is_new = content != getattr(self, "content", None)
        self.content = content
        return is_new

    def _state(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode

    def _warn(self, problem: str) -> None:
        _log.warn(
            "The {what} {path} {problem}; what it said before stays in force.",
            what=self._what,
            path=str(self._path),
            problem=problem,
            event="auth.file_kept",
        )


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
