"""Requirements of tests: external programs. A test without them is skipped with their names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

__all__ = ["ROOT", "require"]

ROOT = Path(__file__).resolve().parent.parent
"""The root folder of the checkout."""


def require(*programs: str) -> None:
    """Skip the test unless every named program is on the PATH."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} on the PATH")
