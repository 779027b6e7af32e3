"""Whether the pure floors run in their compiled form (decision 20).

``SEANCE_COMPILE=1 pip install`` makes that; ``seance --version`` and the tests ask here which one it is.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

__all__ = ["is_compiled"]


def is_compiled() -> bool:
    """Return whether it is; imports none of it for that."""
    spec = find_spec("seance.yamux")
    places = spec.submodule_search_locations if spec is not None else None
    return any(Path(place, f"session{end}").exists() for place in places or () for end in EXTENSION_SUFFIXES)
