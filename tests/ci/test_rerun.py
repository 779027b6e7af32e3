"""``.ci/rerun.py`` excuses flaky tests, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import ROOT

FLAKY = """
from pathlib import Path
import pytest

class TestOne:
    @pytest.mark.parametrize("word", ["a b", "x::y"])
    def test_passes_the_{th}_time(self, word):
        tries = Path(word.replace(":", "_"))
        tries.write_text(tries.read_text() + "." if tries.exists() else ".")
        assert word == "a b" or len(tries.read_text()) == {tries}, "first failure"
"""


class Suite:
    """A small suite in a folder, its last report, and the list of flaky tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = folder / "report.xml"
        self.flaky = folder / "flaky"
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "part").mkdir()

    def add(self, text: str, name: str = "test_it.py") -> None:
        (self.folder / "part" / name).write_text(text)

    def run(self) -> int:
        flags = ["--junitxml", str(self.report), "-o", "junit_family=xunit1"]
        return self._python("-m", "pytest", "-q", *flags).returncode

    def rerun(self) -> tuple[int, str]:
        done = self._python(str(ROOT / ".ci" / "rerun.py"), str(self.report), str(self.flaky), "-q")
        return done.returncode, done.stdout

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


@pytest.mark.parametrize("tries", [2, 3])
def test_a_test_that_passes_again_is_listed_with_its_first_failure(suite: Suite, tries: int) -> None:
    suite.add(FLAKY.format(th=tries, tries=tries))
    assert suite.run() == 1
    status, output = suite.rerun()
    assert status == 0, output
    listed = suite.flaky.read_text()
    assert listed.startswith(f"flaky: part/test_it.py::TestOne::test_passes_the_{tries}_time[x::y]\n")
    assert "first failure" in listed


def test_a_test_that_fails_three_times_fails_the_run(suite: Suite) -> None:
    suite.add(FLAKY.format(th=4, tries=4))
    assert suite.run() == 1
    status, output = suite.rerun()
    assert status == 1
    assert "failed again by itself" in output


@pytest.mark.parametrize(("earlier", "status"), [(2, 0), (3, 1)])
def test_more_than_three_flaky_tests_fail_the_run(suite: Suite, earlier: int, status: int) -> None:
    suite.flaky.write_text("flaky: an earlier step's\nits failure\n" * earlier)
    suite.add(FLAKY.format(th=2, tries=2))
    assert suite.run() == 1
    assert suite.rerun()[0] == status


def test_many_failures_are_not_run_again(suite: Suite) -> None:
    suite.add("import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_no(n): assert False\n")
    assert suite.run() == 1
    assert suite.rerun() == (1, "4 tests failed; 1 to 3 can be flaky.\n")


def test_a_collection_error_is_not_excused(suite: Suite) -> None:
    suite.add("import nothing_of_this_name\n")
    assert suite.run() == 2
    status, output = suite.rerun()
    assert status == 1
    assert "No test can be run again" in output


def test_a_run_without_a_report_is_not_excused(suite: Suite) -> None:
    status, output = suite.rerun()
    assert status == 1
    assert "No test can be run again" in output


def test_a_fixture_that_fails_once_at_teardown_is_flaky_too(suite: Suite) -> None:
    suite.add(
        "import pytest\nfrom pathlib import Path\n@pytest.fixture\ndef once():\n    yield\n"
        "    again = Path('x').exists()\n    Path('x').touch()\n    assert again\ndef test_it(once): pass\n"
    )
    assert suite.run() == 1
    assert suite.rerun()[0] == 0
