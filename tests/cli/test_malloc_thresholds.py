"""Freed memory is kept by glibc's malloc, unless the user has chosen otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from seance.cli.malloc_thresholds import keep_freed_memory
from tests.tools import ROOT

PROGRAM = """
import os, resource, sys
from seance.cli.malloc_thresholds import keep_freed_memory
print(keep_freed_memory(os.environ))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    bytearray(256 * 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Prints the result, and the page faults of a hundred buffers, one after the other."""


def run(**variables: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    is_set, faults = done.stdout.split()
    return is_set == "True", int(faults)


def test_a_freed_buffer_is_used_again_with_glibc() -> None:
    is_set, faults = run()
    assert is_set is (platform.libc_ver()[0] == "glibc")
    assert not is_set or faults < 500  # a buffer has 64 pages


@pytest.mark.parametrize(
    "variables",
    [
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=4096"},
        {"MALLOC_MMAP_THRESHOLD_": "65536"},
    ],
)
def test_the_users_own_setting_is_kept(variables: dict[str, str]) -> None:
    is_set, faults = run(**variables)
    assert not is_set
    assert faults >= 100


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def confstr(name: str) -> str:
        msg = "unrecognized configuration name"
        raise ValueError(msg)

    monkeypatch.setattr(os, "confstr", confstr)
    assert not keep_freed_memory({})
