"""Run a program under the system call filter of a unit, without systemd: ``sandbox.py UNIT COMMAND...``.

systemd turns ``SystemCallFilter=`` into a seccomp filter. This program makes the same filter with the same
sets (from ``systemd-analyze``), the same error and the same libseccomp. A test thus shows whether our
programs run under the filter on machines without systemd. Other settings of the unit are ignored.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["allowed_calls", "confine"]

ALLOW = 0x7FFF0000
DENY = 0x00050000 | errno.EPERM


def allowed_calls(unit: str) -> set[str]:
    """Return the names of the system calls that a unit's ``SystemCallFilter=`` lines allow."""
    sets = _sets()
    allowed: set[str] = set()
    for line in unit.splitlines():
        key, _, value = line.partition("=")
        if key != "SystemCallFilter":
            continue
        names = {name for word in value.removeprefix("~").split() for name in _expanded(word, sets)}
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


def _sets() -> dict[str, list[str]]:
    shown = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = {}
    name = ""
    for line in shown.stdout.splitlines():
        if line.startswith("@"):
            name = line.strip()
            found[name] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            found[name].append(line.strip())
        elif not line.startswith(" "):
            name = "others"
            found.setdefault(name, [])
    return found


def _expanded(word: str, sets: dict[str, list[str]]) -> set[str]:
    if not word.startswith("@"):
        return {word}
    return {name for member in sets[word] for name in _expanded(member, sets)}


def confine(names: set[str]) -> None:
    """Allow this process and its successors only these system calls."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    add = library.seccomp_rule_add_array
    add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    rules = library.seccomp_init(ctypes.c_uint32(DENY))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and add(rules, ALLOW, number, 0, None) != 0:  # below 0: not on this machine
            sys.exit(f"{name} cannot be filtered")
    if library.seccomp_load(rules) != 0:
        sys.exit("the filter cannot be loaded")


if __name__ == "__main__":
    calls = allowed_calls(Path(sys.argv[1]).read_text("utf-8"))
    confine(calls)
    os.execvp(sys.argv[2], sys.argv[2:])
