"""Tells whether the pure layers run compiled by mypyc (decision 20).

``SEANCE_COMPILE=1 pip install`` compiles them. ``seance --version`` and the tests call ``is_compiled``.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

__all__ = ["is_compiled"]


def is_compiled() -> bool:
    """Return whether ``seance.yamux`` is compiled, without importing it."""
    spec = find_spec("seance.yamux")
    folders = spec.submodule_search_locations if spec is not None else None
    return any(
        Path(folder, f"session{suffix}").exists() for folder in folders or () for suffix in EXTENSION_SUFFIXES
    )
