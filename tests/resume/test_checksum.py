"""Where the checksum comes from."""

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


def test_without_the_extra_it_is_zlibs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    importlib.reload(checksum)
    assert checksum.crc32 is zlib.crc32


def test_with_the_extra_it_is_the_quick_one(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ModuleType("zlib_ng.zlib_ng")
    quick.crc32 = lambda data, value=0: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zlib_ng", ModuleType("zlib_ng"))
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", quick)
    importlib.reload(checksum)
    assert checksum.crc32(b"") == 7


def test_it_is_the_checksum_that_both_sides_agree_on() -> None:
    """The check value of CRC-32, of the catalogue of all."""
    assert checksum.crc32(b"123456789") == 0xCBF43926
    assert checksum.crc32(b"6789", checksum.crc32(b"12345")) == 0xCBF43926
