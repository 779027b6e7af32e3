"""The package after a plain ``pip install``, used outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from seance import __version__
from tests.test_layers import python_files
from tests.tools import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NOT_SOURCE = shutil.ignore_patterns(
    ".*", "node_modules", "__pycache__", "build", "dist", "_build", "*.egg-info", "dropin.cache"
)

SDIST = "import sys, setuptools.build_meta as backend; print(backend.build_sdist(sys.argv[1]))"


@dataclass(frozen=True, slots=True)
class Installed:
    """A new virtual environment with only this package and its dependencies, and the built archives."""

    folder: Path
    wheel: Path
    sdist: Path

    def run(
        self, program: str, *arguments: str, venv_folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, outside the checkout."""
        return subprocess.run(
            [str((venv_folder or self.folder / "venv") / "bin" / program), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install once for all workers of pytest-xdist; their folders have one parent."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "installed"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            install(folder)
            (folder / "complete").touch()
    [wheel], [sdist] = (folder / "built").glob("*.whl"), (folder / "built").glob("*.tar.gz")
    return Installed(folder, wheel, sdist)


def install(folder: Path) -> None:
    source, built = folder / "source", folder / "built"
    shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"

    def run(*arguments: str, cwd: Path = folder) -> None:
        command = [str(python), *arguments]
        finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
        assert finished.returncode == 0, finished.stdout + finished.stderr

    run("-m", "pip", "wheel", "-q", "--no-deps", "-w", str(built), str(source))
    run("-m", "pip", "install", "-q", str(source))
    run("-m", "pip", "install", "-q", "setuptools>=77")
    run("-c", SDIST, str(built), cwd=source)


def test_twistd_has_both_plugins(installed: Installed) -> None:
    output = installed.run("twistd", "--help").stdout
    assert "seance-relay" in output
    assert "seance-agent" in output


@pytest.mark.parametrize("plugin", ["seance-relay", "seance-agent"])
def test_a_plugin_works_outside_the_checkout(plugin: str, installed: Installed) -> None:
    finished = installed.run("twistd", plugin, "--help")
    assert finished.returncode == 0, finished.stderr
    assert f"Usage: {plugin}" in finished.stdout


def test_the_command_is_installed(installed: Installed) -> None:
    assert installed.run("seance", "--version").stdout == f"seance-tunnel {__version__}\n"
    assert installed.run("python", "-m", "seance", "--version").stdout == f"seance-tunnel {__version__}\n"


def test_the_installed_package_is_imported(installed: Installed) -> None:
    where = installed.run("python", "-c", "import seance; print(seance.__file__)").stdout.strip()
    assert Path(where).is_relative_to(installed.folder / "venv")


def test_relay_and_agent_need_no_extra(installed: Installed) -> None:
    assert installed.run("python", "-c", "import seance.relay_tap, seance.agent_tap").returncode == 0
    for missing in ("pycrdt", "segno", "pytest"):
        assert installed.run("python", "-c", f"import {missing}").returncode == 1


def test_the_demo_without_its_extra_names_the_extra(installed: Installed) -> None:
    finished = installed.run("seance", "demo")
    assert finished.returncode == 1
    assert "seance-tunnel[demo]" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_wheel_contains_only_the_package_and_the_plugins(installed: Installed) -> None:
    names = {name for name in zipfile.ZipFile(installed.wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(ROOT)) for path in python_files(ROOT / "seance")}
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "seance" / "pad").glob("*.html")}
    assert pages
    dashboard = {str(path.relative_to(ROOT)) for path in (ROOT / "seance" / "dashboard" / "static").iterdir()}
    assert len(dashboard) > 3
    pages |= dashboard
    assert names == modules | pages | {"seance/py.typed", "twisted/plugins/seance_plugins.py"}


def test_the_wheel_has_name_version_license_and_extras(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        inside = {name.split(".dist-info/")[1]: name for name in wheel.namelist() if ".dist-info/" in name}
        metadata = wheel.read(inside["METADATA"]).decode()
    head = metadata.split("\n\n")[0].splitlines()
    assert {"Name: seance-tunnel", f"Version: {__version__}", "Requires-Python: >=3.11"} <= set(head)
    assert any(line.startswith("License") and line.endswith("MIT") for line in head)
    assert "licenses/LICENSE" in inside
    assert {f"Provides-Extra: {extra}" for extra in ("demo", "test", "docs", "dev")} <= set(head)


def test_the_source_distribution_builds_the_same_wheel(installed: Installed, tmp_path: Path) -> None:
    with tarfile.open(installed.sdist) as archive:
        # Python 3.11.2 has no filter yet and 3.12 wants one.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    [source] = tmp_path.iterdir()
    assert not list(source.rglob("node_modules"))
    finished = installed.run(
        "python",
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    )
    assert finished.returncode == 0, finished.stderr
    [wheel] = tmp_path.glob("*.whl")
    assert sorted(zipfile.ZipFile(wheel).namelist()) == sorted(zipfile.ZipFile(installed.wheel).namelist())


def test_uninstalling_keeps_twisted_working(installed: Installed, tmp_path: Path) -> None:
    copy = tmp_path / "venv"  # the other tests use the original
    shutil.copytree(installed.folder / "venv", copy, symlinks=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return installed.run("python", *arguments, venv_folder=copy)

    assert run("-m", "pip", "uninstall", "-q", "-y", "seance-tunnel").returncode == 0
    assert run("-c", "import seance").returncode == 1
    finished = run("-m", "twisted", "--help")
    assert finished.returncode == 0, finished.stderr
    finished = run("-c", "from twisted.scripts.twistd import run; run()", "--help")
    assert finished.returncode == 0, finished.stderr
    assert "seance-" not in finished.stdout
