"""Imports of this project install no reactor, and the pure packages do not import Twisted.

A program that embeds Seance installs a reactor of its choice, which fails if an import has installed one
already. Each test imports in a new interpreter.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_layers import LAYERS, PACKAGES, PURE, SOURCES
from tests.tools import ROOT

LOOK = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*[name for name in sys.argv[2:] if name in sys.modules])
"""

LOOK_AT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "twisted.internet.reactor" in sys.modules:
        raise SystemExit(f"{name} installs a reactor")
"""

IMPORTABLE = [name for name in SOURCES if name != "seance.__main__"]


def run(code: str, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_no_module_installs_a_reactor() -> None:
    run(LOOK_AT_ALL, *IMPORTABLE)


@pytest.mark.parametrize(
    "package", sorted({PACKAGES[name] for name in SOURCES if 0 <= LAYERS.get(PACKAGES[name], 9) <= PURE})
)
def test_a_pure_package_imports_no_twisted(package: str) -> None:
    assert run(LOOK, f"seance.{package}", "twisted", "autobahn", "asyncio", "logging") == ""


def test_the_package_itself_imports_nothing() -> None:
    assert run(LOOK, "seance", "twisted", "seance.errors") == ""


def test_a_public_name_is_imported_on_first_use_and_installs_no_reactor() -> None:
    code = """
import sys
import seance
assert set(seance.__all__) <= set(dir(seance)), dir(seance)
for name in seance.__all__:
    assert getattr(seance, name).__name__ == name, name
try:
    seance.Nothing
except AttributeError as error:
    print(error)
assert "twisted.internet.reactor" not in sys.modules
"""
    assert run(code) == "module 'seance' has no attribute 'Nothing'"


def test_the_command_imports_a_service_only_when_it_runs_one() -> None:
    assert run(LOOK, "seance.cli", "twisted", "seance.relay_tap", "seance.demo") == ""
