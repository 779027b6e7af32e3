"""Writes and reads key files.

A key is written with mode 0600. An existing file is never overwritten, because all tokens that the old key
has signed would become invalid.
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

__all__ = ["MAX_KEY_FILE_BYTES", "is_open_to_others", "public_path", "signing_key_from_file", "write_key"]

MAX_KEY_FILE_BYTES = 64 * 1024

OWNER_ONLY = 0o600
WORLD_READABLE = 0o644


def public_path(path: Path) -> Path:
    """Return the path of the public part of the key at ``path``."""
    return path.with_name(path.name + ".pub")


def write_key(path: Path, key: Key) -> Path | None:
    """Write a key with mode 0600, and its public part with mode 0644 in the same folder.

    Returns:
        The path of the public part, or None for a shared secret, which has none.

    Raises:
        ConfigError: A file exists already or cannot be written.
    """
    _write_new(path, key.private_jwk(), OWNER_ONLY)
    if key.is_shared:
        return None
    public = public_path(path)
    try:
        _write_new(public, key.public_jwk(), WORLD_READABLE)
    except ConfigError:
        path.unlink()
        raise
    return public


def signing_key_from_file(path: Path) -> Key:
    """Return the only key of a file, which must be able to sign.

    Raises:
        ConfigError: The file cannot be read, does not contain exactly one key, or contains only a public key.
    """
    try:
        keys = keys_from_text(read_bounded(path, MAX_KEY_FILE_BYTES)[0])
    except OSError as error:
        msg = f"The key file {path} cannot be read ({error.strerror})."
        raise ConfigError(msg, code="key_file") from error
    except ValueError as error:
        msg = f"The key file {path} {error}."
        raise ConfigError(msg, code="key_file") from error
    if len(keys) != 1:
        msg = (
            f"The key file {path} contains {len(keys)} keys; name a file that contains only the signing key."
        )
        raise ConfigError(msg, code="key_file")
    if keys[0].signing is None:
        msg = f"The key file {path} contains only a public key, which cannot sign; name the private key."
        raise ConfigError(msg, code="key_file")
    return keys[0]


def is_open_to_others(status: os.stat_result) -> bool:
    """Return whether users other than the owner have access to a file; False on systems without modes."""
    return os.name == "posix" and bool(stat.S_IMODE(status.st_mode) & 0o077)


def _write_new(path: Path, jwk: Mapping[str, str], mode: int) -> None:
    try:
        # With O_EXCL, a symbolic link at this path is not followed either.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps(jwk) + "\n")
    except FileExistsError as error:
        msg = f"{path} exists already and is not overwritten; choose another name with --out."
        raise ConfigError(msg, code="key_file") from error
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); choose another file with --out."
        raise ConfigError(msg, code="key_file") from error
