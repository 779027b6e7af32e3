"""Makes glibc's malloc keep freed memory, so that large transfers reuse it.

Each read of a busy carrier is a buffer of up to 256 KiB. By default glibc returns it to the kernel when it is
freed, and the next read has 64 page faults for the same memory. With higher thresholds, 400 MiB echoed in
messages of 256 KiB cause 1,400 page faults in a relay instead of 30,000, and take a tenth less CPU. A
process may keep 8 MiB after a transfer. ``ctypes`` costs no start-up time, because Twisted has imported it.

The programs do this; a program that embeds Seance may call ``keep_freed_memory`` as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

__all__ = ["keep_freed_memory"]

# Number in malloc.h, value, and the two names by which users set it (mallopt(3)).
_OPTIONS: Final = (
    (-3, 1024 * 1024, "mmap_threshold", "MALLOC_MMAP_THRESHOLD_"),  # larger blocks are mapped separately
    (-1, 8 * 1024 * 1024, "trim_threshold", "MALLOC_TRIM_THRESHOLD_"),  # more free memory is returned
)


def keep_freed_memory(environ: Mapping[str, str]) -> bool:
    """Set the thresholds of malloc for this process, unless ``environ`` sets one of them.

    Returns:
        Whether they are set; False also for another C library than glibc.
    """
    tunables = environ.get("GLIBC_TUNABLES", "")
    if any(f"glibc.malloc.{name}" in tunables or variable in environ for _, _, name, variable in _OPTIONS):
        return False
    try:
        os.confstr("CS_GNU_LIBC_VERSION")  # other C libraries have a mallopt with other options, or none
        from ctypes import CDLL  # noqa: PLC0415  # missing in a Python that was built without libffi
    except (AttributeError, ImportError, ValueError):
        return False
    mallopt = CDLL(None).mallopt
    return all(mallopt(option, value) for option, value, _, _ in _OPTIONS)
