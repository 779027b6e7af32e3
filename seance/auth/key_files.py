"""Key files on disk: written once and for their owner alone, read with a look at who else may.

A file is never overwritten: a key that is gone takes every token with it that it has signed, and
the person who typed ``seance keygen`` a second time did not mean that.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from seance.auth.keys import Key, keys_from_text
from seance.errors import ConfigError
from seance.net import read_bounded

__all__ = ["LONGEST_KEY_FILE", "is_open_to_others", "public_path", "signing_key_from_file", "write_key"]

LONGEST_KEY_FILE = 64 * 1024

OWNER_ONLY = 0o600
EVERYBODY_READS = 0o644


def public_path(path: Path) -> Path:
    """Return where the public part of a key belongs: beside it."""
    return path.with_name(path.name + ".pub")


def write_key(path: Path, key: Key) -> Path | None:
    """Write a key, with mode 0600, and its public part beside it.

    Returns:
        Where the public part is; None for a shared secret, which has none.

    Raises:
        ConfigError: There is such a file already, or it cannot be written.
    """
    _write_new(path, key.private_jwk(), OWNER_ONLY)
    if key.is_shared:
        return None
    beside = public_path(path)
    try:
        _write_new(beside, key.public_jwk(), EVERYBODY_READS)
    except ConfigError:
        path.unlink()
        raise
    return beside


def signing_key_from_file(path: Path) -> Key:
    """Return the one key of a file, for signing.

    Raises:
        ConfigError: It cannot be read, holds something else, or the public part alone.
    """
    try:
        keys = keys_from_text(read_bounded(path, LONGEST_KEY_FILE)[0])
    except OSError as error:
        msg = f"The key file {path} cannot be read ({error.strerror})."
        raise ConfigError(msg, code="key_file") from error
    except ValueError as error:
        msg = f"The key file {path} {error}."
        raise ConfigError(msg, code="key_file") from error
    if len(keys) != 1:
        msg = f"The key file {path} holds {len(keys)} keys; name a file with the one that shall sign."
        raise ConfigError(msg, code="key_file")
    if keys[0].signing is None:
        msg = f"The key file {path} holds the public part alone, which cannot sign; name the private one."
        raise ConfigError(msg, code="key_file")
    return keys[0]


def is_open_to_others(status: os.stat_result) -> bool:
    """Whether others than the owner may read a file; always False where modes mean nothing."""
    return os.name == "posix" and bool(stat.S_IMODE(status.st_mode) & 0o077)


def _write_new(path: Path, jwk: Mapping[str, str], mode: int) -> None:
    try:
        # With O_EXCL a link that somebody has put there is not followed either.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps(jwk) + "\n")
    except FileExistsError as error:
        msg = f"{path} is there already and is not overwritten; choose another name with --out."
        raise ConfigError(msg, code="key_file") from error
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another place with --out."
        raise ConfigError(msg, code="key_file") from error
