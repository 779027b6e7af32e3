"""CRC-32, from wherever it is quickest.

Every byte that a carrier brings or takes is summed up on both sides. zlib's own function does 5 GB/s, which
under load is a tenth of a relay's time; that of zlib-ng (extra ``fast``) is the same function at 45 GB/s.
"""

from __future__ import annotations

from importlib import import_module
from zlib import crc32 as _crc32

__all__ = ["crc32"]

try:
    crc32 = import_module("zlib_ng.zlib_ng").crc32
except ImportError:
    crc32 = _crc32
