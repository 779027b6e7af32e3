"""Reads a small file that somebody else writes, without trusting what the path has become."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["read_bounded"]


def read_bounded(path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return what a file holds, and what it was when that was read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no plain file, or longer than the limit; half a sentence.
    """
    # Opening must not wait either: the path may have become a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            msg = "is not a plain file"
            raise ValueError(msg)
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        msg = f"is longer than {limit_bytes} bytes"
        raise ValueError(msg)
    return content, status
