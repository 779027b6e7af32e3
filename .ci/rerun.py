"""Decide whether only flaky tests failed in a pytest run.

    rerun.py REPORT FLAKY [PYTEST ARGUMENTS...]

REPORT is the run's ``--junitxml`` file, written with ``-o junit_family=xunit1``. Each test that failed in
it runs again by itself, at most twice, in the current directory. A test that passes then is flaky: its name
and its first failure are appended to FLAKY. Exit status 0 if every failed test turned out flaky and FLAKY,
which all steps of one CI run share, lists at most three; otherwise 1, with the reason on standard output.

A run without a report, with a collection error or with more than three failures is never excused.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

MAX_TRIES = 2
MAX_FLAKY = 3
MARK = "flaky: "


def main(report: str, flaky: str, *arguments: str) -> str:
    """Return the reason why the run failed, or an empty string."""
    try:
        failures = read_failures(Path(report))
    except (OSError, ValueError, ElementTree.ParseError) as error:
        return f"No test can be run again: {error}"
    if not 0 < len(failures) <= MAX_FLAKY:
        return f"{len(failures)} tests failed; 1 to {MAX_FLAKY} can be flaky."
    for test, message in failures.items():
        if not passes_by_itself(test, arguments):
            return f"{test} failed again by itself."
        with Path(flaky).open("a", encoding="utf-8") as out:
            out.write(f"{MARK}{test}\n{message}\n")
    count = sum(line.startswith(MARK) for line in Path(flaky).read_text("utf-8").splitlines())
    return f"{count} flaky tests in one run; at most {MAX_FLAKY} are accepted." if count > MAX_FLAKY else ""


def read_failures(report: Path) -> dict[str, str]:
    """Return the node id of each failed test of a report, with its first failure.

    Raises:
        ValueError: If something other than a test failed, for example collection.
    """
    failures: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problem = next((part for kind in ("failure", "error") for part in case.iter(kind)), None)
        if problem is None:
            continue
        file, name = case.get("file"), case.get("name")
        module = (file or "").removesuffix(".py").replace("/", ".")
        if not file or not name or not case.get("classname", "").startswith(module):
            raise ValueError(f"{name} is not a test: {problem.text}")
        classes = case.get("classname", "").removeprefix(module).split(".")[1:]
        failures.setdefault("::".join([file, *classes, name]), problem.text or "")
    return failures


def passes_by_itself(test: str, arguments: tuple[str, ...]) -> bool:
    """Run one test by itself, at most ``MAX_TRIES`` times, until it passes."""
    for number in range(1, MAX_TRIES + 1):
        print(f"-- running {test} again, try {number} of {MAX_TRIES}", flush=True)
        if subprocess.run([sys.executable, "-m", "pytest", *arguments, test], check=False).returncode == 0:
            return True
    return False


if __name__ == "__main__":
    reason = main(*sys.argv[1:])
    print(reason or "Every failed test passed when it ran again: flaky.", flush=True)
    sys.exit(bool(reason))
