"""Programs in other languages that tests run; each is built once per state of its source.

A build stays in the folder for temporary files, under a name made from the source. The next test run finds
it, and nothing is written into the checkout.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.tools import ROOT, require

__all__ = ["built_with", "go_program"]


def go_program(name: str) -> Path:
    """Return the path of ``record``, ``peer``, ``relay`` or ``agent`` of ``tests/go``; skip the test
    without Go.
    """
    require("go")
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-o", "{into}/", "./..."]
    return built_with(ROOT / "tests" / "go", command) / name


def built_with(source: Path, command: Sequence[str]) -> Path:
    """Return the folder into which ``command``, run in ``source``, writes as ``{into}``.

    Two test runs may build at the same time; later runs use the first complete build.
    """
    mark = hashlib.sha256("\0".join(command).encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        mark.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes() + b"\0")
    # The name has the user's number, so on a shared machine no user runs a build of another user.
    place = Path(tempfile.gettempdir()) / f"seance-tests-{os.getuid()}-{mark.hexdigest()[:16]}"
    if not place.exists():
        fresh = Path(tempfile.mkdtemp(prefix="seance-tests-"))
        argv = [word.format(into=fresh) for word in command]
        result = subprocess.run(argv, cwd=source, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(argv)} failed:\n{result.stdout}{result.stderr}"
        try:
            fresh.rename(place)
        except OSError:  # another test run was first
            shutil.rmtree(fresh)
    assert place.stat().st_uid == os.getuid(), f"{place} belongs to another user"
    return place
