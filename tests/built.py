"""Programs in other languages that tests run, built once for every state of their source.

A build stays in the machine's folder for temporary files, under a name made from the source, so the second
run of the tests finds it and nothing is written into the checkout.
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
    """The path of ``record``, ``peer``, ``relay`` or ``agent`` of ``tests/go``; skips without Go."""
    require("go")
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-o", "{into}/", "./..."]
    return built_with(ROOT / "tests" / "go", command) / name


def built_with(source: Path, command: Sequence[str]) -> Path:
    """The folder of what ``command``, run in ``source``, puts into ``{into}``.

    Two test runs at once may both build; the first to finish is used by all later ones.
    """
    mark = hashlib.sha256("\0".join(command).encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        mark.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes() + b"\0")
    # The user's number is in the name: on a shared machine nobody runs what somebody else built.
    place = Path(tempfile.gettempdir()) / f"seance-tests-{os.getuid()}-{mark.hexdigest()[:16]}"
    if not place.exists():
        fresh = Path(tempfile.mkdtemp(prefix="seance-tests-"))
        argv = [word.format(into=fresh) for word in command]
        result = subprocess.run(argv, cwd=source, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{' '.join(argv)} failed:\n{result.stdout}{result.stderr}"
        try:
            fresh.rename(place)
        except OSError:  # somebody else was first
            shutil.rmtree(fresh)
    assert place.stat().st_uid == os.getuid(), f"{place} is somebody else's"
    return place
