"""Whether the pure floors run in their compiled form (decision 20).

``SEANCE_COMPILE=1 pip install`` makes that; ``seance --version`` and the tests ask here which one it is.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["is_compiled"]


def is_compiled() -> bool:
    """Return whether it is; imports nothing for that but the package."""
    spec = find_spec("seance.yamux.session")
    return spec is not None and spec.origin is not None and not spec.origin.endswith((".py", ".pyc"))
