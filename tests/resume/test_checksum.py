"""The source of the checksum."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from seance.resume import checksum


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    importlib.reload(checksum)


def test_without_zlib_ng_crc32_is_zlibs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    importlib.reload(checksum)
    assert checksum.crc32 is zlib.crc32


def test_with_zlib_ng_crc32_is_zlib_ngs(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ModuleType("zlib_ng.zlib_ng")
    quick.crc32 = lambda data, value=0: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zlib_ng", ModuleType("zlib_ng"))
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", quick)
    importlib.reload(checksum)
    assert checksum.crc32(b"") == 7


def test_crc32_has_the_standard_check_value() -> None:
    """The check value of CRC-32: the checksum of the digits 1 to 9."""
    assert checksum.crc32(b"123456789") == 0xCBF43926
    assert checksum.crc32(b"6789", checksum.crc32(b"12345")) == 0xCBF43926
