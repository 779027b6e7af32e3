"""Says at the end of a run with mutants how many there were, so that "a million" is seen and not believed."""

from __future__ import annotations

import pytest

__all__ = ["FuzzCount", "fuzz_count", "pytest_terminal_summary"]

FuzzCount = dict[str, int]
"""Inputs so far, by what was fuzzed with them."""

_COUNT = pytest.StashKey[FuzzCount]()


@pytest.fixture
def fuzz_count(pytestconfig: pytest.Config) -> FuzzCount:
    """The count of this run, to be counted on."""
    return pytestconfig.stash.setdefault(_COUNT, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the count."""
    count = config.stash.get(_COUNT, {})
    if count:
        parts = ", ".join(f"{name} {inputs:,}" for name, inputs in count.items())
        terminalreporter.write_line(f"fuzzed with {sum(count.values()):,} inputs: {parts}")
