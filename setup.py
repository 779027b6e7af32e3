"""The compiled form of the pure floors, for whoever asks for it; the rest of the package is in setup.cfg.

``SEANCE_COMPILE=1 pip install .`` has mypyc make C of the modules below (decision 20). It takes a C compiler
and Python's headers, and a minute. The modules are the same, and so are their tests: ``make test-compiled``.
"""

import os
from pathlib import Path
from typing import Any

from setuptools import setup

MODULES = (
    "seance/yamux/*.py",
    "seance/resume/*.py",
    "seance/heads/frames.py",
    "seance/carrier/lasting.py",
    "seance/carrier/shortcut.py",
    "seance/carrier/transport.py",
    "seance/mux/stream.py",
    "seance/tunnel/splice.py",
)
"""What a message passes between the sockets, of what does not inherit from Twisted or Autobahn ..."""

AS_THEY_ARE = {"__init__.py", "checksum.py"}
"""... but for those that do nothing while messages pass."""

# The types were checked where they are written (``make types``). Here whatever is imported is anything: what
# is compiled does not depend on what else is installed.
MYPY = ("--config-file=", "--follow-imports=skip", "--ignore-missing-imports")


def compiled() -> dict[str, Any]:
    """Return what setuptools has to know of the compiled form."""
    if os.environ.get("SEANCE_COMPILE", "0") in ("", "0"):
        return {}
    needed = ["mypy >= 1.18"]
    try:
        from mypyc.build import mypycify  # noqa: PLC0415
    except ImportError:
        return {"setup_requires": needed}  # pip asks for this first, and runs the file again with it
    here = Path(__file__).parent
    paths = [path for pattern in MODULES for path in here.glob(pattern) if path.name not in AS_THEY_ARE]
    files = sorted(str(path.relative_to(here)) for path in paths)
    return {"ext_modules": mypycify([*MYPY, *files], opt_level="3", group_name="seance")}


setup(**compiled())
