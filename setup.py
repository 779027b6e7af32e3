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
"""The modules that a message passes between the sockets and that inherit nothing from Twisted or Autobahn."""

NOT_COMPILED = {"__init__.py", "checksum.py"}
"""Modules of these folders that no message passes."""

# ``make types`` checks the types. Here imports are not followed, so that the result does not depend on the
# installed packages.
MYPY = ("--config-file=", "--follow-imports=skip", "--ignore-missing-imports")


def compiled() -> dict[str, Any]:
    """Return the setuptools arguments for the compiled form."""
    if os.environ.get("SEANCE_COMPILE", "0") in ("", "0"):
        return {}
    if {"editable_wheel", "develop"} & set(sys.argv):
        sys.exit("SEANCE_COMPILE=1 is not for editable installs: compiled modules do not follow the sources.")
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
        return {"setup_requires": ["mypy >= 1.18"]}  # pip installs it and runs this file again
    for left in (HERE / "build").glob("lib.*"):
        shutil.rmtree(left)  # modules of an earlier build would be packed too
    paths = [path for pattern in MODULES for path in HERE.glob(pattern) if path.name not in NOT_COMPILED]
    files = sorted(str(path.relative_to(HERE)) for path in paths)
    return {"ext_modules": mypycify([*MYPY, *files], opt_level="3", group_name="seance")}


setup(**compiled())
