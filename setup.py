"""Build the compiled form of the pure layer on request; the rest of the package is in setup.cfg.

``SEANCE_COMPILE=1 pip install .`` compiles the modules below with mypyc (decision 20). It needs a C compiler
and Python's headers, and takes a minute. Modules and tests are the same: ``make test-compiled``.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import setup

HERE = Path(__file__).parent

MODULES = (
    "seance/yamux/*.py",
    "seance/resume/*.py",
    "seance/heads/frame_tracker.py",
    "seance/carrier/resumable_transport.py",
    "seance/carrier/fast_frames.py",
    "seance/carrier/transport.py",
    "seance/mux/stream.py",
    "seance/core/splice.py",
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
    if {"editable_wheel", "develop"} & set(sys.argv):
        sys.exit("SEANCE_COMPILE=1 is not for editable installs: C would be run beside sources that change.")
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None or not headers.exists():
        sys.exit(
            f"SEANCE_COMPILE=1 needs a C compiler ({compiler}) and {headers}; on Debian and Ubuntu: "
            "apt install gcc libc6-dev python3-dev. Without SEANCE_COMPILE the pure form is installed."
        )
    try:
        from mypyc.build import mypycify  # noqa: PLC0415
    except ImportError:
        return {"setup_requires": ["mypy >= 1.18"]}  # pip brings it and runs the file again
    for left in (HERE / "build").glob("lib.*"):
        shutil.rmtree(left)  # what was compiled before and is not any more would be packed too
    paths = [path for pattern in MODULES for path in HERE.glob(pattern) if path.name not in AS_THEY_ARE]
    files = sorted(str(path.relative_to(HERE)) for path in paths)
    return {"ext_modules": mypycify([*MYPY, *files], opt_level="3", group_name="seance")}


setup(**compiled())
